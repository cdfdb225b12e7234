"""The rolling window: one pass a stride, the bits of the passes written out one by one."""

from dataclasses import replace

import pytest
import torch

from pipeline.chain import LocalChain
from pipeline.errors import PlanError
from pipeline.plan import Plan, PluginSpec, Step
from pipeline.plugins.registry import make_plugins
from pipeline.window_spec import WindowSpec
from tests.support.small_chain import PlainCodec, denoiser, levels_apart, small_inputs
from tests.support.windowed_chain import (
    WindowOfClip,
    clip_of,
    pictures,
    strides_of_work,
    through,
    windowed_plan,
    windowed_stages,
)
from video.noise import TIME_SCALE

pytestmark = pytest.mark.unit

ROLLING = WindowSpec(length=12, blend="rolling")


def chain_of(plan: Plan) -> LocalChain:
    return LocalChain.from_plan(plan, denoiser(), PlainCodec())  # type: ignore[arg-type]  # see small_chain.decode_stage


def rolled(clip: WindowOfClip, num_strides: int) -> torch.Tensor:
    """The clip by the definition: at pass p stride n is at step p - n, if that is a step."""
    num_steps, size = len(clip.plan.steps), clip.plan.frames_per_chunk
    strides = list(torch.split(clip.noise(), size, dim=1))
    for number in range(num_strides + num_steps - 1):
        there = [n for n in range(num_strides) if 0 <= number - n < num_steps]
        start = there[0] * size
        levels = [clip.plan.steps[number - n].sigma_in for n in there]
        times = torch.tensor(levels, dtype=torch.float64).repeat_interleave(size)
        x_CTHW = torch.cat([strides[n] for n in there], dim=1)
        t_BF = (TIME_SCALE * times).float()[None]
        velocities = torch.split(clip.velocity_at(t_BF, start, x_CTHW), size, dim=1)
        for n, velocity in zip(there, velocities, strict=True):
            strides[n] = clip.after(number - n, n * size, strides[n], velocity)
    return torch.cat(strides, dim=1)


def test_a_stage_gives_the_passes_to_the_bit() -> None:
    plan, inputs = windowed_plan(ROLLING), small_inputs("a", 31)
    works = strides_of_work(inputs, plan, 6)
    stages = windowed_stages(plan)
    made = through(stages, inputs, works)
    assert [work.is_void for work in made] == [True] * 3 + [False] * 6
    assert torch.equal(clip_of(made), rolled(WindowOfClip(inputs, plan, works), 6))
    assert stages[0].num_evaluations("a") == 6 + 3


def test_a_clip_shorter_than_the_window_comes_out() -> None:
    plan, inputs = windowed_plan(ROLLING), small_inputs("a", 32)
    works = strides_of_work(inputs, plan, 2)
    made = clip_of(through(windowed_stages(plan), inputs, works))
    assert torch.equal(made, rolled(WindowOfClip(inputs, plan, works), 2))


@pytest.mark.parametrize("at", [2, 7])
def test_a_session_goes_on_elsewhere(at: int) -> None:
    plan, inputs = windowed_plan(ROLLING), small_inputs("a", 33)
    works = strides_of_work(inputs, plan, 6)
    expected = pictures(chain_of(plan), inputs, works)
    first, second = chain_of(plan), chain_of(plan)
    first.prepare(inputs)
    second.prepare(inputs)
    made = [video for work in works[:at] for video in first.submit(work)]
    second.import_state("a", first.export_state("a"))
    made += [video for work in works[at:] for video in second.submit(work)]
    assert levels_apart([video for video in made if video.num_frames], expected) == 0


def test_what_cannot_go_in_one_pass_is_refused() -> None:
    plan = windowed_plan(ROLLING)
    with pytest.raises(ValueError, match="use one stage"):
        windowed_plan(ROLLING, [2])
    low = (Step(sigma_in=1.0, sigma_out=0.5, rule="renoise", resolution=0.5),)
    with pytest.raises(ValueError, match="one resolution"):
        windowed_plan(ROLLING, steps=(*low, Step(sigma_in=0.5, sigma_out=0.0)))
    other = replace(plan, plugins=(PluginSpec(name="omegance"),))
    with pytest.raises(PlanError, match="leave out plug-ins"):
        windowed_stages(other, replace(denoiser(), plugins=make_plugins(other)))
