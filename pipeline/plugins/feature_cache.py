"""What feature caches share: which steps run in full, and what was seen of the blocks there.

Every chunk runs the same blocks at a step, by the plan alone or by what the session's first chunk
decided there, for a block that is left out writes no keys for the chunks to come.

Shape legend: C = latent channels, T = latent frames of the chunk, H, W = latent grid of the step.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch

from pipeline.forecaster import Forecaster, ForecastRule
from pipeline.plugins.contract import Decision, Memory, PlainPlugin, StepContext, breaks
from pipeline.route import Leg
from video.block_cache import BlockRunner

if TYPE_CHECKING:
    from pipeline.plan import Plan

MIN_SEEN = 2  # full steps without which nothing is known of change


class SeenBlocks:
    """A `BlockMemory` in a chunk's memory: the newest two values of each part of each block.

    Values are extrapolated linearly along `place`. Source: TaylorSeer, order 1.
    """

    def __init__(self, prefix: str, memory: Memory, place: float) -> None:
        """Use the memory's entries that begin with `prefix`, at a place along the way."""
        self._prefix, self._memory, self._place = prefix, memory, place

    def observe(self, layer: int, part: str, value: torch.Tensor) -> None:
        """Remember what a part of a block gave here."""
        forecaster = self._forecaster(layer, part)
        forecaster.observe(self._place, value)
        for name, tensor in forecaster.export_state().items():
            self._memory[f"{self._key(layer, part)}{name}"] = tensor

    def predict(self, layer: int, part: str) -> torch.Tensor:
        """What it would give here."""
        return self._forecaster(layer, part).predict(self._place)

    def changes(self, part: str) -> dict[int, float]:
        """How much each layer's part changed between its newest two values, beside its size."""
        ending = f".{part}.values"
        found = {}
        for key, values in self._memory.items():
            if key.startswith(self._prefix) and key.endswith(ending):
                layer = int(key.removeprefix(self._prefix).removesuffix(ending))
                older, newer = values[-2].double(), values[-1].double()
                found[layer] = float((newer - older).norm() / newer.norm().clamp(min=1e-12))
        return found

    def _key(self, layer: int, part: str) -> str:
        return f"{self._prefix}{layer}.{part}."

    def _forecaster(self, layer: int, part: str) -> Forecaster:
        key = self._key(layer, part)
        names = [name for name in ("values", "positions", "rates") if key + name in self._memory]
        forecaster = Forecaster(rule=ForecastRule(order=1))
        forecaster.import_state({name: self._memory[key + name] for name in names})
        return forecaster


@dataclass(frozen=True, kw_only=True)
class FeatureCache(PlainPlugin, ABC):
    """Runs steps that carry `forecast: true` in part, between full ones that refresh what is known.

    One in `interval` of them is full, and so are the first `warmup` steps, the last `cooldown`,
    where blocks change fastest, and two after a break. What was seen of the blocks travels with
    the chunk, two values of each, and is dropped after the last partial step.
    """

    interval: int = 3
    warmup: int = 3
    cooldown: int = 5

    skips = True

    def __post_init__(self) -> None:
        """Refuse numbers that could not be followed."""
        for name, least in (("interval", 2), ("warmup", MIN_SEEN), ("cooldown", 1)):
            if not least <= getattr(self, name) <= 64:
                raise ValueError(f"{name} {getattr(self, name)} must lie in {least}..64")

    def check(self, plan: "Plan") -> None:
        """Refuse plans in which chunks would run different blocks, or nothing could be known."""
        if plan.short is not None:
            raise ValueError("short lets later chunks run other blocks at a step: leave short out")
        if plan.windows is not None:
            raise ValueError("windows run the network whole: use it in plans without windows")
        if not any(step.forecast for step in plan.steps):
            raise ValueError("no step may run in part: set forecast: true where it may")
        for index, step in enumerate(plan.steps):
            if step.forecast and step.rule != "euler":
                raise ValueError(
                    f"step {index} draws fresh noise, so nothing before it tells what blocks give "
                    "after it: use rule euler, or forecast: false"
                )
            if step.guidance != 1.0:
                raise ValueError(f"step {index} is guided, which asks the network twice: set it 1")

    def marks(self, legs: Sequence[Leg]) -> tuple[Decision, ...]:
        """The same for every chunk."""
        return _marks(tuple(legs), self.interval, self.warmup, self.cooldown)

    def before_step(self, ctx: StepContext) -> Decision:
        """What the marks say."""
        return self.marks(ctx.legs)[ctx.position]

    def block_runner(self, ctx: StepContext) -> BlockRunner | None:
        """One that watches at full steps while that is of use, one that leaves out at others."""
        if ctx.follows_break:
            self.invalidate(ctx.chunk_memory, "the step is another function")
        if self.before_step(ctx) is Decision.PARTIAL:
            return self.partial(ctx, self.seen(ctx))
        return self.watching(ctx, self.seen(ctx)) if self._is_awaited(ctx) else None

    @abstractmethod
    def watching(self, ctx: StepContext, seen: SeenBlocks) -> BlockRunner:
        """What runs all blocks and remembers them."""

    @abstractmethod
    def partial(self, ctx: StepContext, seen: SeenBlocks) -> BlockRunner:
        """What leaves out blocks or parts of them."""

    def after_step(self, ctx: StepContext, velocity_CTHW: torch.Tensor) -> None:
        """Forget the blocks when no step is left that would use them."""
        del velocity_CTHW
        if not self._is_awaited(ctx):
            self.invalidate(ctx.chunk_memory, "no partial step follows")

    def seen(self, ctx: StepContext) -> SeenBlocks:
        """What was seen of the chunk's blocks, at this step."""
        return SeenBlocks(f"{self.name}.", ctx.chunk_memory, float(ctx.position))

    def _is_awaited(self, ctx: StepContext) -> bool:
        """Whether a partial step follows before the next break."""
        rest = ctx.position + 1
        for mark, is_break in zip(
            self.marks(ctx.legs)[rest:], breaks(ctx.legs)[rest:], strict=True
        ):
            if is_break:
                return False
            if mark is Decision.PARTIAL:
                return True
        return False


@lru_cache(maxsize=256)  # asked for at every step of every chunk
def _marks(
    legs: tuple[Leg, ...], interval: int, warmup: int, cooldown: int
) -> tuple[Decision, ...]:
    """Which steps of a way run in part."""
    marks: list[Decision] = []
    known = since = 0
    for index, (leg, is_break) in enumerate(zip(legs, breaks(legs), strict=True)):
        known = 0 if is_break else known
        is_inner = warmup <= index < len(legs) - cooldown
        is_due = since >= interval - 1 or known < MIN_SEEN
        mark = Decision.PARTIAL if leg.step.forecast and is_inner and not is_due else Decision.FULL
        marks.append(mark)
        known += mark is Decision.FULL
        since = 0 if mark is Decision.FULL else since + 1
    return tuple(marks)
