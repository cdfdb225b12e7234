"""The network is told what a table says, at every step, wherever the plan is cut."""

from pathlib import Path

import pytest
import torch

from pipeline.errors import PlanError
from pipeline.plan_parse import load_plan
from pipeline.plugins.registry import make_plugins
from pipeline.plugins.timestep_aligner import TimestepAligner, TimestepTable
from tests.support.plugged import every_placement, latents_of, plan_of, with_plugins
from tests.support.small_chain import denoiser, small_inputs, small_works
from tests.support.toy_stages import same

pytestmark = pytest.mark.stream

SIGMAS = (1.0, 0.8, 0.5, 0.2, 0.0)
TOLD = [0.9, 0.7, 0.45, 0.1]
INPUTS = small_inputs("a", 5)
WORKS = small_works(INPUTS, 6)


def test_the_network_is_told_the_fitted_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    network, ask = denoiser().network, denoiser().network.stream_lanes

    def note(x: torch.Tensor, t_BF: torch.Tensor, *rest: object, **options: object) -> torch.Tensor:
        seen.append(float(t_BF[0, 0]) / 1000)
        return ask(x, t_BF, *rest, **options)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(network, "stream_lanes", note)
    latents_of(plan_of(SIGMAS, timestep_aligner={"sigmas": TOLD}), INPUTS, WORKS[:1])
    assert seen == pytest.approx(TOLD)


def test_its_own_levels_change_no_bit() -> None:
    plain = latents_of(plan_of(SIGMAS), INPUTS, WORKS)
    same_levels = plan_of(SIGMAS, timestep_aligner={"sigmas": list(SIGMAS[:-1])})
    made = latents_of(same_levels, INPUTS, WORKS)
    assert all(torch.equal(a, b) for a, b in zip(plain, made, strict=True))


def test_a_table_file_says_the_same_as_the_levels_in_the_plan(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text(TimestepTable(sigmas=SIGMAS[:-1], told=tuple(TOLD)).to_json())
    of_file = latents_of(plan_of(SIGMAS, timestep_aligner={"table": str(path)}), INPUTS, WORKS[:2])
    of_plan = latents_of(plan_of(SIGMAS, timestep_aligner={"sigmas": TOLD}), INPUTS, WORKS[:2])
    assert all(torch.equal(a, b) for a, b in zip(of_file, of_plan, strict=True))


def test_every_placement_makes_the_same_pictures() -> None:
    plan = plan_of(SIGMAS, timestep_aligner={"sigmas": TOLD})
    first, *others = every_placement(plan, INPUTS, WORKS)
    assert all(same(made, first) for made in others)


def test_a_table_of_other_steps_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text(TimestepTable(sigmas=(1.0, 0.7, 0.5, 0.2), told=tuple(TOLD)).to_json())
    with pytest.raises(PlanError, match="other noise levels than the plan's"):
        make_plugins(plan_of(SIGMAS, timestep_aligner={"table": str(path)}))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"sigmas": 1, "told": 2}', '{"sigmas": ["a"]}'])
def test_files_that_hold_no_table_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="viva train timesteps"):
        TimestepAligner(table=str(path))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({}, "either sigmas, one for each step, or a table"),
        ({"sigmas": TOLD, "table": "pocket"}, "either sigmas"),
        ({"sigmas": TOLD[:3]}, "3 levels for a plan of 4 steps"),
        ({"sigmas": [2.0, 0.7, 0.5, 0.1]}, "level 2.0 must lie in"),
        ({"table": "/nowhere/t.json"}, "cannot be read"),
        ({"levels": TOLD}, "levels"),
    ],
)
def test_other_options_are_refused(options: dict[str, object], complaint: str) -> None:
    with pytest.raises(PlanError, match=complaint):
        make_plugins(plan_of(SIGMAS, timestep_aligner=options))


def test_the_pocket_models_table_fits_its_plan() -> None:
    plan = with_plugins(load_plan("pocket"), timestep_aligner={"table": "pocket"})
    (plugin,) = make_plugins(plan)
    assert isinstance(plugin, TimestepAligner)
    assert len(plugin.told) == len(plan.steps)
