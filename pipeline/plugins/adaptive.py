"""Skips a step where the latents move evenly: the third-order test of AdaptiveDiffusion.

Shape legend: C = latent channels, T = latent frames of the chunk, H, W = latent grid of the step.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch

from pipeline.plugins.contract import StepContext
from pipeline.plugins.skipper import SessionSkipper

# Three changes make a second difference of changes.
NUM_CHANGES = 3


@dataclass(frozen=True, kw_only=True)
class Adaptive(SessionSkipper):
    """Skips where `|(d0 + d2) / 2 - d1| <= threshold * d1`.

    `d` are the mean absolute changes of the latents over the last three steps, newest first.
    Published: threshold .01 with 4 skips in a row for pictures, .004 with 6 for video. `per_level`
    divides each change by how far its step went in noise, without which the steps of a shifted
    schedule, which are not equally long, look uneven.

    Source: AdaptiveDiffusion (Ye et al., 2024).
    """

    threshold: float = 0.01
    per_level: bool = False

    name = "adaptive"

    def __post_init__(self) -> None:
        """Refuse a threshold that nothing or everything passes."""
        super().__post_init__()
        if not 0.0 < self.threshold <= 10.0:
            raise ValueError(f"threshold {self.threshold} must lie in (0, 10]")

    def observe(self, ctx: StepContext) -> None:
        """Note how far the latents moved in the step before."""
        memory, now_CTHW = ctx.chunk_memory, ctx.latents_CTHW.float()
        before_CTHW = memory.get(f"{self.name}.latents")
        if before_CTHW is not None:
            change = float((now_CTHW - before_CTHW.to(now_CTHW)).abs().mean())
            if self.per_level:
                change /= ctx.legs[ctx.position - 1].step.sigma_in - ctx.sigma
            changes = [change, *self._changes(ctx)][:NUM_CHANGES]
            memory[f"{self.name}.changes"] = torch.tensor(changes, dtype=torch.float64)
        memory[f"{self.name}.latents"] = now_CTHW

    def _changes(self, ctx: StepContext) -> list[float]:
        """What `observe` noted, newest first."""
        held = ctx.chunk_memory.get(f"{self.name}.changes")
        return [] if held is None else [float(change) for change in held]

    def wants_skip(self, ctx: StepContext) -> bool:
        """Whether the last three changes lie on a line."""
        return moves_evenly(self._changes(ctx), self.threshold)


def moves_evenly(changes: list[float], threshold: float) -> bool:
    """Whether three changes, newest first, have a small second difference."""
    if len(changes) < NUM_CHANGES:
        return False
    newest, middle, oldest = changes
    return abs((newest + oldest) / 2.0 - middle) <= threshold * middle


def changes_of(latents: list[torch.Tensor]) -> list[float]:
    """Mean absolute changes of a sequence, newest first."""
    return [float((b - a).abs().mean()) for a, b in pairwise(latents)][::-1]
