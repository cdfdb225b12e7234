"""Makes a step's change coarser or finer by one number.

Shape legend: C = latent channels, T = latent frames of the chunk, H, W = latent grid of the step.
"""

from dataclasses import dataclass

import torch

from pipeline.plugins.contract import PlainPlugin, StepContext

# Published uses stay within 0.95..1.05; beyond these bounds a picture is noise or a blur.
LEAST, MOST = 0.5, 2.0


@dataclass(frozen=True, kw_only=True)
class Omegance(PlainPlugin):
    """Scales a step's change about its mean: below 1 leaves more detail and noise, above 1 less.

    `above` is at work at noise levels over `t_mid`, where layout and motion are decided, `below`
    under and at it, where detail is. 1 changes nothing, to the bit. Costs nothing. Source:
    Omegance, Hou et al. 2024 (arXiv 2411.17769), there for predicted noise; here the mean stays.

    Raises:
        ValueError: a value is out of its range.
    """

    name = "omegance"

    above: float = 1.0
    below: float = 1.0
    t_mid: float = 0.5

    def __post_init__(self) -> None:
        """Refuse numbers that could only spoil the picture."""
        for field, omega in (("above", self.above), ("below", self.below)):
            if not LEAST <= omega <= MOST:
                raise ValueError(f"{field} {omega} must lie in [{LEAST}, {MOST}]; 1 is no change")
        if not 0.0 <= self.t_mid <= 1.0:
            raise ValueError(f"t_mid {self.t_mid} must lie in [0, 1]")

    def omega(self, sigma: float) -> float:
        """The number at a noise level."""
        return self.above if sigma > self.t_mid else self.below

    def transform_velocity(self, ctx: StepContext, velocity_CTHW: torch.Tensor) -> torch.Tensor:
        """The velocity, its deviation from its mean scaled."""
        omega = self.omega(ctx.sigma)
        if omega == 1.0:
            return velocity_CTHW
        mean = velocity_CTHW.mean()
        return mean + omega * (velocity_CTHW - mean)
