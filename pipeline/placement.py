"""A plan's steps as stages on devices: the values that a planner makes and a chain is built by."""

from dataclasses import dataclass, replace

from pipeline.chain_work import MemoryNeed
from pipeline.device import Device
from pipeline.plan import Plan, StageSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedStage:
    """Steps `first` to `end` (not included) on a device; none of them for the decoder's stage.

    `time_ms` is the stage's compute for one chunk, `fraction` its part of all that the device
    computes, `batched` whether its lanes run as one batch.
    """

    name: str
    first: int
    end: int
    device: Device
    time_ms: float
    need: MemoryNeed
    fraction: float = 1.0
    batched: bool = False

    @property
    def decodes(self) -> bool:
        """Whether this is the decoder."""
        return self.first == self.end

    @property
    def num_lanes(self) -> int:
        """Cache lanes of a session in this stage, one for each step."""
        return self.end - self.first

    @property
    def latency_ms(self) -> float:
        """How long a chunk is in this stage: batched lanes take a tick for each of its steps."""
        return self.time_ms * self.num_lanes if self.batched else self.time_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where everything runs, in the order of a chunk; the decoder's stage is the last."""

    plan: Plan
    stages: tuple[PlacedStage, ...]
    num_sessions: int = 1

    @property
    def devices(self) -> tuple[Device, ...]:
        """The devices in use, in the order of a chunk."""
        return tuple(dict.fromkeys(stage.device for stage in self.stages))

    def on(self, device: Device) -> tuple[PlacedStage, ...]:
        """The stages of a device."""
        return tuple(stage for stage in self.stages if stage.device == device)

    def busy_ms(self, device: Device) -> float:
        """Compute of a device for one chunk."""
        return sum(stage.time_ms for stage in self.on(device))

    @property
    def bottleneck(self) -> Device:
        """The device that sets the pace."""
        return max(self.devices, key=self.busy_ms)

    @property
    def bottleneck_ms(self) -> float:
        """Time from chunk to chunk when all devices are kept busy."""
        return self.busy_ms(self.bottleneck)

    def need(self, device: Device) -> MemoryNeed:
        """What a device's stages keep in its memory."""
        first, *others = (stage.need for stage in self.on(device))
        for need in others:
            first = first + need
        return first

    def cut_plan(self) -> Plan:
        """The plan cut so; which device a stage is on stays with the placement."""
        stages = tuple(
            StageSpec(name=stage.name, steps=self.plan.steps[stage.first : stage.end])
            for stage in self.stages
            if not stage.decodes
        )
        return replace(self.plan, stages=stages, decoder=None)
