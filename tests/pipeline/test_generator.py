"""The generator: lengths, seeds, constant state, and going on in another process."""

import subprocess
import sys
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from audio.align import num_frames
from audio.chunk import AudioChunk
from audio.source import ArraySource
from pipeline.chain import Schedule
from pipeline.generator import AvatarGenerator
from pipeline.model import Model, load_model
from pipeline.plan_parse import load_plan
from pipeline.session_state import SessionState
from pipeline.sync import Pair
from tests.support.tiny_model import SIZE_PX, build_tiny_model

pytestmark = pytest.mark.stream


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model(str(build_tiny_model(tmp_path_factory.mktemp("models") / "tiny")))


@pytest.fixture(scope="module")
def portrait() -> torch.Tensor:
    return torch.rand(1, 3, SIZE_PX, SIZE_PX, generator=torch.Generator().manual_seed(1)) * 2 - 1


def speech(seconds: float, rate: int = 16000) -> list[AudioChunk]:
    rng = np.random.default_rng(2)
    samples_T = (0.1 * rng.standard_normal(round(seconds * rate))).astype(np.float32)
    return list(ArraySource(samples_T, rate).chunks())


def frames_of(pairs: list[Pair]) -> np.ndarray:
    return np.concatenate([video.frames_THWC for video, _ in pairs])


def sound_of(pairs: list[Pair]) -> np.ndarray:
    return np.concatenate([audio.samples_T for _, audio in pairs])


def generate(
    model: Model, portrait: torch.Tensor, sound: list[AudioChunk], **options: Any
) -> list[Pair]:
    plan = load_plan(options.pop("plan", "pocket"))
    rate = sound[0].sample_rate
    return list(AvatarGenerator(model, plan, portrait, sample_rate=rate, **options).run(sound))


@pytest.mark.parametrize(
    ("seconds", "rate", "fps"),
    [
        (0.0001, 16000, Fraction(25)),
        (0.48, 16000, Fraction(25)),
        (0.4801, 16000, Fraction(25)),
        (1.0, 44100, Fraction(30000, 1001)),
        (1.1, 22050, Fraction(24)),
        (0.7, 8000, Fraction(60)),
        (3.0, 48000, Fraction(1)),
    ],
)
def test_pictures_and_sound_are_exactly_as_long_as_the_sound(
    model: Model, portrait: torch.Tensor, seconds: float, rate: int, fps: Fraction
) -> None:
    sound = speech(seconds, rate)
    pairs = generate(model, portrait, sound, fps=fps)
    num_samples = sound[-1].end_pts
    assert len(frames_of(pairs)) == num_frames(num_samples, rate, fps)
    assert np.array_equal(sound_of(pairs), np.concatenate([c.samples_T for c in sound]))
    assert all(video.time_base == 1 / fps for video, _ in pairs)
    assert [video.pts for video, _ in pairs] == [12 * i for i in range(len(pairs))]


def test_pairs_come_while_the_sound_is_still_being_spoken(
    model: Model, portrait: torch.Tensor
) -> None:
    generator = AvatarGenerator(model, load_plan("pocket"), portrait, sample_rate=16000)
    heard_s, spoken = 0.0, []
    for chunk in speech(2.0):
        heard_s += chunk.num_samples / 16000
        spoken += [(video.pts / 25, heard_s) for video, _ in generator.push(chunk)]
    assert len(spoken) >= 3
    # A chunk of 0.48 s is made once it and the encoder's look-ahead (under 0.2 s) were heard.
    assert all(at_s - start_s <= 0.48 + 0.2 for start_s, at_s in spoken)


def test_same_seed_same_pictures_and_another_seed_others(
    model: Model, portrait: torch.Tensor
) -> None:
    sound = speech(1.0)
    one, again = (frames_of(generate(model, portrait, sound, seed=3)) for _ in range(2))
    other = frames_of(generate(model, portrait, sound, seed=4))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_how_the_sound_is_cut_does_not_change_a_pixel(model: Model, portrait: torch.Tensor) -> None:
    samples_T = np.concatenate([c.samples_T for c in speech(1.2)])
    edges = [0, 1, 700, 9000, 9001, len(samples_T)]
    cut = [
        AudioChunk(samples_T=samples_T[a:b], sample_rate=16000, pts=a) for a, b in pairwise(edges)
    ]
    one, other = (frames_of(generate(model, portrait, sound)) for sound in (cut, speech(1.2)))
    assert np.abs(one.astype(int) - other).max() <= 1


def test_the_sound_moves_the_picture(model: Model, portrait: torch.Tensor) -> None:
    quiet = [
        AudioChunk(samples_T=np.zeros_like(c.samples_T), sample_rate=16000, pts=c.pts)
        for c in speech(1.0)
    ]
    loud, silent = (frames_of(generate(model, portrait, s)) for s in (speech(1.0), quiet))
    assert not np.array_equal(loud, silent)


@pytest.mark.parametrize("plan", ["pocket", "live-avatar"])
@pytest.mark.parametrize("schedule", ["sequential", "pipelined"])
def test_a_session_moved_after_three_chunks_goes_on_as_if_nothing_happened(
    model: Model, portrait: torch.Tensor, plan: str, schedule: Schedule
) -> None:
    sound = speech(3.0)

    def fresh() -> AvatarGenerator:
        chain = model.local_chain(load_plan(plan), schedule=schedule)
        return AvatarGenerator(
            model, load_plan(plan), portrait, sample_rate=16000, seed=9, chain=chain
        )

    whole = list(fresh().run(sound))
    first = fresh()
    pairs = [pair for chunk in sound[:17] for pair in first.push(chunk)]
    state = first.export_state()
    list(first.push(sound[17]))  # what happens to the first one later must not reach the twin
    second = fresh()
    second.import_state(state)
    pairs += list(second.run(sound[17:]))
    assert np.array_equal(frames_of(pairs), frames_of(whole))
    assert np.array_equal(sound_of(pairs), sound_of(whole))


def test_a_session_of_44100_hz_moves_within_one_level(model: Model, portrait: torch.Tensor) -> None:
    sound = speech(2.0, 44100)
    whole = generate(model, portrait, sound)
    first = AvatarGenerator(model, load_plan("pocket"), portrait, sample_rate=44100)
    pairs = [pair for chunk in sound[:13] for pair in first.push(chunk)]
    second = AvatarGenerator(model, load_plan("pocket"), portrait, sample_rate=44100)
    second.import_state(first.export_state())
    pairs += list(second.run(sound[13:]))
    assert np.abs(frames_of(pairs).astype(int) - frames_of(whole)).max() <= 1
    assert np.array_equal(sound_of(pairs), sound_of(whole))


def test_a_state_of_another_seed_is_refused(model: Model, portrait: torch.Tensor) -> None:
    first = AvatarGenerator(model, load_plan("pocket"), portrait, sample_rate=16000, seed=1)
    second = AvatarGenerator(model, load_plan("pocket"), portrait, sample_rate=16000, seed=2)
    with pytest.raises(ValueError, match="seed"):
        second.import_state(first.export_state())


def size_bytes(state: SessionState) -> int:
    return sum(t.numel() * t.element_size() for t in state.tensors.values())


def test_a_session_does_not_grow(model: Model, portrait: torch.Tensor) -> None:
    generator = AvatarGenerator(model, load_plan("pocket"), portrait, sample_rate=44100)
    sizes = []
    for chunk in speech(10.0, 44100):
        list(generator.push(chunk))
        sizes.append(size_bytes(generator.export_state()))
    filled = 30  # by now the ring of four chunks is full
    assert max(sizes[filled:]) <= max(sizes[: filled + 15]) * 1.05


def test_a_model_with_a_residual_prediction_and_no_noise_gives_its_prior(
    tmp_path: Path, portrait: torch.Tensor
) -> None:
    folder = build_tiny_model(tmp_path / "residual", prediction="residual")
    pairs = generate(load_model(str(folder)), portrait, speech(0.6))
    assert len(frames_of(pairs)) == 15


def test_the_generator_needs_neither_ray_nor_grpc_nor_aiortc() -> None:
    program = (
        "import sys\n"
        "for name in ('ray', 'grpc', 'aiortc', 'typer', 'rich'): sys.modules[name] = None\n"
        "import pipeline.generator\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
