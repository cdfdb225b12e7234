"""What a plan may not ask for together: each refusal has a name, says why, and what to do instead.

A plan that breaks one of these could run, but what it makes would be wrong or late. The next one is
one function and one entry of `CONFLICTS`. Source: design page "algorithms", sections 9.2 and 10.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from pipeline.errors import PlanError
from pipeline.guidance import is_guided
from pipeline.plugins.registry import PLUGINS, make_plugins
from pipeline.route import Leg

if TYPE_CHECKING:
    from pipeline.plan import Plan, Step

Conflict = Callable[["Plan"], Iterator[str]]

# Plug-ins that leave out steps of a chunk: by the plan alone, or by what the first chunk is like.
FORECASTERS = ("forecast",)
ADAPTIVE_SKIPPERS = ("adaptive", "taocache", "teacache")
STEP_SKIPPERS = FORECASTERS + ADAPTIVE_SKIPPERS
# Plug-ins that repeat parts of a step, and the one that makes up for a deadline.
FEATURE_CACHES = ("clusca", "sortblock", "taylorseer")
LIVE_BYPASS = "bypass"


def require_no_conflict(plan: "Plan") -> None:
    """Refuse a plan whose parts do not go together, by the first rule that complains.

    Raises:
        PlanError: one line with the rule's name, the reason and the remedy.
    """
    for name, conflict in CONFLICTS.items():
        for complaint in conflict(plan):
            raise PlanError(f"{name}: {complaint}")
    try:
        make_plugins(plan)
    except PlanError as error:
        raise PlanError(str(error).removeprefix(f"plan {plan.name}: ")) from error


def _used(plan: "Plan", *names: str) -> list[str]:
    """Those of these plug-ins that the plan has."""
    return [spec.name for spec in plan.plugins if spec.name in names]


def _unknown(plan: "Plan") -> Iterator[str]:
    """Plug-ins that there are, each once."""
    names = [spec.name for spec in plan.plugins]
    for index, name in enumerate(names):
        if name not in PLUGINS:
            yield f"{name!r} is none of {', '.join(sorted(PLUGINS))}: use one of them"
        if name in names[:index]:
            yield f"{name} is listed twice: list it once, with one set of options"


def _two_deciders(plan: "Plan") -> Iterator[str]:
    """One at most decides whether the network runs."""
    deciding = _used(plan, *STEP_SKIPPERS, LIVE_BYPASS)
    if len(deciding) > 1:
        yield f"{' and '.join(deciding)} would both decide which steps run: keep one of them"


def _live_forecast(plan: "Plan") -> Iterator[str]:
    """Few-step plans have no step to spare."""
    if plan.mode != "live":
        return
    asked = [f"plug-in {name}" for name in _used(plan, *STEP_SKIPPERS)]
    asked += [f"step {index}" for index, step in enumerate(plan.steps) if step.forecast]
    if asked:
        yield (
            f"{asked[0]} would forecast, which needs several computed steps to look back on, and a "
            f"live plan has none to spare: set mode: render, or use plug-in {LIVE_BYPASS}"
        )


def _render_bypass(plan: "Plan") -> Iterator[str]:
    """Nothing is late where nobody waits."""
    if plan.mode == "render" and _used(plan, LIVE_BYPASS):
        yield (
            f"{LIVE_BYPASS} leaves out steps of chunks that are late, and nothing is late in a "
            "render: leave it out, or set mode: live"
        )


def _live_windows(plan: "Plan") -> Iterator[str]:
    """Windows wait for sound that comes after their pictures."""
    if plan.mode == "live" and plan.windows is not None:
        strides = plan.windows.lag(len(plan.steps))
        lag = f"{strides * plan.frames_per_chunk} latent frames late" if strides else "by windows"
        yield (
            f"a window is computed when all its sound is there, and pictures come out {lag}: set "
            "mode: render, or leave windows out"
        )


def _without_forecaster(plan: "Plan") -> Iterator[str]:
    """Somebody makes use of the marks."""
    marked = [index for index, step in enumerate(plan.steps) if step.forecast]
    if marked and not _used(plan, *STEP_SKIPPERS, *FEATURE_CACHES):
        known = ", ".join((*STEP_SKIPPERS, *FEATURE_CACHES))
        yield (
            f"step {marked[0]} may be forecast, but nothing forecasts: add a plug-in, one of "
            f"{known}, or leave forecast out"
        )


def _across_hinge(plan: "Plan") -> Iterator[str]:
    """No derivative is taken across a change of the function."""
    for legs in _ways(plan):
        for before, leg in pairwise(legs):
            change = _change(before.step, leg.step)
            if leg.step.forecast and change:
                yield (
                    f"step {leg.index} may be forecast, but {change} changes before it, so that "
                    "what earlier steps gave says nothing of it: a forecaster must begin anew "
                    f"there, so leave forecast out of step {leg.index}"
                )


def _across_noise(plan: "Plan") -> Iterator[str]:
    """No derivative is taken across fresh noise."""
    for legs in _ways(plan):
        for before, leg in pairwise(legs):
            if leg.step.forecast and before.step.rule == "renoise":
                yield (
                    f"step {leg.index} may be forecast, but step {before.index} draws fresh noise, "
                    "so that it is on another path than the steps before: use rule euler there, "
                    f"or leave forecast out of step {leg.index}"
                )


def _ways(plan: "Plan") -> list[tuple[Leg, ...]]:
    """The ways that chunks take: all steps, and the short route."""
    ways = [plan.legs(0)]
    return ways if plan.short is None else [*ways, plan.legs(plan.short.from_chunk)]


def _change(before: "Step", now: "Step") -> str | None:
    """What makes a step another function of its input than the one before it."""
    for field in ("resolution", "adapter", "guidance"):
        if getattr(before, field) != getattr(now, field):
            return field
    return None


def _cached_forecast(plan: "Plan") -> Iterator[str]:
    """One of them extrapolates a step, or its parts."""
    caches, skippers = _used(plan, *FEATURE_CACHES), _used(plan, *STEP_SKIPPERS, LIVE_BYPASS)
    if caches and skippers:
        yield (
            f"{caches[0]} predicts parts of a step from the steps before it, and {skippers[0]} "
            "leaves out just those: keep one of them"
        )
    if len(caches) > 1:
        yield f"{' and '.join(caches)} would both choose what a step computes: keep one of them"


def _adaptive_windows(plan: "Plan") -> Iterator[str]:
    """All windows take the same steps."""
    adaptive = _used(plan, *ADAPTIVE_SKIPPERS)
    if plan.windows is not None and adaptive:
        yield (
            f"{adaptive[0]} decides by what it sees, so that neighbouring windows, which are "
            "blended, could be at different steps: use plug-in forecast, which the plan fixes"
        )


def _guided_rolling(plan: "Plan") -> Iterator[str]:
    """A rolling window asks once for all steps."""
    is_rolling = plan.windows is not None and plan.windows.blend == "rolling"
    if is_rolling and any(is_guided(step) for step in plan.steps):
        yield (
            "a rolling window takes all steps in one pass of the network, and guidance needs two: "
            "leave guidance at 1, or take blend exact"
        )


# By name, in the order in which they are asked.
CONFLICTS: dict[str, Conflict] = {
    "unknown plug-in": _unknown,
    "two plug-ins that decide": _two_deciders,
    "forecast in live mode": _live_forecast,
    "windows in live mode": _live_windows,
    "bypass in render mode": _render_bypass,
    "forecast without a forecaster": _without_forecaster,
    "forecast across a hinge": _across_hinge,
    "forecast across fresh noise": _across_noise,
    "feature cache with forecast": _cached_forecast,
    "adaptive skipping across windows": _adaptive_windows,
    "guidance in a rolling window": _guided_rolling,
}
