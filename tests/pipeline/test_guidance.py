"""Guidance on sound: what weights must give, and that its second ring goes wherever a chunk goes.

Shape legend: C = channels, T = frames, H, W = rows and columns.
"""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import pytest
import torch

from pipeline.chain import LocalChain, Schedule
from pipeline.cuts import cut_at
from pipeline.denoise_stage import DenoiseStage
from pipeline.guidance import SILENCE_S, guided, silence_for
from pipeline.model import load_model
from pipeline.plan import Plan, StageSpec
from pipeline.sampler import Denoiser
from pipeline.stage import ChunkWork
from pipeline.window_spec import WindowSpec
from tests.support.small_chain import (
    CONFIG,
    CUTS,
    PLAN,
    PlainCodec,
    denoiser,
    run,
    small_inputs,
    small_works,
)
from tests.support.toy_stages import same

pytestmark = pytest.mark.stream

INPUTS = small_inputs("a", 5)
WORKS = small_works(INPUTS, 6)  # rings hold four
SILENCE = torch.randn(1, CONFIG.audio_dim, generator=torch.Generator().manual_seed(8))


def weighted(*weights: float) -> Plan:
    """The small plan with these weights."""
    steps = tuple(replace(s, guidance=w) for s, w in zip(PLAN.steps, weights, strict=True))
    return replace(PLAN, stages=(StageSpec(name="all", steps=steps),))


def listening() -> Denoiser:
    return replace(denoiser(), silence_LC=SILENCE)


def chain_of(plan: Plan, schedule: Schedule = "sequential", num_stages: int = 1) -> LocalChain:
    cut = cut_at(plan, CUTS[num_stages])
    return LocalChain.from_plan(cut, listening(), PlainCodec(), schedule=schedule)  # type: ignore[arg-type]  # its state is its own kind


def latents(plan: Plan, works: Sequence[ChunkWork]) -> list[torch.Tensor]:
    stage = DenoiseStage(listening(), plan, 0)
    stage.prepare(INPUTS)
    return [stage.process(work).latent.latents_CTHW for work in works]


def silenced(works: Sequence[ChunkWork]) -> list[ChunkWork]:
    """The same chunks, in which nobody speaks."""
    return [
        replace(work, audio_LCT=SILENCE[..., None].expand_as(work.audio_LCT).clone())
        for work in works
    ]


def test_weights_are_places_on_a_line_from_silence_through_speech() -> None:
    silent, heard = torch.zeros(3), torch.tensor([1.0, 2.0, -4.0])
    assert torch.equal(guided(silent, heard, 0.0), silent)
    assert torch.equal(guided(silent, heard, 1.0), heard)
    assert torch.equal(guided(silent, heard, 2.5), 2.5 * heard)


def test_weight_zero_is_a_silent_session_ring_and_all() -> None:
    """Six chunks: the silent branch must have looked back on its own past, not on the speech's."""
    guided_away = latents(weighted(0.0, 0.0, 0.0, 0.0), WORKS)
    for mine, theirs in zip(guided_away, latents(PLAN, silenced(WORKS)), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5)
    spoken = latents(PLAN, WORKS)
    assert (spoken[-1] - guided_away[-1]).abs().max() > 1e-3


def test_weight_one_asks_once_and_is_the_plain_plan_to_the_bit() -> None:
    plain, explicit = chain_of(PLAN), chain_of(weighted(1.0, 1.0, 1.0, 1.0))
    assert same(run(plain, INPUTS, WORKS), run(explicit, INPUTS, WORKS))
    one, two = chain_of(PLAN), chain_of(weighted(1.0, 2.0, 1.0, 1.0))
    for chain, evaluations in ((one, 4), (two, 5)):
        chain.prepare(INPUTS)
        chain.submit(WORKS[0])
        assert chain.num_evaluations("a") == evaluations
    assert two.memory_bytes("a") > one.memory_bytes("a")


def test_speech_that_is_silence_leaves_every_weight_the_same() -> None:
    once = latents(PLAN, silenced(WORKS))
    for mine, theirs in zip(
        latents(weighted(3.0, 2.0, 5.0, 1.0), silenced(WORKS)), once, strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("schedule", "num_stages"), [("pipelined", 1), ("pipelined", 3), ("sequential", 4)]
)
def test_every_placement_gives_the_same_pictures(schedule: Schedule, num_stages: int) -> None:
    plan = weighted(2.0, 1.0, 3.0, 0.5)
    expected = run(chain_of(plan), INPUTS, WORKS)
    assert same(run(chain_of(plan, schedule, num_stages), INPUTS, WORKS), expected)


def test_lanes_of_different_weights_give_the_same_pictures_but_for_rounding() -> None:
    plan = weighted(2.0, 1.0, 3.0, 0.5)
    expected = run(chain_of(plan), INPUTS, WORKS)
    batched = run(chain_of(plan, "lanes"), INPUTS, WORKS)
    for mine, theirs in zip(batched, expected, strict=True):
        assert abs(mine.frames_THWC.astype(int) - theirs.frames_THWC.astype(int)).max() <= 1


def test_an_export_takes_the_silent_ring_along() -> None:
    plan = weighted(2.0, 1.0, 3.0, 0.5)
    expected = run(chain_of(plan), INPUTS, WORKS)
    first, second = chain_of(plan, num_stages=2), chain_of(plan, num_stages=4)
    first.prepare(INPUTS)
    made = [video for work in WORKS[:3] for video in first.submit(work)]
    second.prepare(INPUTS)
    second.import_state("a", first.export_state("a"))
    made += [video for work in WORKS[3:] for video in second.submit(work)]
    assert same([*made, *second.drain("a")], expected)


def test_windows_are_guided_too() -> None:
    windows = WindowSpec(length=6, overlap=3)
    plain = replace(PLAN, windows=windows, mode="render", window_frames=12)
    away = replace(weighted(0.0, 0.0, 0.0, 0.0), windows=windows, mode="render", window_frames=12)
    silent = run(chain_of(plain), INPUTS, silenced(WORKS))
    assert same(run(chain_of(away), INPUTS, WORKS), silent)
    assert not same(run(chain_of(plain), INPUTS, WORKS), silent)


def test_the_silence_of_a_model_is_what_its_encoder_hears_in_the_middle_of_nothing() -> None:
    model = load_model("pocket")
    assert silence_for(PLAN, model.make_encoder) is None
    silence_LC = silence_for(weighted(2.0, 1.0, 1.0, 1.0), model.make_encoder)
    encoder = model.make_encoder()
    assert silence_LC is not None
    assert silence_LC.shape == (encoder.num_layers, encoder.channels)
    assert encoder.lookahead_s < Fraction(SILENCE_S)
    assert model.denoiser(weighted(2.0, 1.0, 1.0, 1.0)).silence_LC is not None
