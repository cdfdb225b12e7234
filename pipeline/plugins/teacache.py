"""Skips steps until what goes into the network has changed enough: TeaCache.

The published method looks at the input of the first transformer block, modulated by the time, and
repeats what the blocks added. Both lie inside the network. From outside the latents and the time
can be seen, so their relative change is accumulated instead, and the network's output is repeated.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch

from pipeline.plugins.contract import StepContext
from pipeline.plugins.skipper import SessionSkipper
from video.noise import TIME_SCALE

Signal = Literal["latents", "time"]

EMBEDDING_WIDTH = 256


@dataclass(frozen=True, kw_only=True)
class TeaCache(SessionSkipper):
    """Skips while `sum(polynomial(relative L1 change of the signal))` stays below `threshold`.

    `signal` is the noisy latents, or the sinusoidal embedding of the noise level (the published
    signal for Wan is the time's embedding too, after two layers of the network); `polynomial` has
    the highest power first and rescales a change of the signal to one of the output. A computed
    step begins the sum anew. Published thresholds, with fitted polynomials: .05 to .3.

    Source: TeaCache (Liu et al., 2024).
    """

    threshold: float = 0.1
    signal: Signal = "latents"
    polynomial: list[float] = field(default_factory=lambda: [1.0, 0.0])

    name = "teacache"

    def __post_init__(self) -> None:
        """Refuse a threshold or polynomial with which nothing is ever computed."""
        super().__post_init__()
        if not 0.0 < self.threshold <= 10.0:
            raise ValueError(f"threshold {self.threshold} must lie in (0, 10]")
        if not 1 <= len(self.polynomial) <= 8:
            raise ValueError(f"polynomial {self.polynomial} must have 1 to 8 coefficients")

    def observe(self, ctx: StepContext) -> None:
        """Add up how much the signal changed since the step before."""
        memory = ctx.chunk_memory
        now = self._signal(ctx)
        before = memory.get(f"{self.name}.signal")
        # A computed step begins the sum anew; what `run` counts are the skips since.
        is_fresh = not self.number(memory, "run")
        total = 0.0 if is_fresh else self.number(memory, "sum")
        if before is not None:
            total += polynomial_at(self.polynomial, relative_l1(now, before.to(now)))
        self.keep_number(memory, "sum", total)
        memory[f"{self.name}.signal"] = now

    def _signal(self, ctx: StepContext) -> torch.Tensor:
        """What stands for the network's input."""
        if self.signal == "latents":
            return ctx.latents_CTHW.float()
        return time_embedding(ctx.sigma)

    def wants_skip(self, ctx: StepContext) -> bool:
        """Whether the network's input is still much as it was."""
        return self.number(ctx.chunk_memory, "sum") < self.threshold


def relative_l1(now: torch.Tensor, before: torch.Tensor) -> float:
    """The mean absolute change beside the mean absolute value before it."""
    return float((now - before).abs().mean() / before.abs().mean().clamp(min=1e-12))


def polynomial_at(coefficients: list[float], x: float) -> float:
    """A polynomial's value, highest power first, never below 0."""
    value = 0.0
    for coefficient in coefficients:
        value = value * x + coefficient
    return max(value, 0.0)


def time_embedding(sigma: float) -> torch.Tensor:
    """The sinusoidal embedding of a noise level, as networks get it: cosines, then sines."""
    half = EMBEDDING_WIDTH // 2
    powers = torch.arange(half, dtype=torch.float64) / half
    angles = TIME_SCALE * sigma * torch.pow(10000.0, -powers)
    return torch.cat((angles.cos(), angles.sin())).float()
