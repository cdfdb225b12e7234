"""Clips finished again from a level: what the level leaves, and where motion is settled."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
import torch

from audio.chunk import AudioChunk
from pipeline.calibration import (
    Calibrator,
    Clip,
    LevelLikeness,
    finishing_plan,
    level_grid,
    mean_likeness,
    settled_level,
)
from pipeline.errors import PlanError
from pipeline.model import load_model
from pipeline.plan import Plan, StageSpec, Step
from pipeline.plan_parse import load_plan
from pipeline.segments import Segments
from tests.support.tiny_model import build_tiny_model

pytestmark = pytest.mark.stream

POCKET = load_plan("pocket")
RATE = 16_000


@cache
def calibrator() -> Calibrator:
    return Calibrator(load_model(str(build_tiny_model(Path(mkdtemp()) / "tiny"))), POCKET)


@cache
def clip() -> Clip:
    portrait = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    samples = np.random.default_rng(2).normal(size=RATE).astype(np.float32) * 0.1
    sound = [AudioChunk(samples_T=samples, sample_rate=RATE, pts=0)]
    return calibrator().make(portrait, sound, rate=RATE, seed=4)


def level(sigma: float, motion: float, face: float | None = None) -> LevelLikeness:
    return LevelLikeness(sigma=sigma, motion=motion, flow=0.1, detail=0.5, face=face)


def test_motion_is_settled_at_the_largest_level_that_keeps_it() -> None:
    curve = [level(0.2, 1.0), level(0.4, 0.95), level(0.6, 0.9), level(0.8, 0.89)]
    assert settled_level(curve) == 0.6
    assert settled_level(curve[3:]) is None
    assert settled_level([level(1.0, 0.95)]) == 1.0


def test_levels_end_at_pure_noise() -> None:
    assert level_grid(4) == (0.25, 0.5, 0.75, 1.0)
    assert len(level_grid(20)) == 20


def test_means_leave_out_what_was_not_measured() -> None:
    assert mean_likeness([level(0.5, 0.8), level(0.5, 0.6)]).motion == pytest.approx(0.7)
    assert mean_likeness([level(0.5, 0.8), level(0.5, 0.6)]).face is None
    assert mean_likeness([level(0.5, 0.8, 1.0), level(0.5, 0.6, 0.0)]).face == 0.5


@pytest.mark.parametrize("sigma", [0.3, 0.65, 0.9, 1.0])
def test_a_clip_is_finished_by_the_plans_levels_below(sigma: float) -> None:
    plan = finishing_plan(POCKET, sigma)
    steps = plan.stages[-1].steps
    below = [s.sigma_in for s in POCKET.steps if s.sigma_in < sigma]
    assert [step.sigma_in for step in steps] == [sigma, *below]
    assert len(plan.stages) == (1 if sigma == 1.0 else 2)


def test_segments_give_the_adapter_of_the_level_where_a_clip_begins_again() -> None:
    segmented = replace(POCKET, segments=Segments(t_mid=0.5, above="m", below="f"))
    assert [s.adapter for s in segmented.steps] == ["m"] * 4
    assert [s.adapter for s in finishing_plan(segmented, 0.4).stages[-1].steps] == ["f"]
    assert [s.adapter for s in finishing_plan(segmented, 0.6).stages[-1].steps] == ["m"]


def test_a_clip_is_what_a_render_makes_of_it() -> None:
    made = clip()
    assert made.frames_THWC.shape == (36, 64, 64, 3)
    assert made.latents().shape == (4, 9, 8, 8)
    assert [work.latent.sigma for work in made.works] == [0.0] * 3
    assert not any(torch.equal(a.latent.latents_CTHW, b.latent.latents_CTHW)
                   for a, b in zip(made.works, made.works[1:], strict=False))  # fmt: skip


def test_what_is_noised_less_comes_out_more_alike() -> None:
    wanted = clip().latents()
    apart = []
    for sigma in (0.02, 0.3, 0.7, 1.0):
        again = calibrator().remake(clip(), sigma)
        assert again.frames_THWC.shape == clip().frames_THWC.shape
        apart.append(float((again.latents() - wanted).std()))
    assert apart == sorted(apart)
    assert apart[0] < 0.1 * apart[-1]


def test_the_noise_is_other_and_the_same_each_time() -> None:
    again = calibrator().remake(clip(), 0.6)
    assert torch.equal(again.latents(), calibrator().remake(clip(), 0.6).latents())
    assert not torch.equal(calibrator().remake(clip(), 1.0).latents(), clip().latents())


def test_clips_are_compared_in_what_their_codec_has() -> None:
    same = calibrator().compare(clip(), clip(), 0.5)
    assert (same.sigma, same.face) == (0.5, None)
    assert same.motion == same.flow == pytest.approx(1.0)
    assert same.detail == pytest.approx(1.0)
    assert calibrator().compare(clip(), calibrator().remake(clip(), 1.0), 1.0).motion < 0.9


def test_a_plan_of_several_resolutions_is_refused() -> None:
    step = Step(sigma_in=1.0, sigma_out=0.0, guidance=2.0)
    plan = Plan(name="two", stages=(StageSpec(name="s", steps=(step,)),))
    with pytest.raises(PlanError, match="plan two: step 0 sets resolution or guidance"):
        Calibrator(load_model(str(build_tiny_model(Path(mkdtemp()) / "tiny"))), plan)


def test_where_latents_are_motion_the_way_of_the_head_decides() -> None:
    """The flow of these pictures says nothing: both clips show the same."""
    model = load_model("pocket")
    latents = torch.randn(32, 6, 8, 8, generator=torch.Generator().manual_seed(1))
    other = torch.cat([-latents[:12], latents[12:]])
    one, two = (
        replace(clip(), works=(replace(w, latent=replace(w.latent, latents_CTHW=values)),))
        for w, values in ((clip().works[0], latents), (clip().works[0], other))
    )
    alike = Calibrator(model, POCKET).compare(one, two, 0.5)
    assert alike.motion == pytest.approx(-1.0)
    assert alike.flow == pytest.approx(1.0)
    assert alike.face == pytest.approx(1.0)
