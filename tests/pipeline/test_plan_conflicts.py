"""Plans that ask for what does not go together are refused by name, with reason and remedy."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import yaml

from pipeline.errors import PlanError
from pipeline.plan import Plan, PluginSpec, StageSpec, Step
from pipeline.plan_conflicts import CONFLICTS, require_no_conflict
from pipeline.plan_parse import parse_plan
from pipeline.plugins.registry import PLUGINS
from pipeline.route import ShortRoute
from pipeline.window_spec import WindowSpec
from video.hinge import level_after

pytestmark = pytest.mark.unit

LEVELS = (1.0, 0.9, 0.8, 0.6, 0.4, 0.2, 0.0)
FORECAST = (PluginSpec(name="forecast"),)
WINDOWS = WindowSpec(length=12, overlap=6)


def plan_of(*changes: dict[str, Any], **of_plan: Any) -> Plan:
    """A render of six steps; `changes` are values of its steps in order."""
    steps = [Step(sigma_in=a, sigma_out=b) for a, b in pairwise(LEVELS)]
    for index, change in enumerate(changes):
        steps[index] = replace(steps[index], **change)
    stages = (StageSpec(name="all", steps=tuple(steps)),)
    return Plan(name="mine", stages=stages, **{"mode": "render", **of_plan})


def low_then_high(**of_plan: Any) -> Plan:
    """Two steps at half the resolution, then the others; the first after the hinge is marked."""
    plan = plan_of()
    low = [replace(step, resolution=0.5) for step in plan.steps[:2]]
    crossed = level_after(low[1].sigma_out, 2.0)
    high = [replace(plan.steps[2], sigma_in=crossed, forecast=True), *plan.steps[3:]]
    stages = (StageSpec(name="all", steps=(*low, *high)),)
    return Plan(name="mine", stages=stages, **{"mode": "render", **of_plan})


MARK = {"forecast": True}
REFUSED = [
    ("unknown plug-in", plan_of(plugins=(PluginSpec(name="warp"),)), "'warp'", "use one of"),
    ("unknown plug-in", plan_of({}, MARK, plugins=FORECAST * 2), "twice", "list it once"),
    (
        "two plug-ins that decide",
        plan_of({}, MARK, plugins=(*FORECAST, PluginSpec(name="teacache"))),
        "forecast and teacache",
        "keep one",
    ),
    (
        "forecast in live mode",
        plan_of({}, MARK, mode="live"),
        "step 1",
        "set mode: render",
    ),
    (
        "forecast in live mode",
        plan_of(mode="live", plugins=(PluginSpec(name="teacache"),)),
        "plug-in teacache",
        "set mode: render",
    ),
    (
        "windows in live mode",
        plan_of(mode="live", windows=WINDOWS, frames_per_chunk=6),
        "36 latent frames late",
        "leave windows out",
    ),
    ("forecast without a forecaster", plan_of({}, MARK), "step 1", "add a plug-in"),
    ("forecast across a hinge", low_then_high(plugins=FORECAST), "resolution", "out of step 2"),
    (
        "forecast across a hinge",
        plan_of({"adapter": "motion"}, {"adapter": "fidelity", **MARK}, plugins=FORECAST),
        "adapter",
        "out of step 1",
    ),
    (
        "forecast across a hinge",
        plan_of({}, {}, {"guidance": 2.0, **MARK}, plugins=FORECAST),
        "guidance",
        "out of step 2",
    ),
    (
        "forecast across fresh noise",
        plan_of({}, {"rule": "renoise"}, MARK, plugins=FORECAST),
        "step 1 draws fresh noise",
        "rule euler",
    ),
    (
        "guidance in a rolling window",
        plan_of(
            {"guidance": 2.0}, windows=WindowSpec(length=18, blend="rolling"), frames_per_chunk=3
        ),
        "needs two",
        "take blend exact",
    ),
    (
        "adaptive skipping across windows",
        plan_of(
            {}, MARK, windows=WINDOWS, frames_per_chunk=6, plugins=(PluginSpec(name="teacache"),)
        ),
        "teacache",
        "use plug-in forecast",
    ),
]


@pytest.mark.parametrize(("name", "plan", "reason", "remedy"), REFUSED)
def test_what_does_not_go_together_is_refused_by_name_with_reason_and_remedy(
    name: str, plan: Plan, reason: str, remedy: str
) -> None:
    with pytest.raises(PlanError) as refused:
        require_no_conflict(plan)
    message = str(refused.value)
    assert message.startswith(f"{name}: ")
    assert reason in message
    assert remedy in message
    assert "\n" not in message


def test_plug_ins_that_repeat_parts_of_steps_do_not_go_with_those_that_skip_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for cache in ("sortblock", "clusca", "bypass"):
        monkeypatch.setitem(PLUGINS, cache, PLUGINS["omegance"])
    both = plan_of({}, MARK, plugins=(*FORECAST, PluginSpec(name="sortblock")))
    with pytest.raises(PlanError, match="feature cache with forecast: sortblock"):
        require_no_conflict(both)
    two = plan_of(plugins=(PluginSpec(name="sortblock"), PluginSpec(name="clusca")))
    with pytest.raises(PlanError, match="both choose"):
        require_no_conflict(two)
    with pytest.raises(PlanError, match=r"bypass in render mode: .*mode: live"):
        require_no_conflict(plan_of(plugins=(PluginSpec(name="bypass"),)))


def test_a_short_route_that_jumps_to_another_function_may_not_forecast_there() -> None:
    """All steps in order have no hinge before step 3, the short route has."""
    adapters = [{"adapter": "motion"}, {"adapter": "motion"}, {"adapter": "fidelity"}]
    plan = plan_of(
        *adapters, {"adapter": "fidelity", **MARK}, plugins=FORECAST, short=ShortRoute(steps=(0, 3))
    )
    with pytest.raises(PlanError, match=r"forecast across a hinge: step 3 .* adapter"):
        require_no_conflict(plan)


@pytest.mark.parametrize(
    "plan",
    [
        plan_of(),
        plan_of(mode="live"),
        plan_of({}, MARK, MARK, MARK, MARK, plugins=FORECAST),
        plan_of({}, MARK, windows=WINDOWS, frames_per_chunk=6, plugins=FORECAST),
        plan_of(mode="live", short=ShortRoute(steps=(0, 3))),
    ],
)
def test_what_goes_together_is_taken(plan: Plan) -> None:
    require_no_conflict(plan)


def test_a_plan_file_with_a_conflict_is_refused_when_it_is_read() -> None:
    text = yaml.safe_dump({"name": "p", "schedule": {"steps": 8, "forecast": True}})
    with pytest.raises(PlanError, match=r"^plan my.yaml: forecast in live mode: step 1 "):
        parse_plan(text, source="my.yaml")


def test_options_of_plug_ins_are_looked_at_when_a_plan_is_read() -> None:
    values = {"name": "p", "mode": "render", "schedule": {"steps": 8, "forecast": True}}
    plugins = [{"name": "forecast", "options": {"order": 99}}]
    with pytest.raises(PlanError, match=r"^plan my.yaml: plug-in forecast: .*order"):
        parse_plan(yaml.safe_dump({**values, "plugins": plugins}), source="my.yaml")


def test_a_schedule_forecasts_no_step_where_the_adapter_changes() -> None:
    values = {
        "name": "p",
        "mode": "render",
        "schedule": {"steps": 8, "shift": 1, "forecast": True},
        "segments": {"t_mid": 0.5, "above": "motion", "below": "fidelity"},
        "plugins": [{"name": "forecast"}],
    }
    plan = parse_plan(yaml.safe_dump(values), source="my.yaml")
    assert [step.forecast for step in plan.steps] == [False, *[True] * 3, False, True, True, False]
    assert plan.steps[4].adapter != plan.steps[3].adapter


def test_every_conflict_is_tried_here() -> None:
    tried = {name for name, *_ in REFUSED} | {
        "feature cache with forecast",
        "bypass in render mode",
    }
    assert tried == set(CONFLICTS)
