"""A render with windows from sound to file: exactly as long as the sound, whatever is held back."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from audio.align import num_frames
from audio.chunk import AudioChunk
from audio.source import ArraySource
from pipeline.generator import AvatarGenerator
from pipeline.model import Model, load_model
from pipeline.plan import Plan
from pipeline.plan_parse import load_plan
from pipeline.sync import Pair
from pipeline.window_spec import WindowSpec
from tests.support.tiny_model import SIZE_PX, build_tiny_model
from video.record import Mp4Recorder

pytestmark = pytest.mark.stream

RATE = 16000
EXACT = WindowSpec(length=6, overlap=3)
SPECS = {
    "exact": EXACT,
    "three quarters": WindowSpec(length=12, overlap=9),
    "causal": WindowSpec(length=9, overlap=6, blend="causal"),
    "shifted": WindowSpec(length=6, blend="shifted", shift=3),
    "apart": WindowSpec(length=6),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model(str(build_tiny_model(tmp_path_factory.mktemp("models") / "tiny")))


PORTRAIT = torch.rand(1, 3, SIZE_PX, SIZE_PX, generator=torch.Generator().manual_seed(1)) * 2 - 1


def windowed(spec: WindowSpec) -> Plan:
    plan = load_plan("pocket-2step")
    stride = spec.stride(len(plan.steps))
    return replace(plan, mode="render", windows=spec, frames_per_chunk=stride)


def speech(seconds: float) -> list[AudioChunk]:
    rng = np.random.default_rng(2)
    samples_T = (0.1 * rng.standard_normal(round(seconds * RATE))).astype(np.float32)
    return list(ArraySource(samples_T, RATE).chunks())


def frames_of(pairs: list[Pair]) -> np.ndarray:
    return np.concatenate([video.frames_THWC for video, _ in pairs])


def opened(model: Model, spec: WindowSpec) -> AvatarGenerator:
    return AvatarGenerator(model, windowed(spec), PORTRAIT, sample_rate=RATE)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
@pytest.mark.parametrize("seconds", [0.0001, 1.1])
def test_pictures_and_sound_are_as_long_as_the_sound(
    model: Model, spec: WindowSpec, seconds: float
) -> None:
    """Shorter than a window, and several windows."""
    sound = speech(seconds)
    pairs = list(opened(model, spec).run(sound))
    assert len(frames_of(pairs)) == num_frames(sound[-1].end_pts, RATE, Fraction(25))
    heard = np.concatenate([audio.samples_T for _, audio in pairs])
    assert np.array_equal(heard, np.concatenate([chunk.samples_T for chunk in sound]))
    starts = [video.pts for video, _ in pairs]
    assert starts == [4 * windowed(spec).frames_per_chunk * i for i in range(len(pairs))]


def test_a_render_goes_on_in_another_process(model: Model) -> None:
    sound = speech(1.5)
    half = len(sound) // 2
    expected = frames_of(list(opened(model, EXACT).run(sound)))
    first, second = opened(model, EXACT), opened(model, EXACT)
    pairs = [pair for chunk in sound[:half] for pair in first.push(chunk)]
    second.import_state(first.export_state())
    pairs += [pair for chunk in sound[half:] for pair in second.push(chunk)]
    pairs += list(second.flush())
    assert np.array_equal(frames_of(pairs), expected)


def test_a_file_holds_every_picture(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    recorder = Mp4Recorder(path, width=SIZE_PX, height=SIZE_PX, fps=Fraction(25), sample_rate=RATE)
    for video, audio in opened(model, EXACT).run(speech(0.6)):
        recorder.write_video(video)
        recorder.write_audio(audio)
    recorder.close()
    with av.open(str(path)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 15
