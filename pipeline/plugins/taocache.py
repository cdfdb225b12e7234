"""Skips late steps by going on with the last change, turned and scaled as before: TaoCache.

Shape legend: C = latent channels, T = latent frames of the chunk, H, W = latent grid of the step.
"""

from dataclasses import dataclass

import torch

from pipeline.plugins.contract import StepContext
from pipeline.plugins.skipper import SessionSkipper
from pipeline.plugins.target import from_velocity, to_velocity

# Three values make two changes.
NUM_VALUES = 3


@dataclass(frozen=True, kw_only=True)
class TaoCache(SessionSkipper):
    """Skips below `from_sigma` where consecutive changes keep their direction and size.

    Changes are of computed values of `target`, for each step between them. A step is skipped if
    their cosine is `min_cosine` or more and their norms' ratio lies in [1 / `max_ratio`,
    `max_ratio`]; the next change is then taken as the last one times cosine and ratio, the part of
    it that goes the same way. That factor is the first chunk's, for all of a session: later chunks
    have drifted, and theirs would let them drift further (the finding of ARCache).

    Source: TaoCache (2025), of which only the abstract was at hand: the rule is ours.
    """

    from_sigma: float = 0.7
    min_cosine: float = 0.5
    max_ratio: float = 2.0

    name = "taocache"

    def __post_init__(self) -> None:
        """Refuse bounds that nothing or everything passes."""
        super().__post_init__()
        if not 0.0 < self.from_sigma <= 1.0:
            raise ValueError(f"from_sigma {self.from_sigma} must lie in (0, 1]")
        if not -1.0 <= self.min_cosine <= 1.0:
            raise ValueError(f"min_cosine {self.min_cosine} must lie in [-1, 1]")
        if not 1.0 <= self.max_ratio <= 100.0:
            raise ValueError(f"max_ratio {self.max_ratio} must lie in [1, 100]")

    def wants_skip(self, ctx: StepContext) -> bool:
        """Whether it is late, and the last two changes are much alike."""
        values, positions = self._seen(ctx)
        if ctx.sigma > self.from_sigma or len(values) < NUM_VALUES:
            return False
        cosine, ratio = likeness(values, positions)
        is_even = 1.0 / self.max_ratio <= ratio <= self.max_ratio
        self.keep_number(ctx.lane_memory, "factor", cosine * ratio)
        return cosine >= self.min_cosine and is_even

    def after_step(self, ctx: StepContext, velocity_CTHW: torch.Tensor) -> None:
        """Remember the newest values and where they were seen."""
        super().after_step(ctx, velocity_CTHW)
        value_CTHW = from_velocity(self.target, velocity_CTHW, ctx)
        values, positions = self._seen(ctx)
        values = [*(value.to(value_CTHW) for value in values), value_CTHW][-NUM_VALUES:]
        positions = [*positions, float(ctx.position)][-NUM_VALUES:]
        ctx.chunk_memory[f"{self.name}.values"] = torch.stack(values)
        ctx.chunk_memory[f"{self.name}.positions"] = torch.tensor(positions, dtype=torch.float64)

    def predict(self, ctx: StepContext) -> torch.Tensor:
        """The newest value, further along its last change."""
        values, positions = self._seen(ctx)
        device = ctx.latents_CTHW.device
        factor = self.number(ctx.lane_memory, "factor")
        value_CTHW = gone_on([v.to(device) for v in values], positions, factor, ctx.position)
        return to_velocity(self.target, value_CTHW, ctx)

    def _seen(self, ctx: StepContext) -> tuple[list[torch.Tensor], list[float]]:
        """Computed values of the chunk, newest last, and their positions."""
        held = ctx.chunk_memory.get(f"{self.name}.values")
        if held is None:
            return [], []
        return list(held.unbind()), ctx.chunk_memory[f"{self.name}.positions"].tolist()


def likeness(values: list[torch.Tensor], positions: list[float]) -> tuple[float, float]:
    """Cosine and ratio of norms of the last two changes of a step, the newer over the older."""
    newest, middle, oldest = values[-1], values[-2], values[-3]
    late = (newest - middle).flatten() / (positions[-1] - positions[-2])
    early = (middle - oldest).flatten() / (positions[-2] - positions[-3])
    size_late, size_early = float(late.norm()), float(early.norm())
    if not size_late or not size_early:
        return 1.0, 1.0
    return float(late @ early) / (size_late * size_early), size_late / size_early


def gone_on(
    values: list[torch.Tensor], positions: list[float], factor: float, position: float
) -> torch.Tensor:
    """The value at a later position if each step's change is `factor` times the one before it.

    With fewer than two values there is no change to go on with: the newest value.
    """
    if len(values) < 2:
        return values[-1]
    change = (values[-1] - values[-2]) / (positions[-1] - positions[-2])
    steps = round(position - positions[-1])
    return values[-1] + change * sum(factor**n for n in range(1, steps + 1))
