"""What is made of measured times: percentiles, ratios, cuts, and limits kept or not."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from pipeline.spans import Span


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that `percent` of the values do not exceed (nearest rank).

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("nothing was measured: give at least one value")
    rank = math.ceil(percent / 100 * len(values))
    return sorted(values)[max(rank, 1) - 1]


def median_ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """The median of the ratios of values that were measured one after the other."""
    return median(s / f for s, f in zip(slow, fast, strict=True))


def efficiency(chunks_per_s: float, stage_s: Sequence[float]) -> float:
    """Measured throughput over what the slowest stage alone would allow."""
    return chunks_per_s * max(stage_s)


def spread(values: Sequence[float]) -> float:
    """How far the values lie apart, as a share of the smallest."""
    return max(values) / min(values) - 1.0


def steps_of_first_half(num_steps: int, step_s: float, rest_s: float) -> int:
    """How many steps make the first half as long as the others with `rest_s` after them.

    Raises:
        ValueError: the rest takes longer than all steps, so that no cut makes halves.
    """
    first = round((num_steps * step_s + rest_s) / (2 * step_s))
    if first >= num_steps and rest_s > num_steps * step_s:
        raise ValueError(
            f"{num_steps} steps of {step_s:.4f} s are less than the {rest_s:.4f} s after them: "
            "take more steps"
        )
    return min(max(first, 1), num_steps)


def best_possible(halves_s: Sequence[float]) -> float:
    """The speed-up that stages of these costs can give at most: their sum over the slowest."""
    return sum(halves_s) / max(halves_s)


def ceiling(alone_s: float, chain_s: float, idle_share: float, cores: int) -> float:
    """The speed-up that processor time allows where nobody else wants any.

    `alone_s` and `chain_s` are what a chunk costs in one process and in the whole chain, less what
    the chain costs anyway: `idle_share` processor seconds a second, however fast it goes.
    """
    return alone_s * (cores - idle_share) / chain_s


def hops_ms(spans: Sequence[Span], first_chunk: int) -> list[float]:
    """All hops between stages, of the chunks from `first_chunk` on."""
    by_chunk: dict[int, list[Span]] = defaultdict(list)
    for span in spans:
        if span.chunk >= first_chunk:
            by_chunk[span.chunk].append(span)
    found = []
    for passed in by_chunk.values():
        ordered = sorted(passed, key=lambda span: span.began_ns)
        found += [(b.began_ns - a.ended_ns) / 1e6 for a, b in pairwise(ordered)]
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One figure against its limit; `at_least` says on which side of it is good."""

    name: str
    value: float
    limit: float
    at_least: bool
    unit: str = ""

    @property
    def holds(self) -> bool:
        """Whether the limit is kept; a figure that is no number keeps none."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def row(self) -> list[str]:
        """The figure, the limit and the verdict, for a table."""
        sign = "≥" if self.at_least else "≤"
        verdict = "pass" if self.holds else "FAIL"
        # Rounded towards the side that fails: what reads as kept is kept.
        rounding = math.floor if self.at_least else math.ceil
        value = f"{rounding(round(self.value * 1000, 6)) / 1000:g}" if self.is_number else "nan"
        return [self.name, value, f"{sign} {self.limit:g}", self.unit, verdict]

    @property
    def is_number(self) -> bool:
        """Whether something was measured."""
        return math.isfinite(self.value)


CHECK_HEADER = ["figure", "measured", "limit", "unit", ""]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One part of a result: Markdown, and the limits it is held to."""

    title: str
    body: str
    checks: tuple[Check, ...] = ()
