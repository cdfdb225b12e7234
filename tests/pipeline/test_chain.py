"""The chain: per-step lanes are the block-causal network, and schedules do not change numbers."""

from fractions import Fraction
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

from pipeline.chain import LocalChain
from pipeline.decode_stage import DecodeStage
from pipeline.denoise_stage import DenoiseStage
from pipeline.errors import PlanError
from pipeline.model import Model, load_model
from pipeline.plan import Plan, StageSpec, Step
from pipeline.plan_parse import load_plan
from pipeline.sampler import Denoiser, pure_noise
from pipeline.stage import ChunkWork, SessionInputs
from tests.support.tiny_model import SIZE_PX, build_tiny_model

pytestmark = pytest.mark.stream

NUM_CHUNKS = 6  # two more than the window holds, so the ring has wrapped
FRAMES = 3


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model(str(build_tiny_model(tmp_path_factory.mktemp("models") / "tiny")))


def session(model: Model, name: str = "a", seed: int = 5) -> SessionInputs:
    portrait = torch.rand(1, 3, SIZE_PX, SIZE_PX, generator=torch.Generator().manual_seed(1))
    return model.session_inputs(portrait * 2 - 1, session=name, seed=seed, fps=Fraction(25))


def works(inputs: SessionInputs, num_chunks: int = NUM_CHUNKS) -> list[ChunkWork]:
    """Chunks of noise with random speech and prior latents."""
    generator = torch.Generator().manual_seed(inputs.seed)
    grid = inputs.reference_BCTHW.shape[-2:]
    made = []
    for index in range(num_chunks):
        cond = torch.randn(4, FRAMES, *grid, generator=generator)
        made.append(
            ChunkWork(
                session=inputs.session,
                latent=pure_noise(inputs.seed, index, index * FRAMES, cond),
                audio_LCT=torch.randn(1, 14, 4 * FRAMES, generator=generator),
                cond_CTHW=cond,
            )
        )
    return made


@pytest.mark.parametrize("distance", [None, 15])
def test_each_steps_lane_equals_the_block_causal_network_on_that_steps_inputs(
    model: Model, distance: int | None
) -> None:
    plan = load_plan("live-avatar")
    denoiser = Denoiser(network=model.parts.dit, prediction="velocity", sink_distance=distance)
    inputs = session(model)
    stages = [DenoiseStage(denoiser, plan, index) for index in range(len(plan.stages))]
    for stage in stages:
        stage.prepare(inputs)
    seen: list[list[ChunkWork]] = [works(inputs)]
    for stage in stages:
        seen.append([stage.process(work) for work in seen[-1]])
    audio = torch.cat([work.audio_LCT for work in seen[0]], dim=-1)[None]
    cond = torch.cat([work.cond_CTHW for work in seen[0]], dim=1)[None]
    for step, before, after in zip(plan.steps, seen, seen[1:], strict=False):
        x = torch.cat([work.latent.latents_CTHW for work in before], dim=1)[None]
        y = torch.cat([work.latent.latents_CTHW for work in after], dim=1)[None]
        times = torch.full((1, x.shape[2]), 1000.0 * step.sigma_in)
        with torch.no_grad():
            velocity = model.parts.dit.forward_full(
                x, times, audio, inputs.reference_BCTHW, cond=cond, sink_distance=distance
            )
        assert velocity.std() > 0.01
        expected = x + (step.sigma_out - step.sigma_in) * velocity
        torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-5)


RENOISE = Plan(
    name="renoise",
    stages=(
        StageSpec(
            name="first",
            steps=(
                Step(sigma_in=1.0, sigma_out=0.8, rule="renoise"),
                Step(sigma_in=0.8, sigma_out=0.5, rule="renoise"),
            ),
        ),
        StageSpec(name="second", steps=(Step(sigma_in=0.5, sigma_out=0.0),)),
    ),
)


@pytest.mark.parametrize("name", ["pocket", "live-avatar", "renoise"])
def test_sequential_and_pipelined_schedules_give_the_same_bits(model: Model, name: str) -> None:
    plan = RENOISE if name == "renoise" else load_plan(name)
    made = {}
    for schedule in ("sequential", "pipelined"):
        chain = model.local_chain(plan, schedule=schedule)
        inputs = session(model)
        chain.prepare(inputs)
        pictures = [video for work in works(inputs) for video in chain.submit(work)]
        if schedule == "pipelined":
            assert len(pictures) == NUM_CHUNKS - len(plan.stages)
        pictures += chain.drain("a")
        assert [video.pts for video in pictures] == [12 * i for i in range(NUM_CHUNKS)]
        made[schedule] = torch.cat([torch.from_numpy(v.frames_THWC) for v in pictures])
    assert made["sequential"].float().std() > 1
    assert torch.equal(made["sequential"], made["pipelined"])


def test_where_the_steps_are_cut_into_stages_does_not_change_a_bit(model: Model) -> None:
    steps = load_plan("live-avatar").steps
    outputs = []
    for cuts in ([4], [1, 3], [2, 2], [1, 1, 1, 1]):
        stages, first = [], 0
        for count in cuts:
            stages.append(StageSpec(name=f"s{first}", steps=steps[first : first + count]))
            first += count
        chain = model.local_chain(Plan(name="cut", stages=tuple(stages)))
        inputs = session(model)
        chain.prepare(inputs)
        videos = [v for work in works(inputs) for v in chain.submit(work)]
        outputs.append(torch.cat([torch.from_numpy(v.frames_THWC) for v in videos]))
    assert all(torch.equal(outputs[0], output) for output in outputs[1:])


def test_sessions_on_one_chain_do_not_see_each_other(model: Model) -> None:
    plan = load_plan("live-avatar")
    alone = {}
    for name, seed in (("a", 5), ("b", 6)):
        chain = model.local_chain(plan, schedule="pipelined")
        inputs = session(model, name, seed)
        chain.prepare(inputs)
        videos = [v for work in works(inputs) for v in chain.submit(work)]
        alone[name] = [v.frames_THWC for v in videos + chain.drain(name)]
    chain = model.local_chain(plan, schedule="pipelined")
    together: dict[str, list[np.ndarray]] = {"a": [], "b": []}
    queues = {}
    for name, seed in (("a", 5), ("b", 6)):
        inputs = session(model, name, seed)
        chain.prepare(inputs)
        queues[name] = works(inputs)
    for pair in zip(queues["a"], queues["b"], strict=True):
        for work in pair:
            together[work.session] += [v.frames_THWC for v in chain.submit(work)]
    for name in ("b", "a"):
        together[name] += [v.frames_THWC for v in chain.drain(name)]
    for name, frames in alone.items():
        assert len(frames) == len(together[name]) == NUM_CHUNKS
        assert all((x == y).all() for x, y in zip(frames, together[name], strict=True))
    assert (alone["a"][0] != alone["b"][0]).any()


def test_a_session_can_be_forgotten_and_started_again(model: Model) -> None:
    chain = model.local_chain(load_plan("pocket"), schedule="pipelined")
    inputs = session(model)
    runs = []
    for _ in range(2):
        chain.prepare(inputs)
        runs.append([v.frames_THWC for w in works(inputs, 3) for v in chain.submit(w)])
        chain.reset("a")
    assert all((x == y).all() for x, y in zip(*runs, strict=True))
    chain.reset("nobody")
    chain.close()


def test_a_chunk_at_the_wrong_noise_level_is_refused(model: Model) -> None:
    denoiser = Denoiser(network=model.parts.dit, prediction="velocity", sink_distance=15)
    stage = DenoiseStage(denoiser, load_plan("live-avatar"), 1)
    inputs = session(model)
    stage.prepare(inputs)
    with pytest.raises(ValueError, match="run the steps in order"):
        stage.process(works(inputs, 1)[0])


@pytest.mark.parametrize("field", [{"adapter": "lips"}])
def test_a_plan_that_this_chain_cannot_run_is_refused(model: Model, field: dict[str, Any]) -> None:
    step = Step(sigma_in=1.0, sigma_out=0.0, **field)
    plan = Plan(name="big", stages=(StageSpec(name="s", steps=(step,)),))
    with pytest.raises(PlanError, match="plan big: step 0"):
        model.local_chain(plan)


@pytest.mark.parametrize("device", ["nonsense", "cuda:99", "meta", ""])
def test_a_device_that_is_not_here_is_refused(model: Model, device: str) -> None:
    step = Step(sigma_in=1.0, sigma_out=0.0)
    plan = Plan(name="far", stages=(StageSpec(name="s", steps=(step,), device=device),))
    with pytest.raises(PlanError, match=f"plan far: device '{device}' cannot be used") as refused:
        model.local_chain(plan)
    assert "\n" not in str(refused.value)


def test_a_decoder_elsewhere_is_refused(model: Model) -> None:
    step = Step(sigma_in=1.0, sigma_out=0.0)
    plan = Plan(name="far", stages=(StageSpec(name="s", steps=(step,)),), decoder="cpu")
    with pytest.raises(PlanError, match="decodes where the model is"):
        model.local_chain(plan)


def test_stages_on_one_device_share_one_sink(model: Model) -> None:
    inputs = session(model)
    chain = model.local_chain(load_plan("live-avatar"))
    assert isinstance(chain, LocalChain)
    network = model.parts.dit
    with mock.patch.object(network, "prefill_sink", wraps=network.prefill_sink) as prefill:
        chain.prepare(inputs)
    assert prefill.call_count == 1


def test_the_decoder_rounds_to_the_nearest_level(model: Model) -> None:
    class Ramp:
        latent_channels, frames_per_latent = 1, 1

        def start(self, image_BCHW: torch.Tensor) -> object:
            return image_BCHW

        def decode(self, latents_BCTHW: torch.Tensor, _state: object) -> torch.Tensor:
            return latents_BCTHW.expand(1, 3, -1, -1, -1)

    stage = DecodeStage(Ramp())  # type: ignore[arg-type]  # only what is called
    stage.prepare(session(model))
    levels = torch.arange(256) / 127.5 - 1
    values = torch.cat([levels, torch.tensor([-3.0, 3.0])]).view(1, 1, 1, -1)
    work = works(session(model), 1)[0]
    latent = work.latent.__class__(latents_CTHW=values, index=0, start_frame=0, sigma=0.0)
    made = stage.process(ChunkWork(session="a", latent=latent, audio_LCT=values, cond_CTHW=values))
    assert made.frames_THWC[0, 0, :, 0].tolist() == [*range(256), 0, 255]
