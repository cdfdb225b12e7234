"""What a whole chain computes and remembers for a chunk and a session, device by device."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.device import Device, gib
from pipeline.dit_work import StepWork

# Left free on every device: the allocator's fragments, a card's context, what libraries keep.
RESERVE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeWork:
    """The decoder: operations of one chunk, and values of weights, session state and scratch."""

    flops: float
    weight_values: int
    state_values: int
    scratch_values: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainWork:
    """All steps and the decoder of one plan, model and picture size.

    `network_values` are the network's weights, `latent_values` what goes from stage to stage,
    `sink_flops` what filling a session's sink takes, `pictures` how many come out of a chunk.
    """

    steps: tuple[StepWork, ...]
    decode: DecodeWork
    network_values: int
    latent_values: int
    sink_flops: float
    pictures: int

    @property
    def hinges(self) -> frozenset[int]:
        """Steps before which a cut is best, since the function changes there anyway."""
        return frozenset(index for index, step in enumerate(self.steps) if step.hinge)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryNeed:
    """Bytes on a device: once, for each session, and how it comes to that in words."""

    fixed_bytes: int
    session_bytes: int
    formula: str

    def total(self, num_sessions: int) -> int:
        """Bytes with so many sessions."""
        return self.fixed_bytes + num_sessions * self.session_bytes

    def slots(self, device: Device) -> int:
        """Sessions for which a device has room."""
        free = usable_bytes(device) - self.fixed_bytes
        return max(0, free // self.session_bytes) if self.session_bytes else 10**6

    def __add__(self, other: "MemoryNeed") -> "MemoryNeed":
        """Both on one device, in processes of their own."""
        return MemoryNeed(
            fixed_bytes=self.fixed_bytes + other.fixed_bytes,
            session_bytes=self.session_bytes + other.session_bytes,
            formula=f"{self.formula} + {other.formula}",
        )


def usable_bytes(device: Device) -> int:
    """What stages may fill of a device's memory."""
    return int(device.memory_bytes * (1.0 - RESERVE))


def steps_need(work: ChainWork, first: int, end: int, device: Device) -> MemoryNeed:
    """Memory of a stage of the steps `first` to `end` (not included) on a device.

    One copy of the weights for each adapter; one sink a session for all lanes of one function.
    """
    steps, size = work.steps[first:end], device.value_bytes
    copies = len({step.adapter for step in steps})
    scratch = max(step.scratch_values for step in steps) * size
    sinks = sum(values for values, _ in {(step.sink_values, step.adapter) for step in steps}) * size
    lanes = sum(step.lane_values for step in steps) * size
    weights = copies * work.network_values * size
    words = f"{len(steps)} lane{'s' if len(steps) > 1 else ''} of {gib(lanes / len(steps))}"
    return MemoryNeed(
        fixed_bytes=weights + scratch,
        session_bytes=lanes + sinks,
        formula=f"weights {gib(weights)} + scratch {gib(scratch)} + sessions x "
        f"({words} + sink {gib(sinks)})",
    )


def decode_need(work: ChainWork, device: Device) -> MemoryNeed:
    """Memory of the decoder on a device."""
    decode, size = work.decode, device.value_bytes
    fixed = (decode.weight_values + decode.scratch_values) * size
    state = decode.state_values * size
    return MemoryNeed(
        fixed_bytes=fixed,
        session_bytes=state,
        formula=f"decoder {gib(fixed)} + sessions x {gib(state)}",
    )


def need_of(
    work: ChainWork, cuts: Sequence[tuple[int, int]], decodes: bool, device: Device
) -> MemoryNeed:
    """Memory of stages, each of a run of steps, and maybe the decoder, all on one device."""
    needs = [steps_need(work, first, end, device) for first, end in cuts]
    if decodes:
        needs.append(decode_need(work, device))
    total = needs[0]
    for need in needs[1:]:
        total = total + need
    return total
