"""When a stage did what: the raw material of traces and timings."""

import threading
from collections import deque
from dataclasses import dataclass

from pipeline.message import Message

# About an hour of one session at 25 pictures per second.
MAX_SPANS = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One chunk in one stage, in nanoseconds of the machine's monotonic clock."""

    stage: str
    session: str
    epoch: int
    chunk: int
    arrived_ns: int
    began_ns: int
    ended_ns: int

    @property
    def wait_ms(self) -> float:
        """Time in the stage's inbox."""
        return (self.began_ns - self.arrived_ns) / 1e6

    @property
    def compute_ms(self) -> float:
        """Time at work."""
        return (self.ended_ns - self.began_ns) / 1e6


class Spans:
    """The latest spans of one stage; any thread may ask."""

    def __init__(self, stage: str) -> None:
        """Begin with none."""
        self._stage = stage
        self._arrivals_ns: dict[tuple[int, int], int] = {}
        self._done: deque[Span] = deque(maxlen=MAX_SPANS)
        self._lock = threading.Lock()

    def arrived(self, message: Message, now_ns: int) -> None:
        """A chunk came into the inbox."""
        with self._lock:
            self._arrivals_ns[message.epoch, message.chunk] = now_ns

    def done(self, message: Message, began_ns: int, ended_ns: int) -> None:
        """A chunk was worked on."""
        with self._lock:
            arrived_ns = self._arrivals_ns.pop((message.epoch, message.chunk), began_ns)
            self._done.append(
                Span(
                    stage=self._stage,
                    session=message.session,
                    epoch=message.epoch,
                    chunk=message.chunk,
                    arrived_ns=arrived_ns,
                    began_ns=began_ns,
                    ended_ns=ended_ns,
                )
            )

    def taken(self) -> list[Span]:
        """All spans since they were taken last."""
        with self._lock:
            spans = list(self._done)
            self._done.clear()
            return spans
