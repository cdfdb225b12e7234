"""What of a step's outcome is remembered and extrapolated: its velocity, or the clean latents.

The network of a "residual" model gives the clean latents up to what the prior gave, which is one
constant of the chunk; the same holds for its differences.

Shape legend: C = latent channels, T = latent frames of the chunk, H, W = latent grid of the step.
"""

from typing import Literal

import torch

from pipeline.plugins.contract import StepContext
from video.noise import clean_estimate

Target = Literal["velocity", "clean"]


def from_velocity(target: Target, velocity_CTHW: torch.Tensor, ctx: StepContext) -> torch.Tensor:
    """What a computed step gave, float32."""
    velocity_CTHW = velocity_CTHW.float()
    if target == "velocity":
        return velocity_CTHW
    return clean_estimate(ctx.latents_CTHW.to(velocity_CTHW), velocity_CTHW, ctx.sigma)


def to_velocity(target: Target, value_CTHW: torch.Tensor, ctx: StepContext) -> torch.Tensor:
    """The velocity from the step's own latents that comes to that value."""
    if target == "velocity":
        return value_CTHW
    return (ctx.latents_CTHW.to(value_CTHW) - value_CTHW) / ctx.sigma
