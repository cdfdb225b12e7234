"""Which steps a chunk takes through a plan, and at which noise level it leaves each.

Levels are those of the step's own resolution. Where the next step works at another resolution the
chunk crosses a hinge: its latents are resized and its noise made white again, which changes the
level (`video/hinge.py`).
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

from pydantic import ConfigDict

from video.hinge import level_after, level_before

if TYPE_CHECKING:
    from pipeline.plan import Step

# Levels are written with some seven digits; more than this apart they are not the same level.
LEVEL_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortRoute:
    """Which steps, by index, chunks take from chunk `from_chunk` on; the first takes all.

    Each of them ends at the level where the next one starts. Source: HiStream+, fewer steps for
    later chunks.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    steps: tuple[int, ...]
    from_chunk: int = 1

    def __post_init__(self) -> None:
        """Refuse a route that goes nowhere or turns back."""
        if not self.steps or any(b <= a for a, b in pairwise(self.steps)):
            raise ValueError(f"short steps {list(self.steps)} must be rising indices of steps")
        if not 1 <= self.from_chunk <= 1 << 20:
            raise ValueError(f"from_chunk {self.from_chunk} must lie in 1..{1 << 20}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """Step `index` of a plan as one chunk takes it.

    `step.sigma_out` is where this chunk leaves it; `next_index` is the step that follows, the
    number of steps in the plan after the last; `to_resolution` is that step's, `to_sigma` the level
    at which the chunk arrives there.
    """

    index: int
    step: "Step"
    next_index: int
    to_resolution: float
    to_sigma: float

    @property
    def is_hinge(self) -> bool:
        """Whether the chunk changes its resolution after this step."""
        return self.to_resolution != self.step.resolution

    @property
    def is_last(self) -> bool:
        """Whether the chunk is clean afterwards."""
        return self.to_sigma == 0.0


@lru_cache(maxsize=256)  # asked for at every step of every chunk
def legs_through(steps: tuple["Step", ...], chosen: tuple[int, ...]) -> tuple[Leg, ...]:
    """The way through the `chosen` ones of a plan's steps; each ends where the next begins."""
    legs = []
    for index, following in pairwise(chosen):
        after = steps[following]
        step = replace(steps[index], sigma_out=leaving_level(steps[index], after))
        legs.append(
            Leg(
                index=index,
                step=step,
                next_index=following,
                to_resolution=after.resolution,
                to_sigma=after.sigma_in,
            )
        )
    last = replace(steps[chosen[-1]], sigma_out=0.0)
    end = Leg(
        index=chosen[-1],
        step=last,
        next_index=len(steps),
        to_resolution=last.resolution,
        to_sigma=0.0,
    )
    legs.append(end)
    return tuple(legs)


def leaving_level(step: "Step", after: "Step") -> float:
    """The level at which `step` must end for the chunk to arrive where `after` starts."""
    ratio = after.resolution / step.resolution
    if ratio == 1.0 or step.rule == "renoise":
        return after.sigma_in
    if abs(level_after(step.sigma_out, ratio) - after.sigma_in) <= LEVEL_TOLERANCE:
        return step.sigma_out
    return level_before(after.sigma_in, ratio)


def arriving_level(step: "Step", resolution: float) -> float:
    """The level at which a chunk that leaves `step` arrives at a step of another resolution."""
    ratio = resolution / step.resolution
    if ratio == 1.0 or step.rule == "renoise":
        return step.sigma_out
    return level_after(step.sigma_out, ratio)
