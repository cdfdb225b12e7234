"""Lets sessions into a running chain, or says at once and in one line why not.

The decision is `admission.Ledger`'s; this holds the ledger while several ask, and keeps it at what
the stages were measured to take.
"""

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.admission import DeviceCapacity, Ledger, Refusal, Seat, capacity_name, open_ledger
from pipeline.errors import ChainFull
from pipeline.placement import Placement
from pipeline.step_cost import MIN_SAMPLES, Ema

# More than any device has room for: says that nobody counted.
UNCOUNTED = 10**6
# When to ask again while no session has ended yet, and the bounds of what is said later.
FIRST_RETRY_S, LEAST_RETRY_S, MOST_RETRY_S = 5.0, 1.0, 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainCapacity:
    """What a chain can carry: its ledger while empty, and the device of each stage by name."""

    ledger: Ledger
    stage_devices: tuple[str, ...]

    @classmethod
    def of(cls, placement: Placement) -> "ChainCapacity":
        """The capacity of a chain that was placed: memory as counted, times as modelled."""
        return cls(
            ledger=open_ledger(placement),
            stage_devices=tuple(capacity_name(stage.device) for stage in placement.stages),
        )

    @classmethod
    def unplaced(cls, stages: Sequence[str]) -> "ChainCapacity":
        """Of stages of which nothing is known: each alone, room uncounted, times to be measured."""
        devices = tuple(DeviceCapacity(name=s, busy_ms=0.0, slots=UNCOUNTED) for s in stages)
        return cls(ledger=Ledger(devices=devices), stage_devices=tuple(stages))


class Doorman:
    """Who is in a chain; any thread may ask."""

    def __init__(
        self, capacity: ChainCapacity, *, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin with nobody in."""
        self._stage_devices = capacity.stage_devices
        self._ledger = capacity.ledger
        self._clock_s = clock_s
        self._since_s: dict[str, float] = {}
        self._stay = Ema()
        self._lock = threading.Lock()

    def admit(self, session: str, chunk_ms: float, paces: Sequence[Ema]) -> Seat:
        """Let a session in whose chunks show for `chunk_ms`, infinite if nobody waits for them.

        `paces` is what the stages take for a chunk, as far as measured.

        Raises:
            ChainFull: there is no room or no time for it.
        """
        with self._lock:
            self._ledger = self._ledger.measured(self._busy_ms(paces))
            answer = self._ledger.ask(session, chunk_ms)
            if isinstance(answer, Refusal):
                reason = f"session {session} is not let in: {answer.reason}"
                raise ChainFull(reason, retry_after_s=self._retry_after_s())
            # Nobody else changes the ledger meanwhile, so what was granted is there to be taken.
            self._ledger = self._ledger.take(answer) or self._ledger
            self._since_s[session] = self._clock_s()
            return answer.seat

    def leave(self, session: str) -> None:
        """Give a seat back; a session that has none is no error."""
        with self._lock:
            since_s = self._since_s.pop(session, None)
            if since_s is not None:
                self._stay = self._stay.after((self._clock_s() - since_s) * 1e3)
                self._ledger = self._ledger.leave(session)

    def move(self, capacity: ChainCapacity) -> None:
        """Go on with the same sessions on other devices; all of them stay in."""
        with self._lock:
            seats, version = self._ledger.seats, self._ledger.version + 1
            empty = capacity.ledger
            self._stage_devices = capacity.stage_devices
            self._ledger = Ledger(
                devices=empty.devices, seats=seats, version=version, max_load=empty.max_load
            )

    @property
    def ledger(self) -> Ledger:
        """Who is in now."""
        return self._ledger

    def _busy_ms(self, paces: Sequence[Ema]) -> dict[str, float]:
        """What devices compute for a chunk, of those of which all stages were measured."""
        busy_ms: dict[str, float] = {}
        for device, pace in zip(self._stage_devices, paces, strict=True):
            own_ms = pace.value_ms if pace.num_samples >= MIN_SAMPLES else math.nan
            busy_ms[device] = busy_ms.get(device, 0.0) + own_ms
        return {device: ms for device, ms in busy_ms.items() if not math.isnan(ms)}

    def _retry_after_s(self) -> float:
        """How far apart sessions end, as many as are in and as long as they stayed so far."""
        if not self._stay.num_samples:
            return FIRST_RETRY_S
        apart_s = self._stay.value_ms / 1e3 / max(1, len(self._since_s))
        return min(max(apart_s, LEAST_RETRY_S), MOST_RETRY_S)
