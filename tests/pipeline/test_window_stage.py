"""Stages over windows: the bits of the whole clip done at once, wherever the plan is cut."""

from dataclasses import replace

import pytest
import torch

from pipeline.chain import LocalChain, Schedule
from pipeline.errors import PlanError
from pipeline.window_spec import WindowSpec
from pipeline.windows import batch, batch_causal, batch_shifted, shifted_bounds
from tests.support.small_chain import (
    PlainCodec,
    denoiser,
    levels_apart,
    portrait,
    small_inputs,
)
from tests.support.windowed_chain import (
    WindowOfClip,
    clip_of,
    pictures,
    strides_of_work,
    through,
    windowed_plan,
    windowed_stages,
)

pytestmark = pytest.mark.unit

CUTS: dict[int, list[int]] = {1: [], 2: [2], 3: [1, 2], 4: [1, 2, 3]}
# Overlaps below half a window, above it, of whole strides, and none.
SPECS = [
    WindowSpec(length=12, overlap=3),
    WindowSpec(length=9, overlap=6),
    WindowSpec(length=15, overlap=9),
    WindowSpec(length=6, overlap=3, blend_first=False),
    WindowSpec(length=6),
]


def expected_clip(spec: WindowSpec, clip: WindowOfClip, num_strides: int) -> torch.Tensor:
    """The whole clip at once, by the pure functions."""
    stride, num_steps = clip.plan.frames_per_chunk, len(clip.plan.steps)
    if spec.blend == "shifted":
        num_frames = stride * num_strides
        bounds = [shifted_bounds(num_frames, stride, spec.offset(k)) for k in range(num_steps)]
        return batch_shifted(clip.noise(), bounds, clip)
    starts = range(0, stride * (num_strides - spec.held_back), stride)
    whole = batch if spec.blend == "exact" else batch_causal
    noise_CTHW = clip.noise()[:, : starts[-1] + spec.length]
    return whole(noise_CTHW, num_steps, starts, spec.length, clip, blend_first=spec.blend_first)


@pytest.mark.parametrize(
    "spec",
    [
        *SPECS,
        WindowSpec(length=12, overlap=3, blend="causal"),
        WindowSpec(length=9, overlap=6, blend="causal"),
        WindowSpec(length=6, blend="shifted", shift=3),
        WindowSpec(length=9, blend="shifted", shift=6),
    ],
)
def test_a_stage_gives_the_whole_clip_to_the_bit(spec: WindowSpec) -> None:
    plan, inputs = windowed_plan(spec), small_inputs("a", 5)
    works = strides_of_work(inputs, plan, 5)
    made = through(windowed_stages(plan), inputs, works)
    expected = expected_clip(spec, WindowOfClip(inputs, plan, works), 5)
    assert [work.latent.index for work in made] == list(range(len(works)))
    assert sum(work.is_void for work in made) == spec.lag(4)
    clip = clip_of(made)
    assert clip.shape[1] == 5 * plan.frames_per_chunk
    assert torch.equal(clip[:, : expected.shape[1]], expected)


@pytest.mark.parametrize(
    ("spec", "schedule"),
    [
        (WindowSpec(length=9, overlap=3), "sequential"),
        (WindowSpec(length=9, overlap=6), "pipelined"),
        (WindowSpec(length=9, overlap=6, blend="causal"), "lanes"),
        (WindowSpec(length=6, blend="shifted", shift=3), "pipelined"),
    ],
)
def test_cuts_and_schedules_change_no_picture(spec: WindowSpec, schedule: Schedule) -> None:
    inputs = small_inputs("a", 6)
    shown = {}
    for num_stages, cuts in CUTS.items():
        plan = windowed_plan(spec, cuts)
        chain = LocalChain.from_plan(plan, denoiser(), PlainCodec(), schedule=schedule)  # type: ignore[arg-type]  # see small_chain.decode_stage
        shown[num_stages] = pictures(chain, inputs, strides_of_work(inputs, plan, 4))
        assert chain.num_evaluations("a") == len(plan.steps) * evaluated(spec, 4)
    assert (
        sum(video.num_frames for video in shown[1]) == 4 * 4 * windowed_plan(spec).frames_per_chunk
    )
    assert all(levels_apart(made, shown[1]) == 0 for made in shown.values())


def evaluated(spec: WindowSpec, num_strides: int) -> float:
    """Windows of a step, on average over the steps."""
    cut = sum(spec.offset(step) > 0 for step in range(4)) / 4
    return num_strides - spec.held_back + cut


@pytest.mark.parametrize(
    ("spec", "at"),
    [
        (WindowSpec(length=9, overlap=6), 1),
        (WindowSpec(length=9, overlap=6), 6),
        (WindowSpec(length=9, overlap=6, blend="causal"), 4),
        (WindowSpec(length=6, blend="shifted", shift=3), 3),
    ],
)
def test_a_session_goes_on_elsewhere_under_another_cut(spec: WindowSpec, at: int) -> None:
    inputs, codec = small_inputs("a", 7), PlainCodec()
    plans = [windowed_plan(spec, cuts) for cuts in ([1, 2], [2])]
    works = strides_of_work(inputs, plans[0], 4)
    first, second, whole = (
        LocalChain.from_plan(plan, denoiser(), codec, schedule=schedule)  # type: ignore[arg-type]  # see small_chain.decode_stage
        for plan, schedule in zip(
            (*plans, plans[0]), ("pipelined", *["sequential"] * 2), strict=True
        )
    )
    expected = pictures(whole, inputs, works)
    first.prepare(inputs)
    made = [video for work in works[:at] for video in first.submit(work)]
    second.prepare(inputs)
    second.import_state("a", first.export_state("a"))
    made += [video for work in works[at:] for video in second.submit(work)]
    made += second.drain("a")
    assert levels_apart([video for video in made if video.num_frames], expected) == 0


def test_another_reference_shows_from_the_window_that_begins_with_it() -> None:
    spec = WindowSpec(length=9, overlap=3)
    plan, inputs = windowed_plan(spec, [2]), small_inputs("a", 8)
    works = strides_of_work(inputs, plan, 4)
    other = PlainCodec().encode_reference(portrait(99))
    changed = [replace(w, reference_BCTHW=other if i == 2 else None) for i, w in enumerate(works)]
    before = clip_of(through(windowed_stages(plan), inputs, works))
    after = clip_of(through(windowed_stages(plan), inputs, changed))
    reached = 2 * 6 + 3 - 3 - 9  # each later step lets window 1 hear of window 2's head
    assert torch.equal(before[:, :reached], after[:, :reached])
    assert not torch.equal(before[:, 12:18], after[:, 12:18])


def test_memory_holds_what_the_hold_back_says_and_is_given_back() -> None:
    spec = WindowSpec(length=9, overlap=6)
    plan, inputs = windowed_plan(spec), small_inputs("a", 9)
    (stage,) = windowed_stages(plan)
    stage.prepare(inputs)
    empty, sizes = stage.memory_bytes("a"), []
    for work in strides_of_work(inputs, plan, 12):
        stage.process(work)
        sizes.append(stage.memory_bytes("a") - empty)
    assert max(sizes) == sizes[9] == sizes[11]
    stage.reset("a")
    assert stage.memory_bytes("a") == 0


def test_live_sessions_and_unfit_windows_are_refused() -> None:
    plan = windowed_plan(WindowSpec(length=9, overlap=3))
    (stage,) = windowed_stages(plan)
    with pytest.raises(PlanError, match="without windows for live"):
        stage.prepare(replace(small_inputs("a", 1), live=True))
    with pytest.raises(PlanError, match="length 10 is no whole number"):
        windowed_stages(windowed_plan(WindowSpec(length=10, overlap=4)))
    with pytest.raises(PlanError, match="set it to 12"):
        windowed_stages(replace(plan, window_frames=9))
