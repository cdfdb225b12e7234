"""Plans: what is shipped parses, what is wrong is refused in one line that names the field."""

import copy
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.catalog import model_path, plan_path, shipped_plans
from pipeline.errors import PlanError
from pipeline.plan import Plan, StageSpec, Step
from pipeline.plan_parse import load_plan, parse_plan

pytestmark = pytest.mark.unit

GOOD = {
    "name": "good",
    "stages": [
        {
            "name": "one",
            "steps": [
                {"sigma_in": 1.0, "sigma_out": 0.5},
                {"sigma_in": 0.5, "sigma_out": 0.0, "rule": "renoise"},
            ],
        }
    ],
}


def test_shipped_plans_are_exactly_these_and_parse() -> None:
    live = ["live", "live-avatar", "live-hinge", "live-short", "pocket", "pocket-2step"]
    render = ["bottleneck", "render", "render-fast"]
    assert shipped_plans() == sorted(live + render)
    for name in shipped_plans():
        plan = load_plan(name)
        assert (plan.name, plan.mode) == (name, "live" if name in live else "render")


def test_pocket_takes_four_euler_steps_in_one_stage() -> None:
    plan = load_plan("pocket")
    assert [(s.sigma_in, s.sigma_out, s.rule) for s in plan.steps] == [
        (1.0, 0.95, "euler"),
        (0.95, 0.85, "euler"),
        (0.85, 0.65, "euler"),
        (0.65, 0.0, "euler"),
    ]
    assert len(plan.stages) == 1


def test_live_avatar_has_the_published_constants() -> None:
    plan = load_plan("live-avatar")
    assert [s.sigma_in for s in plan.steps] == [1.0, 0.8576923, 0.6021506, 0.0089286]
    assert [len(stage.steps) for stage in plan.stages] == [1, 1, 1, 1]
    assert (plan.window_frames, plan.frames_per_chunk, plan.sink_distance) == (12, 3, 15)
    assert [plan.first_step(i) for i in range(4)] == [0, 1, 2, 3]


def changed(path: list[str | int], value: object) -> dict[str, object]:
    """A copy of the good plan with one field set."""
    plan: dict[str, object] = yaml.safe_load(yaml.safe_dump(GOOD))
    place: Any = plan
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return plan


STEP0: list[str | int] = ["stages", 0, "steps", 0]
STEP1: list[str | int] = ["stages", 0, "steps", 1]
WRONG = [
    (["name"], "", "name"),
    (["name"], "a/b", "name"),
    (["name"], 3, "name"),
    (["colour"], "red", "colour"),
    (["stages"], [], "stages"),
    (["stages"], "denoise", "stages"),
    (["stages"], [GOOD["stages"][0], copy.deepcopy(GOOD["stages"][0])], "one repeats"),
    (["stages", 0, "steps"], [], "steps"),
    (["stages", 0, "gpu"], 1, "gpu"),
    ([*STEP0, "sigma_in"], 0.9, "pure noise"),
    ([*STEP0, "sigma_in"], 1.5, "sigma_in"),
    ([*STEP0, "sigma_in"], "1", "sigma_in"),
    ([*STEP0, "sigma_in"], True, "sigma_in"),
    ([*STEP0, "sigma_in"], float("nan"), "sigma_in"),
    ([*STEP0, "sigma_out"], 1.0, "sigma_out"),
    ([*STEP0, "sigma_out"], 0.4, "step 0 ends"),
    ([*STEP1, "sigma_out"], 0.1, "end clean"),
    ([*STEP1, "sigma_out"], -0.1, "sigma_out"),
    ([*STEP0, "rule"], "heun", "rule"),
    ([*STEP0, "resolution"], 0.0, "resolution"),
    ([*STEP0, "resolution"], 2.0, "resolution"),
    ([*STEP0, "guidance"], -1.0, "guidance"),
    ([*STEP0, "forecast"], "yes", "forecast"),
    ([*STEP0, "speed"], 2, "speed"),
    (["frames_per_chunk"], 0, "frames_per_chunk"),
    (["frames_per_chunk"], 2.5, "frames_per_chunk"),
    (["frames_per_chunk"], 5, "window_frames"),
    (["window_frames"], 0, "window_frames"),
    (["window_frames"], 13, "window_frames"),
    (["sink_distance"], -1, "sink_distance"),
]


@pytest.mark.parametrize(("path", "value", "names"), WRONG)
def test_a_wrong_field_is_refused_in_one_line_naming_it(
    path: list[str | int], value: object, names: str
) -> None:
    with pytest.raises(PlanError) as refused:
        parse_plan(yaml.safe_dump(changed(path, value)), source="my.yaml")
    message = str(refused.value)
    assert "my.yaml" in message
    assert names in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "text", ["", "[", "3", "- a", "name: x", "a: 2020-01-01", "\x00", "&a [*a]"]
)
def test_text_that_is_no_plan_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(PlanError) as refused:
        parse_plan(text, source="my.yaml")
    assert "\n" not in str(refused.value)


def test_aliases_are_refused_before_they_unfold() -> None:
    """Nine levels of nine would be a list of 387 million."""
    levels = "abcdefghij"
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"] + [
        f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]" for before, name in pairwise(levels)
    ]
    with pytest.raises(PlanError, match="aliases"):
        parse_plan("\n".join(lines), source="my.yaml")


def test_a_key_given_twice_is_refused() -> None:
    with pytest.raises(PlanError, match="'name' is given twice"):
        parse_plan(yaml.safe_dump(GOOD) + "name: other\n", source="my.yaml")


def test_a_plan_truncated_anywhere_is_refused_unless_a_whole_plan_is_left() -> None:
    text = yaml.safe_dump(GOOD)
    refused = 0
    for length in range(len(text)):
        try:
            plan = parse_plan(text[:length], source="my.yaml")
        except PlanError:
            refused += 1
        else:
            assert plan.steps[-1].sigma_out == 0.0
    assert refused >= len(text) - 25  # what is left ends in "sigma_out: 0", or has no "rule: ..."


@given(
    cuts=st.lists(st.floats(0.001, 0.999), min_size=0, max_size=6, unique=True),
    chunk=st.integers(1, 8),
    chunks=st.integers(1, 8),
    distance=st.none() | st.integers(0, 100),
)
def test_every_descending_schedule_survives_writing_and_reading(
    cuts: list[float], chunk: int, chunks: int, distance: int | None
) -> None:
    sigmas = [1.0, *sorted(cuts, reverse=True), 0.0]
    steps = tuple(Step(sigma_in=a, sigma_out=b) for a, b in pairwise(sigmas))
    plan = Plan(
        name="p",
        stages=(StageSpec(name="s", steps=steps),),
        frames_per_chunk=chunk,
        window_frames=chunk * chunks,
        sink_distance=distance,
    )
    written = {
        "name": "p",
        "frames_per_chunk": chunk,
        "window_frames": chunk * chunks,
        "sink_distance": distance,
        "stages": [
            {
                "name": "s",
                "steps": [{"sigma_in": s.sigma_in, "sigma_out": s.sigma_out} for s in steps],
            }
        ],
    }
    assert parse_plan(yaml.safe_dump(written), source="x") == plan


@given(sigmas=st.lists(st.floats(0, 1), min_size=2, max_size=5))
def test_a_schedule_that_does_not_descend_from_1_to_0_is_refused(sigmas: list[float]) -> None:
    descends = all(a > b for a, b in pairwise(sigmas))
    if descends and sigmas[0] == 1.0 and sigmas[-1] == 0.0:
        return
    steps = [{"sigma_in": a, "sigma_out": b} for a, b in pairwise(sigmas)]
    text = yaml.safe_dump({"name": "p", "stages": [{"name": "s", "steps": steps}]})
    with pytest.raises(PlanError):
        parse_plan(text, source="x")


def test_unknown_names_list_what_there_is() -> None:
    with pytest.raises(PlanError, match="unknown plan 'warp9': use one of bottleneck, live"):
        load_plan("warp9")
    with pytest.raises(PlanError, match="no such plan file"):
        load_plan("some/where.yaml")


@pytest.mark.parametrize("name", ["n" * 300, "d" * 200 + "/" + "n" * 300, "a\0b", "./a\0b"])
def test_names_that_no_file_can_have_are_unknown(name: str) -> None:
    with pytest.raises(PlanError, match=r"unknown plan|no such plan file|cannot be read"):
        load_plan(name)


def test_a_plan_can_be_a_file_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(GOOD))
    assert load_plan(str(path)).name == "good"


def test_a_binary_or_huge_file_is_no_plan(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PlanError, match="cannot be read"):
        load_plan(str(path))
    path.write_bytes(b"#" * (1 << 16) + b"#")
    with pytest.raises(PlanError, match="larger"):
        load_plan(str(path))


def test_shipped_names_win_over_files_of_the_same_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pocket").mkdir()
    (tmp_path / "mine").mkdir()
    assert plan_path("pocket").name == "pocket.yaml"
    assert model_path("mine") == Path("mine")
    assert model_path("./pocket") == Path("pocket")


def scheduled(schedule: object, **others: object) -> str:
    """A plan file that lists its steps the short way."""
    return yaml.safe_dump({"name": "p", "mode": "render", "schedule": schedule, **others})


def test_a_schedule_stands_for_evenly_spaced_levels_shifted_towards_noise() -> None:
    plan = parse_plan(scheduled({"steps": 4, "shift": 5}), source="x")
    assert [s.sigma_in for s in plan.steps] == pytest.approx([1, 0.9375, 5 / 6, 0.625])
    assert all(a.sigma_out == b.sigma_in for a, b in pairwise(plan.steps))
    assert len(plan.stages) == 1


@settings(max_examples=20)
@given(steps=st.integers(1, 256), shift=st.floats(0.1, 100))
def test_every_schedule_leads_from_noise_to_clean_without_a_gap(steps: int, shift: float) -> None:
    plan = parse_plan(scheduled({"steps": steps, "shift": shift}), source="x")
    assert len(plan.steps) == steps
    assert plan.steps[0].sigma_in == 1.0
    assert plan.steps[-1].sigma_out == 0.0


@pytest.mark.parametrize(
    ("schedule", "names"),
    [
        ({"steps": 0}, "schedule: steps 0"),
        ({"steps": 257}, "schedule: steps 257"),
        ({"steps": 10**9}, "schedule: steps"),
        ({"steps": 2.5}, "schedule.steps"),
        ({"steps": 4, "shift": 0}, "schedule: shift"),
        ({"steps": 4, "rule": "heun"}, "schedule.rule"),
        ({"steps": 4, "speed": 1}, "schedule.speed"),
        ({"shift": 5}, "schedule.steps"),
        (3, "schedule: must be a mapping"),
    ],
)
def test_a_wrong_schedule_is_refused_in_one_line_naming_the_field(
    schedule: object, names: str
) -> None:
    with pytest.raises(PlanError, match=f"^plan x: {names}") as refused:
        parse_plan(scheduled(schedule), source="x")
    assert "\n" not in str(refused.value)


def test_a_schedule_beside_stages_is_refused() -> None:
    with pytest.raises(PlanError, match="keep one of them"):
        parse_plan(scheduled({"steps": 4}, stages=[]), source="x")


def test_a_plan_is_live_unless_it_says_otherwise() -> None:
    assert parse_plan(yaml.safe_dump(GOOD), source="x").mode == "live"
    assert parse_plan(yaml.safe_dump(changed(["mode"], "render")), source="x").mode == "render"
    with pytest.raises(PlanError, match="mode"):
        parse_plan(yaml.safe_dump(changed(["mode"], "later")), source="x")
