"""Plans that no chain could run are refused by name, with the reason and what to do."""

from typing import Any

import pytest
import yaml

from pipeline.errors import PlanError
from pipeline.plan_parse import parse_plan
from pipeline.plan_rules import RULES

pytestmark = pytest.mark.unit

FOUR = {"name": "p", "mode": "render", "schedule": {"steps": 4}}
ONE_STEP = {"sigma_in": 1.0, "sigma_out": 0.0}


def with_step(**fields: Any) -> dict[str, Any]:
    return {"name": "p", "stages": [{"name": "s", "steps": [{**ONE_STEP, **fields}]}]}


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("stages", {"name": "p", "stages": []}, "list at least one"),
    ("schedule", with_step(sigma_out=0.1), "end clean, at 0.0"),
    ("schedule", with_step(resolution=0.5), "end at 1, which is decoded"),
    ("short route", {**FOUR, "short": {"steps": [0, 1, 2, 3, 4]}}, "choose indices below 4"),
    ("short route", {**FOUR, "short": {"steps": [0, 7]}}, "choose indices below 4"),
    ("short route", {**FOUR, "short": {"steps": [1, 3]}}, "begin with step 0"),
    ("geometry", {**FOUR, "frames_per_chunk": 5}, "multiple of frames_per_chunk 5"),
    ("sink", {**FOUR, "sink_distance": [9, 3]}, "smaller number first"),
    (
        "windows",
        {**FOUR, "windows": {"length": 12, "overlap": 3}},
        "frames_per_chunk 3 is not the windows' stride 9",
    ),
    (
        "windows",
        {
            **FOUR,
            "frames_per_chunk": 9,
            "windows": {"length": 12, "overlap": 3},
            "short": {"steps": [0, 3]},
        },
        "leave out short",
    ),
    (
        "adapters",
        {**with_step(adapter="lips"), "segments": {"t_mid": 0.5, "above": "motion"}},
        "one works at a time",
    ),
]


@pytest.mark.parametrize(("name", "values", "says"), REFUSED)
def test_what_no_chain_could_run_is_refused_by_name(
    name: str, values: dict[str, Any], says: str
) -> None:
    with pytest.raises(PlanError) as refused:
        parse_plan(yaml.safe_dump(values), source="my.yaml")
    message = str(refused.value)
    assert message.startswith(f"plan my.yaml: {name}: ")
    assert says in message
    assert "\n" not in message


def test_two_adapters_at_a_step_are_refused_at_that_step() -> None:
    values = with_step(adapter=["motion", "fidelity"])
    with pytest.raises(PlanError, match=r"stages\.0\.steps\.0\.adapter: 2 adapters at once"):
        parse_plan(yaml.safe_dump(values), source="my.yaml")


def test_every_rule_is_tried_here() -> None:
    assert {name for name, *_ in REFUSED} == set(RULES)
