"""Whether a chain takes one more session: room and time on every stage, decided as values.

A session is refused when it asks to open, never in the middle of a stream. Source: design page
"distributed", section 7.4.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from pipeline.device import Device
from pipeline.outlook import MAX_LOAD
from pipeline.placement import Placement

_EPS = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceCapacity:
    """What a device of the chain offers: its compute for a chunk, and room for `slots` sessions."""

    name: str
    busy_ms: float
    slots: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """A session that was let in: a chunk of it is due every `chunk_ms`.

    `phase_ms` is how long after the chain's common beat that happens. A session whose chunks
    nobody waits for (`chunk_ms` infinite) takes room, and only the time that others leave.
    """

    session: str
    chunk_ms: float
    phase_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A seat that is offered; it holds for the version of the ledger that it was made from."""

    seat: Seat
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a session is not let in, in one line."""

    session: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """Who is in. Every change is a new ledger with the next version.

    Several may ask the same ledger at once: each gets its answer, and of the grants only the first
    to be taken still fits the version, so the others have to ask again.
    """

    devices: tuple[DeviceCapacity, ...]
    seats: tuple[Seat, ...] = ()
    version: int = 0
    max_load: float = field(default=MAX_LOAD)

    def load(self, device: DeviceCapacity, chunk_ms: float | None = None) -> float:
        """The device's share of time, with one more session of `chunk_ms` if that is given."""
        periods = [seat.chunk_ms for seat in self.seats]
        if chunk_ms is not None:
            periods.append(chunk_ms)
        return sum(device.busy_ms / period_ms for period_ms in periods)

    def ask(self, session: str, chunk_ms: float) -> Grant | Refusal:
        """A seat for a session whose chunks show for `chunk_ms`, or why there is none.

        Raises:
            ValueError: `chunk_ms` is no time.
        """
        if not chunk_ms > 0.0:
            raise ValueError(f"chunk_ms {chunk_ms} must be above 0: give how long a chunk shows")
        if any(seat.session == session for seat in self.seats):
            return Refusal(session=session, reason=f"session {session!r} is open: close it first")
        for device in self.devices:
            reason = self._obstacle(device, chunk_ms)
            if reason:
                return Refusal(session=session, reason=reason)
        phase_ms = 0.0
        if chunk_ms < math.inf:
            phases = [s.phase_ms % chunk_ms for s in self.seats if s.chunk_ms < math.inf]
            phase_ms = free_phase_ms(phases, chunk_ms)
        seat = Seat(session=session, chunk_ms=chunk_ms, phase_ms=phase_ms)
        return Grant(seat=seat, version=self.version)

    def _obstacle(self, device: DeviceCapacity, chunk_ms: float) -> str:
        """What stands in the way on a device, nothing if there is room and time."""
        if len(self.seats) >= device.slots:
            return (
                f"{device.name} has room for {device.slots} sessions and {len(self.seats)} are in: "
                "wait for one to end"
            )
        load = self.load(device, chunk_ms)
        if chunk_ms < math.inf and load > self.max_load + _EPS:
            return (
                f"{device.name} would be busy {load:.0%} of the time ({device.busy_ms:.0f} ms for "
                f"every {chunk_ms:.0f} ms of video, {len(self.seats)} sessions are in), above "
                f"{self.max_load:.0%}: wait for one to end or ask for fewer pictures a second"
            )
        return ""

    def take(self, grant: Grant) -> "Ledger | None":
        """The ledger with the seat taken, None if it has changed since the grant was made."""
        if grant.version != self.version:
            return None
        return replace(self, seats=(*self.seats, grant.seat), version=self.version + 1)

    def leave(self, session: str) -> "Ledger":
        """The ledger without a session; one that is not in changes nothing."""
        seats = tuple(seat for seat in self.seats if seat.session != session)
        if len(seats) == len(self.seats):
            return self
        return replace(self, seats=seats, version=self.version + 1)

    def measured(self, busy_ms: Mapping[str, float]) -> "Ledger":
        """The ledger with what these devices were seen to compute for a chunk.

        Whoever is in stays in, even if the chain turns out slower than it was taken for.
        """
        devices = tuple(
            replace(device, busy_ms=busy_ms.get(device.name, device.busy_ms))
            for device in self.devices
        )
        if devices == self.devices:
            return self
        return replace(self, devices=devices, version=self.version + 1)

    def num_more(self, chunk_ms: float) -> int:
        """How many more sessions of that kind fit."""
        ledger: Ledger = self
        for count in range(max((device.slots for device in self.devices), default=0) + 1):
            answer = ledger.ask(f"\0{count}", chunk_ms)
            taken = ledger.take(answer) if isinstance(answer, Grant) else None
            if taken is None:
                return count
            ledger = taken
        return 0


def open_ledger(placement: Placement) -> Ledger:
    """An empty ledger of a placed chain."""
    return Ledger(
        devices=tuple(
            DeviceCapacity(
                name=capacity_name(device),
                busy_ms=placement.busy_ms(device),
                slots=placement.need(device).slots(device),
            )
            for device in placement.devices
        )
    )


def capacity_name(device: Device) -> str:
    """What a device is called in a ledger."""
    return f"{device.node}/{device.name}"


def free_phase_ms(taken_ms: Sequence[float], chunk_ms: float) -> float:
    """Where in a chunk's time a new session should start: the middle of the widest gap.

    Chunks of sessions so spread out hardly ever wait for each other.
    """
    if not taken_ms:
        return 0.0
    phases = sorted(taken_ms)
    ends = [*phases[1:], phases[0] + chunk_ms]
    width_ms, start_ms = max(
        ((end - start, start) for start, end in zip(phases, ends, strict=True)),
        key=lambda gap: (round(gap[0], 6), -gap[1]),
    )
    return (start_ms + width_ms / 2) % chunk_ms
