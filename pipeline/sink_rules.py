"""Where a session's sink lies and which latent it shows: the same wherever the plan runs.

Source: Live Avatar (adaptive attention sink, rolling RoPE); live-avatar-spec, sections 3.3 and 8.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pydantic import ConfigDict

from video.noise import counter_integer

if TYPE_CHECKING:
    from pipeline.plan import Plan

# How far ahead of a chunk the reference lies: fixed, drawn anew at every pass, or where it began.
SinkDistance = int | tuple[int, int] | None

MAX_DISTANCE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkRefresh:
    """Which chunks' first latents take the reference's place, and when.

    The first chunk's does (None), or every `every`-th one's from the first on. It is shown from
    `lag` chunks later on, in every step. A lag that covers all chunks that any cut of the plan may
    have under way (None: as many as there are steps, and four) never makes the chain wait; a
    shorter one makes it empty first, which changes no picture.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    every: int | None = None
    lag: int | None = None

    def __post_init__(self) -> None:
        """Refuse numbers of chunks that are none."""
        for name, value in (("every", self.every), ("lag", self.lag)):
            if value is not None and not 1 <= value <= 1 << 20:
                raise ValueError(
                    f"sink_refresh {name} {value} must lie in 1..{1 << 20}, or be null"
                )

    def lag_of(self, num_steps: int) -> int:
        """Chunks between the one whose latent is taken and the first that shows it."""
        # A chain of actors has at most a stage for each step, a decoder, and two chunks more.
        return num_steps + 4 if self.lag is None else self.lag

    def is_source(self, chunk: int) -> bool:
        """Whether this chunk's first latent becomes a reference."""
        return chunk == 0 if self.every is None else chunk % self.every == 0

    def source_of(self, chunk: int, num_steps: int) -> int | None:
        """The chunk whose latent is shown from `chunk` on, None where nothing changes."""
        source = chunk - self.lag_of(num_steps)
        return source if source >= 0 and self.is_source(source) else None


def distance_at(rule: SinkDistance, seed: int, chunk: int, step: int) -> int | None:
    """How far ahead of a chunk the reference lies in one pass of the network.

    A range is drawn from uniformly, ends included, anew for every (session, chunk, step).
    """
    if not isinstance(rule, tuple):
        return rule
    return counter_integer(seed, chunk, step, *rule)


def sink_complaints(plan: "Plan") -> Iterator[str]:
    """What is wrong with where a plan's sink lies and what it shows."""
    distance = plan.sink_distance
    low, high = distance if isinstance(distance, tuple) else (distance, distance)
    if low is not None and high is not None and not 0 <= low <= high <= MAX_DISTANCE:
        what = "null, or [low, high]" if low == high else "with the smaller number first"
        shown = list(distance) if isinstance(distance, tuple) else distance
        yield f"sink_distance {shown} must lie in 0..{MAX_DISTANCE}, or be {what}"
    if plan.windows is not None and isinstance(distance, tuple):
        yield "windows see the reference at one sink_distance: give a number"
    if plan.windows is not None and plan.sink_refresh is not None:
        yield "windows of a render overlap chunks: leave sink_refresh out, or windows"
