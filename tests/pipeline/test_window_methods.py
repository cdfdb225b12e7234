"""Windows beside other methods: forecasts, low resolutions, and what does not go together."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch

from pipeline.errors import PlanError
from pipeline.plan import Plan, PluginSpec, Step
from pipeline.plugins.contract import Decision
from pipeline.plugins.registry import make_plugins
from pipeline.sampler import Denoiser
from pipeline.window_rules import require_windows
from pipeline.window_spec import WindowSpec
from pipeline.windows import batch
from tests.support.small_chain import CONFIG, denoiser, small_inputs
from tests.support.windowed_chain import (
    WindowOfClip,
    clip_of,
    strides_of_work,
    through,
    windowed_plan,
    windowed_stages,
)
from video.hinge import level_before
from video.noise import shifted_sigmas

pytestmark = pytest.mark.unit

SPEC = WindowSpec(length=9, overlap=6)
FORECAST: dict[str, Any] = {"order": 0, "interval": 3, "warmup": 1, "target": "velocity"}
LOW_THEN_FULL = (
    Step(sigma_in=1.0, sigma_out=0.88, resolution=0.5),
    Step(sigma_in=0.88, sigma_out=level_before(0.8, 2), resolution=0.5),
    Step(sigma_in=0.8, sigma_out=0.5, rule="renoise"),
    Step(sigma_in=0.5, sigma_out=0.0),
)


def forecast_plan(spec: WindowSpec, cuts: list[int], **options: Any) -> Plan:
    levels = pairwise(shifted_sigmas(8, 3.0))
    steps = [Step(sigma_in=a, sigma_out=b, forecast=True) for a, b in levels]
    plugins = (PluginSpec(name="forecast", options={**FORECAST, **options}),)
    return replace(windowed_plan(spec, cuts, steps), plugins=plugins)


def with_plugins(plan: Plan) -> Denoiser:
    return replace(denoiser(), plugins=make_plugins(plan))


def test_forecasts_of_a_window_are_its_own_and_all_windows_skip_the_same_steps() -> None:
    """Order 0 repeats the window's velocity; the whole clip at once says what that gives."""
    plan, inputs = forecast_plan(SPEC, [3, 4]), small_inputs("a", 21)
    works = strides_of_work(inputs, plan, 4)
    network = with_plugins(plan)
    (plugin,) = network.plugins
    marks, clip = plugin.marks(plan.legs(0)), WindowOfClip(inputs, plan, works)
    assert Decision.SKIP in marks
    seen: dict[int, torch.Tensor] = {}

    def run(step: int, start: int, x_CTHW: torch.Tensor) -> torch.Tensor:
        if marks[step] is Decision.FULL:
            seen[start] = clip.velocity(step, start, x_CTHW)
        return clip.after(step, start, x_CTHW, seen[start])

    starts = range(0, 2 * 3, 3)
    expected = batch(clip.noise()[:, : 3 + SPEC.length], 8, starts, SPEC.length, run)
    stages = windowed_stages(plan, network)
    made = clip_of(through(stages, inputs, works))
    assert torch.equal(made[:, : expected.shape[1]], expected)
    assert sum(s.num_evaluations("a") for s in stages) == 2 * marks.count(Decision.FULL)


@pytest.mark.parametrize("blend", ["exact", "causal"])
def test_a_forecast_goes_with_its_window_from_stage_to_stage(blend: Any) -> None:
    spec, inputs = replace(SPEC, blend=blend), small_inputs("a", 22)
    clips = []
    for cuts in ([], [2, 3, 5]):
        plan = forecast_plan(spec, cuts, order=1, target="clean")
        stages = windowed_stages(plan, with_plugins(plan))
        clips.append(clip_of(through(stages, inputs, strides_of_work(inputs, plan, 4))))
    assert torch.equal(*clips)


@pytest.mark.parametrize("blend", ["exact", "causal"])
def test_windows_cross_resolutions_alike_wherever_they_are_cut(blend: Any) -> None:
    """A frame that two windows share draws one noise at the hinge."""
    inputs = small_inputs("a", 23, (8, 12))
    clips = []
    for cuts in ([], [1, 2, 3]):
        plan = windowed_plan(replace(SPEC, blend=blend), cuts, LOW_THEN_FULL)
        works = strides_of_work(inputs, plan, 4)
        clips.append(clip_of(through(windowed_stages(plan), inputs, works)))
    assert torch.equal(*clips)
    assert clips[0].shape[1:] == (12, 8, 12)


def test_a_network_that_sees_the_whole_window_finds_it_at_frame_0() -> None:
    """Two windows of the same latents, speech and prior become the same, wherever they lie."""
    spec = WindowSpec(length=6, bidirectional=True)
    plan, inputs = (
        windowed_plan(spec, steps=[Step(sigma_in=1.0, sigma_out=0.0)]),
        small_inputs("a", 24),
    )
    first = strides_of_work(inputs, plan, 1)[0]
    works = [
        replace(first, latent=replace(first.latent, index=i, start_frame=6 * i)) for i in range(3)
    ]
    made = clip_of(through(windowed_stages(plan), inputs, works))
    # Window 0 has no speech before it, the others have the same.
    assert torch.equal(made[:, 6:12], made[:, 12:18])
    causal = replace(plan, windows=replace(spec, bidirectional=False))
    other = clip_of(through(windowed_stages(causal), inputs, works))
    assert not torch.allclose(made, other, atol=1e-3)


def test_plugins_that_do_not_suit_windows_are_refused() -> None:
    shifted = WindowSpec(length=9, blend="shifted", shift=3)
    plan = forecast_plan(shifted, [])
    with pytest.raises(PlanError, match="use exact or causal"):
        require_windows(with_plugins(plan), plan)
    with pytest.raises(PlanError, match="has no windows"):
        require_windows(denoiser(), replace(plan, windows=None, frames_per_chunk=3))
    assert CONFIG.frames_per_chunk == 3
