"""What a preview shows is what the whole plan's step estimates, and no later step is run."""

from dataclasses import replace

import pytest
import torch

from pipeline.errors import PlanError
from pipeline.plan import StageSpec, Step
from pipeline.plan_parse import load_plan
from pipeline.plugins.preview import ESTIMATE, estimate_in
from pipeline.plugins.registry import make_plugins
from pipeline.preview_chain import PreviewStage, as_stream, preview_plan
from pipeline.stage import ChunkWork
from tests.support.plugged import every_placement, latents_of, plan_of, plugged_stage
from tests.support.small_chain import CONFIG, PlainCodec, small_inputs, small_works
from tests.support.toy_stages import same

pytestmark = pytest.mark.stream

SIGMAS = (1.0, 0.8, 0.5, 0.2, 0.0)
INPUTS = small_inputs("a", 5)
WORKS = small_works(INPUTS, 4)
LOW = replace(
    plan_of(SIGMAS),
    stages=(
        StageSpec(
            name="all",
            steps=(
                Step(sigma_in=1.0, sigma_out=0.6, rule="renoise", resolution=0.5),
                Step(sigma_in=0.6, sigma_out=0.0),
            ),
        ),
    ),
)


def estimates(step: int) -> list[ChunkWork]:
    stage = plugged_stage(preview_plan(plan_of(SIGMAS), step))
    stage.prepare(INPUTS)
    return [stage.process(work) for work in WORKS]


@pytest.mark.parametrize("step", [0, 2, 3])
def test_later_steps_are_not_run(step: int) -> None:
    stage = plugged_stage(preview_plan(plan_of(SIGMAS), step))
    stage.prepare(INPUTS)
    stage.process(WORKS[0])
    assert stage.num_evaluations("a") == step + 1


def test_the_estimate_of_the_last_step_is_the_result() -> None:
    whole = latents_of(plan_of(SIGMAS), INPUTS, WORKS)
    for made, wanted in zip(estimates(3), whole, strict=True):
        torch.testing.assert_close(estimate_in(made.carried), wanted, atol=1e-6, rtol=0)


def test_an_earlier_estimate_is_where_that_step_would_end_if_it_were_the_last() -> None:
    short = latents_of(plan_of((1.0, 0.8, 0.0)), INPUTS, WORKS[:1])
    torch.testing.assert_close(estimate_in(estimates(1)[0].carried), short[0], atol=1e-6, rtol=0)


def test_the_estimate_of_a_low_step_is_shown_at_full_size() -> None:
    plan = preview_plan(LOW, 0)
    stage = plugged_stage(plan)
    inputs = small_inputs("a", 5, size=(8, 12))
    stage.prepare(inputs)
    (work,) = small_works(inputs, 1)
    low = replace(work, latent=replace(work.latent, latents_CTHW=torch.randn(4, 3, 4, 6)))
    assert stage.process(low).carried[ESTIMATE].shape == (4, 3, 8, 12)


def test_keeping_estimates_changes_no_picture_wherever_the_plan_is_cut() -> None:
    plain = every_placement(plan_of(SIGMAS), INPUTS, WORKS)[0]
    kept = every_placement(plan_of(SIGMAS, preview={"step": 1}), INPUTS, WORKS)
    assert all(same(made, plain) for made in kept)


def test_a_chunk_without_an_estimate_is_refused() -> None:
    stage = PreviewStage(PlainCodec())  # type: ignore[arg-type]  # its state is its own kind
    stage.prepare(INPUTS)
    with pytest.raises(ValueError, match="needs the plug-in preview"):
        stage.process(WORKS[0])


@pytest.mark.parametrize(("step", "complaint"), [(4, "step 4 of 4"), (-1, "step -1 is negative")])
def test_steps_that_are_none_are_refused(step: int, complaint: str) -> None:
    with pytest.raises(PlanError, match=complaint):
        make_plugins(plan_of(SIGMAS, preview={"step": step}))


def test_a_plan_of_windows_is_shown_as_a_stream() -> None:
    plan = load_plan("render-fast")
    shown = as_stream(plan, CONFIG)
    assert shown.steps == plan.steps
    assert (shown.windows, shown.frames_per_chunk, shown.window_frames) == (None, 3, 12)
    preview_plan(shown, 4)
    live = plan_of(SIGMAS)
    assert as_stream(live, CONFIG) is live
