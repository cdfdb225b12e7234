"""What a plan may not ask for: every refusal has a name, says why, and what to do instead.

A rule looks at a plan's values alone and gives its complaints. The next rule is one function and
one entry of `RULES`. What only plug-ins know of themselves is in `Plugin.check`.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from pipeline.plan_schedule import MAX_STEPS
from pipeline.route import LEVEL_TOLERANCE, arriving_level
from pipeline.segments import adapter_complaints
from pipeline.sink_rules import sink_complaints
from pipeline.window_spec import window_complaints
from video.hinge import factor

if TYPE_CHECKING:
    from pipeline.plan import Plan

Rule = Callable[["Plan"], Iterator[str]]


def require_coherent(plan: "Plan") -> None:
    """Refuse a plan that asks for something incoherent, by the first rule that complains.

    Raises:
        ValueError: one line with the rule's name, the reason and the remedy.
    """
    for name, rule in RULES.items():
        for complaint in rule(plan):
            raise ValueError(f"{name}: {complaint}")


def _stages(plan: "Plan") -> Iterator[str]:
    """Stages that are there, and that can be told apart."""
    if not plan.stages:
        yield "stages is empty: list at least one stage"
    names = [stage.name for stage in plan.stages]
    for index, name in enumerate(names):
        if name in names[:index]:
            yield f"stage name {name} repeats: give each stage its own"
    if len(plan.steps) > MAX_STEPS:
        yield f"{len(plan.steps)} steps are more than {MAX_STEPS}: take fewer"


def _descent(plan: "Plan") -> Iterator[str]:
    """A schedule that leads from pure noise to clean without a gap."""
    steps = plan.steps
    if steps[0].sigma_in != 1.0:
        yield f"the first sigma_in is {steps[0].sigma_in}: start from pure noise, 1.0"
    if steps[-1].sigma_out != 0.0:
        yield f"the last sigma_out is {steps[-1].sigma_out}: end clean, at 0.0"
    if steps[-1].resolution != 1.0:
        yield f"the last step has resolution {steps[-1].resolution}: end at 1, which is decoded"
    for index, (before, after) in enumerate(pairwise(steps)):
        factor(after.resolution / before.resolution)
        arrives = arriving_level(before, after.resolution)
        is_crossing = arrives != before.sigma_out
        if abs(arrives - after.sigma_in) > (LEVEL_TOLERANCE if is_crossing else 0.0):
            crossed = f", {arrives:.7f} after the hinge," if is_crossing else ""
            yield (
                f"step {index} ends at sigma {before.sigma_out}{crossed} but step {index + 1} "
                f"starts at {after.sigma_in}: make them equal"
            )


def _short(plan: "Plan") -> Iterator[str]:
    """A short route over steps that are there, that ends where the picture does."""
    steps, short = plan.steps, plan.short
    if short is None:
        return
    if len(short.steps) > len(steps) or short.steps[-1] >= len(steps):
        yield (
            f"short takes steps {list(short.steps)} of {len(steps)}: choose indices below "
            f"{len(steps)}"
        )
    elif steps[short.steps[-1]].resolution != 1.0:
        yield f"short ends at step {short.steps[-1]}, of a lower resolution: end at full resolution"
    if short.steps[0] != 0:
        yield "short must begin with step 0, where noise is drawn"


def _geometry(plan: "Plan") -> Iterator[str]:
    """Sizes with which the ring can be addressed."""
    chunk, window = plan.frames_per_chunk, plan.window_frames
    if not 1 <= chunk <= 64:
        yield f"frames_per_chunk {chunk} must lie in 1..64"
    is_ring = plan.windows is None
    if (is_ring and (window < chunk or window % chunk)) or window > 4096:
        yield f"window_frames {window} must be a multiple of frames_per_chunk {chunk}"
    if not 0.0 < plan.known_resolution <= 1.0:
        yield f"known_resolution {plan.known_resolution} must lie in (0, 1]"


# By name, in the order in which they are asked: what a rule relies on stands before it.
RULES: dict[str, Rule] = {
    "stages": _stages,
    "schedule": _descent,
    "short route": _short,
    "geometry": _geometry,
    "sink": sink_complaints,
    "windows": window_complaints,
    "adapters": adapter_complaints,
}
