"""The shipped pocket model: small enough, finite, and its mouth moves for speech only."""

from pathlib import Path

import numpy as np
import pytest
import torch

from audio.chunk import AudioChunk
from audio.source import FileSource
from pipeline.catalog import model_path
from pipeline.generator import AvatarGenerator
from pipeline.model import Model, load_model
from pipeline.plan_parse import load_plan
from video.reference import load_portrait

pytestmark = pytest.mark.stream

FOLDER = model_path("pocket")
MOUTH = (slice(None), slice(140, 200), slice(88, 168))
SECONDS = 3


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("pocket")


def _speech() -> tuple[np.ndarray, int]:
    source = FileSource(FOLDER / "speech.flac")
    samples = np.concatenate([chunk.samples_T for chunk in source.chunks()])
    return samples[: SECONDS * source.sample_rate], source.sample_rate


def _frames(model: Model, samples: np.ndarray, sample_rate: int, portrait: Path) -> np.ndarray:
    image = load_portrait(portrait, size=model.config.native_size).image_CHW[None]
    plan = load_plan(model.config.plan)
    generator = AvatarGenerator(model, plan, image, sample_rate=sample_rate, seed=3)
    sound = AudioChunk(samples_T=samples, sample_rate=sample_rate, pts=0)
    with torch.inference_mode():
        pictures = [video.frames_THWC for video, _ in generator.run([sound])]
    return np.concatenate(pictures).astype(np.float32)


def test_it_fits_its_promise_of_25_megabytes() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 25e6
    assert max(path.stat().st_size for path in FOLDER.rglob("*")) < 16 * 2**20


def test_the_mouth_moves_with_speech_and_rests_in_silence(model: Model) -> None:
    samples, rate = _speech()
    portrait = FOLDER / "portraits" / "ada.png"
    spoken = _frames(model, samples, rate, portrait)
    silent = _frames(model, np.zeros_like(samples), rate, portrait)
    assert spoken.shape == (SECONDS * 25, 256, 256, 3) == silent.shape
    moving, resting = (float(np.abs(np.diff(f[MOUTH], axis=0)).mean()) for f in (spoken, silent))
    assert moving > 2.0 * resting
    corner = np.abs(spoken[:, :16, :16] - spoken[:1, :16, :16])
    assert float(corner.mean()) < 2.0, "the background must stay"


@pytest.mark.parametrize("portrait", sorted((FOLDER / "portraits").glob("*.png")), ids=str)
def test_every_shipped_portrait_is_shown_whole(portrait: Path) -> None:
    reference = load_portrait(portrait, size=(256, 256))
    assert reference.image_CHW.shape == (3, 256, 256)
    assert (reference.box.width, reference.box.height) == reference.source_size == (512, 512)
