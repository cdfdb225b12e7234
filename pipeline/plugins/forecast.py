"""Forecasts steps from the ones before them: most of a long plan without the network.

What was seen of a chunk travels with the chunk, so a stage may forecast from values that another
stage computed. Which steps are computed is a matter of the plan alone: every chunk of a session
skips the same ones, and their rings have no holes.

Shape legend: C = latent channels, T = latent frames of the chunk, H, W = latent grid of the step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import ConfigDict

from pipeline.forecaster import Basis, Forecaster, ForecastRule, StepMode
from pipeline.plugins.contract import Decision, PlainPlugin, StepContext, breaks
from pipeline.plugins.target import Target, from_velocity, to_velocity
from pipeline.route import Leg

if TYPE_CHECKING:
    from pipeline.plan import Plan

Axis = Literal["step", "sigma"]


@dataclass(frozen=True, kw_only=True)
class Forecast(PlainPlugin):
    """Computes some of the steps that carry `forecast: true` and extrapolates the others.

    The first `warmup` steps, the first after a break and the last `cooldown` are computed always.
    `target` is what is extrapolated, `axis` along what: step numbers, or falling noise levels. The
    other options are those of `ForecastRule`.

    Source: FlashPortrait, TaylorSeer, Cache4Diffusion ("Lite": the final output alone).
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    order: int = 2
    interval: int = 4
    warmup: int = 2
    cooldown: int = 4
    basis: Basis = "newton"
    alpha: float = 0.0
    target: Target = "clean"
    axis: Axis = "step"

    name = "forecast"
    skips = True

    def __post_init__(self) -> None:
        """Refuse options that could not be followed."""
        _ = self.rule

    @property
    def rule(self) -> ForecastRule:
        """The options as the forecaster takes them."""
        return ForecastRule(
            order=self.order,
            interval=self.interval,
            warmup=self.warmup,
            cooldown=self.cooldown,
            basis=self.basis,
            alpha=self.alpha,
        )

    def check(self, plan: "Plan") -> None:
        """Refuse plans without a step to forecast, or with fresh noise on the way."""
        allowed = [index for index, step in enumerate(plan.steps) if step.forecast]
        if not allowed:
            raise ValueError("no step may be forecast: set forecast: true where it may")
        for index in allowed:
            if plan.steps[index].rule != "euler":
                raise ValueError(
                    f"step {index} draws fresh noise, so nothing before it tells what it gives: "
                    "use rule euler, or forecast: false"
                )

    def marks(self, legs: Sequence[Leg]) -> tuple[Decision, ...]:
        """The same for every chunk of that way."""
        modes = _modes(self.rule, tuple(legs))
        return tuple(Decision.FULL if m is StepMode.FULL else Decision.SKIP for m in modes)

    def before_step(self, ctx: StepContext) -> Decision:
        """What the marks say."""
        return self.marks(ctx.legs)[ctx.position]

    def predict(self, ctx: StepContext) -> torch.Tensor:
        """The velocity that the steps before let expect."""
        forecaster = self._forecaster(ctx, ctx.latents_CTHW.device)
        return to_velocity(self.target, forecaster.predict(self._place(ctx)), ctx)

    def after_step(self, ctx: StepContext, velocity_CTHW: torch.Tensor) -> None:
        """Remember a computed step, after a break nothing else, and nothing without use."""
        if ctx.follows_break:
            self.invalidate(ctx.chunk_memory, "the step is another function")
        if Decision.SKIP not in self.marks(ctx.legs)[ctx.position + 1 :]:
            self.invalidate(ctx.chunk_memory, "no forecast follows")
            return
        forecaster = self._forecaster(ctx, velocity_CTHW.device)
        forecaster.observe(self._place(ctx), from_velocity(self.target, velocity_CTHW, ctx))
        for key, value in forecaster.export_state().items():
            ctx.chunk_memory[f"{self.name}.{key}"] = value

    def _place(self, ctx: StepContext) -> float:
        """Where the step lies on the axis; places grow along the way."""
        return float(ctx.position) if self.axis == "step" else 1.0 - ctx.sigma

    def _forecaster(self, ctx: StepContext, device: torch.device) -> Forecaster:
        """A forecaster that knows what was seen of the chunk."""
        prefix = f"{self.name}."
        held = {
            key.removeprefix(prefix): value.to(device)
            for key, value in ctx.chunk_memory.items()
            if key.startswith(prefix)
        }
        forecaster = Forecaster(rule=self.rule)
        forecaster.import_state(held)
        return forecaster


@lru_cache(maxsize=256)  # asked for at every step of every chunk
def _modes(rule: ForecastRule, legs: tuple[Leg, ...]) -> tuple[StepMode, ...]:
    """How each step of a way comes about."""
    return rule.modes([leg.step.forecast for leg in legs], breaks(legs))
