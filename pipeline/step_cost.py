"""How long a step or the decoder takes on a device: modelled first, measured as soon as it ran."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import median

from pipeline.chain_work import ChainWork
from pipeline.device import Device

# A first chunk compiles, allocates and reads weights: a few must pass before a time counts.
MIN_SAMPLES = 3
EMA_WEIGHT = 0.2
MEDIAN_SAMPLES = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Ema:
    """A moving average of times: each new one counts by `EMA_WEIGHT`, the first ones more."""

    value_ms: float = 0.0
    num_samples: int = 0

    def after(self, sample_ms: float) -> "Ema":
        """The average with one more time; the first few count as their plain mean.

        Raises:
            ValueError: the time is negative or no number.
        """
        if not 0.0 <= sample_ms < float("inf"):
            raise ValueError(f"a time of {sample_ms} ms cannot be: give milliseconds from 0 up")
        weight = max(EMA_WEIGHT, 1.0 / (self.num_samples + 1))
        value_ms = self.value_ms + weight * (sample_ms - self.value_ms)
        return Ema(value_ms=value_ms, num_samples=self.num_samples + 1)


@dataclass(slots=True)
class TypicalTime:
    """The median of the latest times: what a chunk takes when nothing unusual happens."""

    samples_ms: deque[float] = field(default_factory=lambda: deque(maxlen=MEDIAN_SAMPLES))

    def add(self, sample_ms: float) -> None:
        """Take in one more time."""
        self.samples_ms.append(sample_ms)

    @property
    def value_ms(self) -> float:
        """The median; 0 as long as there are too few."""
        return median(self.samples_ms) if len(self.samples_ms) >= MIN_SAMPLES else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCost:
    """Milliseconds of compute for one chunk; `measured` holds averages by `Device.speed`."""

    flops: float
    num_layers: int = 0
    measured: Mapping[str, Ema] = field(default_factory=dict)

    def modelled_ms(self, device: Device) -> float:
        """Operations at the device's sustained rate, and each layer's overhead."""
        return self.flops / device.flops * 1e3 + self.num_layers * device.layer_overhead_ms

    def ms(self, device: Device) -> float:
        """Measured where that has been done often enough, else modelled."""
        average = self.measured.get(device.speed)
        if average is not None and average.num_samples >= MIN_SAMPLES:
            return average.value_ms
        return self.modelled_ms(device)

    def observed(self, device: Device, sample_ms: float) -> "StepCost":
        """The cost after it has been measured once more on such a device."""
        average = self.measured.get(device.speed, Ema()).after(sample_ms)
        return replace(self, measured={**self.measured, device.speed: average})

    def fixed_at(self, device: Device, value_ms: float) -> "StepCost":
        """The cost as known for such a device from elsewhere."""
        known = Ema(value_ms=value_ms, num_samples=MIN_SAMPLES)
        return replace(self, measured={**self.measured, device.speed: known})


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchProfile:
    """How long a pass takes for a batch against a single one: `ratios[b - 1]` = t(b) / t(1).

    A network that fills its device takes b times as long, which is what no profile says.
    """

    ratios: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        """Refuse ratios that do not begin at one or fall."""
        falls = any(b < a for a, b in zip(self.ratios, self.ratios[1:], strict=False))
        if not self.ratios or self.ratios[0] != 1.0 or falls:
            raise ValueError(f"batch ratios {self.ratios} must begin with 1 and not fall")

    def ratio(self, batch: int) -> float:
        """t(batch) / t(1); beyond what was profiled one by one, as nothing is known of it."""
        known = min(batch, len(self.ratios))
        return self.ratios[known - 1] + (batch - known)

    def pays(self, batch: int) -> bool:
        """Whether a batch takes less than its chunks one by one."""
        return batch > 1 and self.ratio(batch) < batch


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainCosts:
    """What the steps and the decoder of a chain cost.

    `lanes` profiles several steps on one device as one batch; it holds for steps of one function.
    """

    steps: tuple[StepCost, ...]
    decode: StepCost
    lanes: BatchProfile = field(default_factory=BatchProfile)
    hinges: frozenset[int] = frozenset()

    def stage_ms(self, first: int, end: int, device: Device) -> float:
        """A stage's time for one chunk in the steady state: step by step, or batched if it pays.

        Batched lanes carry different chunks; each lane's pass costs the same.
        """
        one_by_one = sum(cost.ms(device) for cost in self.steps[first:end])
        if not self.batches(first, end):
            return one_by_one
        return one_by_one * self.lanes.ratio(end - first) / (end - first)

    def batches(self, first: int, end: int) -> bool:
        """Whether these steps run as one batch: one function, and the profile says it pays."""
        same = not any(index in self.hinges for index in range(first + 1, end))
        return same and self.lanes.pays(end - first)


def modelled_costs(work: ChainWork, lanes: BatchProfile | None = None) -> ChainCosts:
    """The costs of a chain that has not run yet."""
    return ChainCosts(
        steps=tuple(StepCost(flops=s.flops, num_layers=s.num_layers) for s in work.steps),
        decode=StepCost(flops=work.decode.flops),
        lanes=lanes or BatchProfile(),
        hinges=work.hinges,
    )
