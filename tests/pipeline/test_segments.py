"""Adapters in plans: by name, by segment, one at a time, from a folder or a path."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipeline.cuts import cut_at, join_neighbours
from pipeline.errors import PlanError
from pipeline.plan import Plan, StageSpec, Step
from pipeline.plan_parse import load_plan, parse_plan
from pipeline.plugins.contract import StepContext
from pipeline.segments import Segments
from tests.support.small_chain import PLAN

pytestmark = pytest.mark.unit

SEGMENTS = Segments(t_mid=0.5, above="motion", below="fidelity")
LEVELS = "[{sigma_in: 1.0, sigma_out: 0.8}, {sigma_in: 0.8, sigma_out: 0.0}]"


def adapters(plan: Plan) -> list[str | None]:
    return [step.adapter for step in plan.steps]


def test_a_step_that_starts_at_the_border_is_below_it() -> None:
    plan = replace(PLAN, segments=SEGMENTS)
    assert [step.sigma_in for step in plan.steps] == [1.0, 0.8, 0.5, 0.2]
    assert adapters(plan) == ["motion", "motion", "fidelity", "fidelity"]


@pytest.mark.parametrize("t_mid", [0.2, 0.35, 0.5, 0.8, 0.9])
def test_every_level_is_on_exactly_one_side(t_mid: float) -> None:
    segments = Segments(t_mid=t_mid, above="motion", below="fidelity")
    sides = [segments.adapter(sigma / 100) for sigma in range(1, 101)]
    border = round(100 * t_mid)
    assert sides == ["fidelity"] * border + ["motion"] * (100 - border)


def test_one_segment_may_be_the_bare_network() -> None:
    plan = replace(PLAN, segments=Segments(t_mid=0.6, below="fidelity"))
    assert adapters(plan) == [None, None, "fidelity", "fidelity"]


def test_segments_stay_the_same_however_the_plan_is_cut() -> None:
    plan = replace(PLAN, segments=SEGMENTS)
    for cuts in ([], [1], [2], [1, 2, 3]):
        assert adapters(cut_at(plan, cuts)) == adapters(plan)
        assert adapters(join_neighbours(cut_at(plan, cuts))) == adapters(plan)


def test_a_plan_file_names_segments_once() -> None:
    segments = "segments: {t_mid: 0.9, above: motion}"
    text = f"name: x\n{segments}\nstages: [{{name: s, steps: {LEVELS}}}]"
    assert adapters(parse_plan(text, source="x")) == ["motion", None]
    explicit = text.replace("1.0, sigma_out: 0.8", "1.0, sigma_out: 0.8, adapter: motion")
    assert parse_plan(explicit, source="x") == parse_plan(text, source="x")


def test_segments_reach_a_schedule() -> None:
    text = "name: x\nsegments: {t_mid: 0.6, above: a, below: b}\nschedule: {steps: 4, shift: 1}"
    assert adapters(parse_plan(text, source="x")) == ["a", "a", "b", "b"]


REFUSED = {
    "segments: {t_mid: 0.9, above: a}\nstages: [{name: s, steps: [{sigma_in: 1.0, sigma_out: 0.0, "
    "adapter: b}]}]": "step 0 names adapter b, but by the segments it has a: one works at a time",
    "segments: {t_mid: 0.9, below: a}\nstages: [{name: s, steps: [{sigma_in: 1.0, sigma_out: 0.0, "
    "adapter: a}]}]": "step 0 names adapter a, but by the segments it has none",
    "stages: [{name: s, steps: [{sigma_in: 1.0, sigma_out: 0.0, adapter: [a, b]}]}]": (
        "adapter: 2 adapters at once would be summed: exactly one works at a step"
    ),
    "stages: [{name: s, steps: [{sigma_in: 1.0, sigma_out: 0.0, adapter: a+b}]}]": (
        r"adapter 'a\+b' is no name"
    ),
    "stages: [{name: s, steps: [{sigma_in: 1.0, sigma_out: 0.0, adapter: ''}]}]": "adapter '' is",
    "segments: {t_mid: 0.5}\nschedule: {steps: 2}": "segments name no adapter",
    "segments: {t_mid: 1.0, above: a}\nschedule: {steps: 2}": "t_mid 1.0 must lie between 0 and 1",
    "segments: {t_mid: .nan, above: a}\nschedule: {steps: 2}": "t_mid",
    "segments: {t_mid: 0.5, above: a, middle: b}\nschedule: {steps: 2}": "segments.middle",
    "segments: {above: a}\nschedule: {steps: 2}": "segments.t_mid",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_not_one_adapter_at_a_time_is_refused(text: str) -> None:
    with pytest.raises(PlanError, match=REFUSED[text]) as refused:
        parse_plan(f"name: x\n{text}", source="x.yaml")
    assert "\n" not in str(refused.value)


def test_paths_are_relative_to_the_plan(tmp_path: Path) -> None:
    text = (
        "name: x\nsegments: {t_mid: 0.9, above: loras/m.safetensors, below: plain}\n"
        f"stages: [{{name: s, steps: {LEVELS}}}]"
    )
    (tmp_path / "x.yaml").write_text(text)
    plan = load_plan(str(tmp_path / "x.yaml"))
    assert adapters(plan) == [str(tmp_path / "loras" / "m.safetensors"), "plain"]
    assert replace(plan) == plan
    assert load_plan("pocket").segments is None


def test_what_is_learnt_before_a_switch_is_not_used_after_it() -> None:
    plan = replace(PLAN, segments=SEGMENTS)
    breaks = [context(plan, index).follows_break for index in range(4)]
    assert breaks == [True, False, True, False]
    short = Plan(
        name="one",
        stages=(StageSpec(name="s", steps=(Step(sigma_in=1.0, sigma_out=0.0, adapter="m"),)),),
    )
    assert context(short, 0).follows_break


def context(plan: Plan, index: int) -> StepContext:
    """A chunk at a step; only its way matters."""
    legs, nothing = plan.legs(0), torch.zeros(1, 1, 1, 1)
    return StepContext(
        session="a", chunk=0, seed=0, legs=legs, leg=legs[index], latents_CTHW=nothing,
        cond_CTHW=nothing, ring_frames=0, chunk_memory={}, lane_memory={},
    )  # fmt: skip
