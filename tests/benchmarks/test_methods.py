"""The plans that methods are measured with, and the plot of what they cost and give."""

from dataclasses import fields
from pathlib import Path
from xml.etree import ElementTree

import methods
import pytest
import torch
from method_plots import Point, scatter
from method_runs import ClipRun, Costs, PlanRun, distance, pops

from pipeline.plan_parse import load_plan
from video.face_reader import FaceReading

pytestmark = pytest.mark.unit

FILES = sorted(methods.PLANS.glob("*/*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_plan_can_be_read_and_says_what_it_is(path: Path) -> None:
    plan = load_plan(str(path))
    assert (plan.name, plan.mode) == (path.stem, path.parent.name)
    assert path.read_text().startswith("# ")


def test_each_mode_has_a_plain_plan_first() -> None:
    firsts = {path.parent.name: path.stem for path in reversed(FILES)}
    assert firsts == {"live": "00-plain", "render": "00-full"}


def _run(pictures_T3HW: torch.Tensor) -> PlanRun:
    nothing = torch.zeros(len(pictures_T3HW))
    reading = FaceReading(**{field.name: nothing for field in fields(FaceReading)})
    latents_CTHW = pictures_T3HW[::4].transpose(0, 1) + 1.0
    clip = ClipRun(latents_CTHW=latents_CTHW, pictures_T3HW=pictures_T3HW, reading=reading)
    return PlanRun(plan=load_plan("pocket"), clips=(clip,), costs=Costs(), sync={})


def test_a_run_is_no_distance_from_itself_and_some_from_another() -> None:
    still = _run(torch.zeros(24, 3, 8, 8))
    apart = distance(_run(torch.full((24, 3, 8, 8), 0.2)), still)
    assert distance(still, still).psnr_db == float("inf")
    assert distance(still, still).latents == 0.0
    assert apart.psnr_db == pytest.approx(20.0, abs=1e-3)
    assert apart.latents == pytest.approx(0.2)


def test_what_jumps_at_borders_is_found() -> None:
    steady = torch.arange(24).float()[:, None, None, None].expand(24, 3, 8, 8) / 100
    jumping = steady + (torch.arange(24) // 12).float()[:, None, None, None] / 10
    assert pops(_run(steady), 12) == pytest.approx(1.0, rel=1e-3)
    assert pops(_run(jumping), 12) == pytest.approx(11.0, rel=1e-2)


def test_the_plot_is_xml_and_names_every_plan() -> None:
    points = [
        Point(name=name, cost=cost, sync=0.8, psnr_db=30.0)
        for name, cost in (("plain", 1.0), ("<half>", 0.5))
    ]
    text = scatter("live & render", points)
    drawn = "".join(ElementTree.fromstring(text).itertext())  # noqa: S314 - our own text
    assert "<half>" in drawn
    assert "live & render" in drawn
