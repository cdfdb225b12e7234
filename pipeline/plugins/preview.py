"""Keeps what the picture would be after a step, for whoever shows it before the chain is through.

Shape legend: C = latent channels, T = latent frames of the chunk, H, W = latent grid.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from pipeline.plugins.contract import PlainPlugin, StepContext
from video.hinge import resized
from video.noise import clean_estimate

if TYPE_CHECKING:
    from pipeline.plan import Plan

ESTIMATE = "preview.estimate"


@dataclass(frozen=True, kw_only=True)
class Preview(PlainPlugin):
    """Keeps the clean estimate of the last step up to `step` that a chunk takes.

    It is at full resolution and travels in the chunk's memory, a chunk of latents in size. Name it
    last in a plan: it sees the velocity as the plug-ins before it leave it.

    Raises:
        ValueError: the step is negative.
    """

    name = "preview"

    step: int

    def __post_init__(self) -> None:
        """Refuse what is no step."""
        if self.step < 0:
            raise ValueError(f"step {self.step} is negative: steps count from 0")

    def check(self, plan: "Plan") -> None:
        """Refuse a step that the plan does not have, and windows, whose steps are no chunks'."""
        if self.step >= len(plan.steps):
            raise ValueError(f"step {self.step} of {len(plan.steps)}: steps count from 0")
        if plan.windows is not None:
            raise ValueError("windows have no estimates of chunks: use a plan without windows")

    def transform_velocity(self, ctx: StepContext, velocity_CTHW: torch.Tensor) -> torch.Tensor:
        """The velocity as it is; what it says of the picture is kept."""
        if ctx.leg.index <= self.step:
            estimate_CTHW = clean_estimate(
                ctx.latents_CTHW.to(velocity_CTHW), velocity_CTHW, ctx.sigma
            )
            ctx.chunk_memory[ESTIMATE] = resized(estimate_CTHW, 1.0 / ctx.leg.step.resolution)
        return velocity_CTHW


def estimate_in(memory: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The clean estimate that a chunk brings along.

    Raises:
        ValueError: it brings none.
    """
    if ESTIMATE not in memory:
        raise ValueError("the chunk brings no estimate: its plan needs the plug-in preview")
    return memory[ESTIMATE]
