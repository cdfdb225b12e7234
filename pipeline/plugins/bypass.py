"""Leaves out a step when there is no time for it: the one kind of forecast for live sessions.

What the chunk would be without noise was last estimated by the step before; the chunk goes on to
the next level from there, `x' = (1 - s') x0 + s' e`, without the network. The step's ring then
lacks the chunk, which a full ring takes: it goes on with one chunk fewer of the past.

Shape legend: C = latent channels, T = latent frames of the chunk, H, W = latent grid of the step.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import ConfigDict

from pipeline.plugins.contract import Decision, PlainPlugin, StepContext
from pipeline.plugins.target import from_velocity, to_velocity

if TYPE_CHECKING:
    from pipeline.plan import Plan


@dataclass(frozen=True, kw_only=True)
class Bypass(PlainPlugin):
    """Leaves out inner steps of live chunks that would come too late.

    A chunk is late if less than `reserve_s` is left when a stage begins with it; the reserve is
    what the rest of the chain takes. Without a deadline nothing is left out. At most `max_in_row`
    chunks in a row are without a step, so that its ring never shows a past that is all old.

    Source: design page "algorithms", section 9.2, conflict 1: order 0 survives in live mode.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    reserve_s: float = 0.0
    max_in_row: int = 3

    name = "bypass"
    skips = True
    degrades = True

    def __post_init__(self) -> None:
        """Refuse bounds that bound nothing."""
        if not 0.0 <= self.reserve_s <= 60.0:
            raise ValueError(f"reserve_s {self.reserve_s} must lie in [0, 60]")
        if not 1 <= self.max_in_row <= 1024:
            raise ValueError(f"max_in_row {self.max_in_row} must lie in 1..1024")

    def check(self, plan: "Plan") -> None:
        """Refuse plans for nobody who waits, and without an inner step."""
        if plan.mode != "live":
            raise ValueError("nobody waits for a render: use mode live, or the plug-in forecast")
        if len(plan.steps) < 3:
            raise ValueError(
                f"{len(plan.steps)} steps have none between the first and the last, which are "
                "never left out: use three or more"
            )

    def before_step(self, ctx: StepContext) -> Decision:
        """Leave the step out if the chunk is late, and it can be."""
        chunk, run = self._left_out(ctx)
        is_again = chunk == ctx.chunk
        before = run - 1 if is_again else (run if chunk == ctx.chunk - 1 else 0)
        if not self._can_leave_out(ctx) or not is_late(ctx.slack_s, self.reserve_s):
            return Decision.FULL
        if before >= self.max_in_row:
            return Decision.FULL
        numbers = torch.tensor([ctx.chunk, before + 1], dtype=torch.int64)
        ctx.lane_memory[f"{self.name}.left_out"] = numbers
        return Decision.SKIP

    def _left_out(self, ctx: StepContext) -> tuple[int, int]:
        """The last chunk that went without this step, and how many in a row did by then."""
        held = ctx.lane_memory.get(f"{self.name}.left_out")
        return (-1, 0) if held is None else (int(held[0]), int(held[1]))

    def _can_leave_out(self, ctx: StepContext) -> bool:
        """Whether the step is an inner one, its ring full, and an estimate there."""
        is_inner = 0 < ctx.position < len(ctx.legs) - 1 and not ctx.follows_break
        return is_inner and ctx.ring_is_full and f"{self.name}.clean" in ctx.chunk_memory

    def predict(self, ctx: StepContext) -> torch.Tensor:
        """The velocity towards the estimate that is kept."""
        clean_CTHW = ctx.chunk_memory[f"{self.name}.clean"].to(ctx.latents_CTHW.device)
        return to_velocity("clean", clean_CTHW, ctx)

    def after_step(self, ctx: StepContext, velocity_CTHW: torch.Tensor) -> None:
        """Keep the estimate, in sessions that have deadlines."""
        if ctx.slack_s is not None:
            clean_CTHW = from_velocity("clean", velocity_CTHW, ctx)
            ctx.chunk_memory[f"{self.name}.clean"] = clean_CTHW


def is_late(slack_s: float | None, reserve_s: float) -> bool:
    """Whether a chunk with so much time left will come too late."""
    return slack_s is not None and slack_s < reserve_s
