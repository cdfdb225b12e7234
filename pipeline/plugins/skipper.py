"""What all skippers share: they decide once in a session, at the first chunk that comes by.

A step that is skipped leaves no keys in its ring, so a ring would have holes if chunks differed.
The first chunk decides at each step; the step keeps that in its lane, and the chunks after it skip
the same steps. What they say is then as good as a plan.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import ConfigDict

from pipeline.plugins.contract import Decision, Memory, PlainPlugin, StepContext, breaks
from pipeline.plugins.target import Target, from_velocity, to_velocity
from pipeline.route import Leg

if TYPE_CHECKING:
    from pipeline.plan import Plan


@dataclass(frozen=True, kw_only=True)
class SessionSkipper(PlainPlugin, ABC):
    """Skips steps that carry `forecast: true`, by what a session's first chunk is like.

    The first `warmup` steps of a way, the first after a break and the last are computed always;
    `max_skips` bounds how many in a row are not. A skipped step repeats the newest value of
    `target`, unless the method knows better. Methods give `observe` and `wants_skip`.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    max_skips: int = 4
    warmup: int = 1
    target: Target = "velocity"

    skips = True

    def __post_init__(self) -> None:
        """Refuse bounds that bound nothing."""
        for name, value in (("max_skips", self.max_skips), ("warmup", self.warmup)):
            if not 1 <= value <= 64:
                raise ValueError(f"{name} {value} must lie in 1..64")

    def observe(self, ctx: StepContext) -> None:
        """See the latents before a step, computed or not."""

    @abstractmethod
    def wants_skip(self, ctx: StepContext) -> bool:
        """Whether the first chunk would rather not compute this step."""

    def check(self, plan: "Plan") -> None:
        """Refuse plans without a step that may be skipped."""
        if not any(step.forecast for step in plan.steps):
            raise ValueError("no step may be skipped: set forecast: true where it may")

    def marks(self, legs: Sequence[Leg]) -> tuple[Decision | None, ...]:
        """Open where the first chunk decides."""
        return tuple(
            None if self._may_skip(legs, index) else Decision.FULL for index in range(len(legs))
        )

    def _may_skip(self, legs: Sequence[Leg], index: int) -> bool:
        """Whether a step of a way may be skipped at all."""
        is_inner = self.warmup <= index < len(legs) - 1
        return is_inner and legs[index].step.forecast and not breaks(legs)[index]

    def before_step(self, ctx: StepContext) -> Decision:
        """What this step's lane says, once the first chunk has been there."""
        if ctx.follows_break:
            self.invalidate(ctx.chunk_memory, "the step is another function")
        self.observe(ctx)
        decision = Decision.SKIP if self._skips_here(ctx) else Decision.FULL
        run = self.number(ctx.chunk_memory, "run") + 1.0 if decision is Decision.SKIP else 0.0
        self.keep_number(ctx.chunk_memory, "run", run)
        return decision

    def _skips_here(self, ctx: StepContext) -> bool:
        """The lane's decision, made now if it has none yet."""
        if not self._may_skip(ctx.legs, ctx.position):
            return False
        if f"{self.name}.skip" not in ctx.lane_memory:
            has_room = self.number(ctx.chunk_memory, "run") < self.max_skips
            wants = f"{self.name}.value" in ctx.chunk_memory and self.wants_skip(ctx)
            self.keep_number(ctx.lane_memory, "skip", float(has_room and wants))
        return bool(self.number(ctx.lane_memory, "skip"))

    def after_step(self, ctx: StepContext, velocity_CTHW: torch.Tensor) -> None:
        """Remember the newest value."""
        value_CTHW = from_velocity(self.target, velocity_CTHW, ctx)
        ctx.chunk_memory[f"{self.name}.value"] = value_CTHW

    def predict(self, ctx: StepContext) -> torch.Tensor:
        """The newest value again."""
        value_CTHW = ctx.chunk_memory[f"{self.name}.value"].to(ctx.latents_CTHW.device)
        return to_velocity(self.target, value_CTHW, ctx)

    def number(self, memory: Memory, what: str) -> float:
        """A number that the plug-in remembers, 0 if it never did."""
        held = memory.get(f"{self.name}.{what}")
        return 0.0 if held is None else float(held)

    def keep_number(self, memory: Memory, what: str, value: float) -> None:
        """Remember a number."""
        memory[f"{self.name}.{what}"] = torch.tensor(value, dtype=torch.float64)
