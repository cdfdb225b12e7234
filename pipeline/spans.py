"""When a stage did what: the raw material of timings and traces."""

import socket
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.message import Message  # which imports torch, and whoever only reads needs none

# About an hour of one session at 25 pictures per second, two records a chunk.
MAX_RECORDS = 16384
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

# Called with a message, when it began to be sent, and when it was handed over.
OnSent = Callable[["Message", int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One chunk in one stage, in nanoseconds of the machine's monotonic clock.

    `due_ns` is when its pictures are due, on the driver's clock; 0 says that nobody waits.
    `num_bypassed` counts the steps that were left out because it was late.
    """

    stage: str
    session: str
    epoch: int
    chunk: int
    arrived_ns: int
    began_ns: int
    ended_ns: int
    due_ns: int = 0
    num_bypassed: int = 0

    @property
    def wait_ms(self) -> float:
        """Time in the stage's inbox."""
        return (self.began_ns - self.arrived_ns) / 1e6

    @property
    def compute_ms(self) -> float:
        """Time at work."""
        return (self.ended_ns - self.began_ns) / 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """One chunk on its way out of a stage: from the first byte packed to the last one handed over.

    It has arrived when the next stage's span says so.
    """

    stage: str
    session: str
    epoch: int
    chunk: int
    began_ns: int
    ended_ns: int
    num_bytes: int


Record = Span | Sending


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A chunk that a stage holds: since when it waits, or is being worked on."""

    session: str
    epoch: int
    chunk: int
    since_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StageReport:
    """A stage at one moment, and what it did since it was asked before.

    `now_ns` is the moment on the clock of `machine`; processes of one machine share its clock.
    `cursor` is what to ask with next time; `memory_bytes` the state held, by session.
    """

    stage: str
    machine: str
    now_ns: int
    records: tuple[Record, ...]
    cursor: int
    waiting: tuple[Held, ...] = ()
    working: tuple[Held, ...] = ()
    num_unsent: int = 0
    memory_bytes: tuple[tuple[str, int], ...] = ()


class Spans:
    """The latest records of one stage; any thread may ask, and whoever asks has a cursor."""

    def __init__(self, stage: str) -> None:
        """Begin with none."""
        self._stage = stage
        # By epoch and chunk: the session, since when, and for what is worked on when it arrived.
        self._waiting: dict[tuple[int, int], tuple[str, int]] = {}
        self._working: dict[tuple[int, int], tuple[str, int, int]] = {}
        self._memory_bytes: dict[int, tuple[str, int]] = {}
        self._records: deque[Record] = deque(maxlen=MAX_RECORDS)
        self._num_records = 0
        self._taken = 0
        self._lock = threading.Lock()

    def arrived(self, message: "Message", now_ns: int) -> None:
        """A chunk came into the inbox."""
        with self._lock:
            self._waiting[message.epoch, message.chunk] = message.session, now_ns

    def began(self, message: "Message", now_ns: int) -> None:
        """A chunk is being worked on from now on."""
        key = message.epoch, message.chunk
        with self._lock:
            _, arrived_ns = self._waiting.pop(key, ("", now_ns))
            self._working[key] = message.session, now_ns, arrived_ns

    def done(
        self, message: "Message", began_ns: int, ended_ns: int, *, num_bypassed: int = 0
    ) -> None:
        """A chunk was worked on, all but `num_bypassed` steps."""
        key = message.epoch, message.chunk
        with self._lock:
            _, _, arrived_ns = self._working.pop(key, ("", began_ns, began_ns))
            _, arrived_ns = self._waiting.pop(key, ("", arrived_ns))
            self._append(
                Span(
                    stage=self._stage,
                    session=message.session,
                    epoch=message.epoch,
                    chunk=message.chunk,
                    arrived_ns=arrived_ns,
                    began_ns=began_ns,
                    ended_ns=ended_ns,
                    due_ns=message.due_ns,
                    num_bypassed=num_bypassed,
                )
            )

    def sent(self, message: "Message", began_ns: int, ended_ns: int) -> None:
        """A chunk was handed to the link."""
        with self._lock:
            self._append(
                Sending(
                    stage=self._stage,
                    session=message.session,
                    epoch=message.epoch,
                    chunk=message.chunk,
                    began_ns=began_ns,
                    ended_ns=ended_ns,
                    num_bytes=message.num_bytes,
                )
            )

    def _append(self, record: Record) -> None:
        self._records.append(record)
        self._num_records += 1

    def holds(self, epoch: int, session: str, num_bytes: int) -> None:
        """The stage's state of a session takes so much memory now."""
        with self._lock:
            self._memory_bytes[epoch] = session, num_bytes

    def forget(self, epoch: int) -> None:
        """A session was closed: what was under way will never be done."""
        with self._lock:
            self._memory_bytes.pop(epoch, None)
            self._waiting = {k: held for k, held in self._waiting.items() if k[0] != epoch}
            self._working = {k: held for k, held in self._working.items() if k[0] != epoch}

    def report(self, cursor: int, now_ns: int, *, num_unsent: int = 0) -> StageReport:
        """What is held now, and the records after `cursor` as far as they are still kept."""
        with self._lock:
            return StageReport(
                stage=self._stage,
                machine=machine_id(),
                now_ns=now_ns,
                records=tuple(self._since(cursor)),
                cursor=self._num_records,
                waiting=tuple(_held(key, *held) for key, held in self._waiting.items()),
                working=tuple(_held(key, *held[:2]) for key, held in self._working.items()),
                num_unsent=num_unsent,
                memory_bytes=tuple(self._memory_bytes.values()),
            )

    def taken(self) -> list[Span]:
        """All spans since they were taken last."""
        with self._lock:
            records, self._taken = self._since(self._taken), self._num_records
        return [record for record in records if isinstance(record, Span)]

    def _since(self, cursor: int) -> list[Record]:
        num_fresh = self._num_records - cursor
        return list(self._records)[-num_fresh:] if num_fresh > 0 else []


def _held(key: tuple[int, int], session: str, since_ns: int) -> Held:
    epoch, chunk = key
    return Held(session=session, epoch=epoch, chunk=chunk, since_ns=since_ns)


@cache
def machine_id() -> str:
    """What tells machines apart whose monotonic clocks differ."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return socket.gethostname()
