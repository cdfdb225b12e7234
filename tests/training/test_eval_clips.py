"""`viva eval clips`: plans side by side on one held-out clip, and input that cannot be used."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from audio.source import FileSource
from pipeline.catalog import model_path
from tests.support.viva import Outcome, run_viva
from training.clip import NUM_FRAMES
from training.held_out import NAMES
from training.shards import SHAPES
from video.face_points import mean_points

pytestmark = pytest.mark.cli
Viva = Callable[..., Outcome]
NUM_SAMPLES = SHAPES["samples"][0]


@pytest.fixture
def viva(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Viva:
    def run(*words: object) -> Outcome:
        return run_viva([str(word) for word in words], monkeypatch, capfd)

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shard of one clip: ada says the model's speech; its truth is made up."""
    model, made = model_path("pocket"), tmp_path_factory.mktemp("clips")
    arrays: dict[str, Any] = {
        name: np.zeros((1, *(side or 1 for side in SHAPES[name])), np.float32) for name in NAMES
    }
    portrait = Image.open(model / "portraits" / "ada.png").convert("RGB").resize((256, 256))
    arrays["ref_rgb"] = np.asarray(portrait)[None]
    arrays["landmarks"] = np.nan_to_num(mean_points() + 0.5).astype(np.float32)[None]
    speech = np.concatenate([c.samples_T for c in FileSource(model / "speech.flac").chunks()])
    arrays["samples"] = (32767 * speech[:NUM_SAMPLES]).astype(np.int16)[None]
    arrays["openness"] = 4.0 + 3.0 * np.sin(np.arange(NUM_FRAMES) / 2.0)[None]
    arrays["group_start"] = np.array([[0, 12, 24, 36]], np.int32)
    np.savez(made / "clips_00000.npz", allow_pickle=False, **arrays)
    return made


def test_plans_are_held_against_the_first(viva: Viva, folder: Path, tmp_path: Path) -> None:
    report = tmp_path / "plans.html"
    plans = ("--plan", "pocket", "--plan", "pocket-2step")
    outcome = viva("eval", "clips", folder, *plans, "--report", report)
    assert outcome.status == 0, outcome.stderr
    result = json.loads(outcome.stdout)
    assert result["reference"] == "pocket"
    full, fast = (result["plans"][name] for name in ("pocket", "pocket-2step"))
    assert (full["evaluations_per_chunk"], fast["evaluations_per_chunk"]) == (4.0, 2.0)
    assert full["evaluations"] == 2 * fast["evaluations"]
    assert full["opening_corr_change"] == 0.0
    assert "psnr_db" not in full
    assert 25.0 < fast["psnr_db"] < 60.0
    assert "opening_corr" in full["missed"]  # the truth is made up: ada cannot have followed it
    assert full["identity_from_portrait"] < 0.05
    assert full["wall_s"] > 0.0
    page = report.read_text()
    assert "pocket-2step" in page
    assert page.count("data:image/jpeg") == 2


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["nowhere"], "nowhere holds no clips_*.npz"),
        (["FOLDER", "--plan", "no-such-plan"], "no-such-plan"),
        (["FOLDER", "--report", "plans.pdf"], "--report"),
        (["FOLDER", "--model", "no-such-model"], "no-such-model"),
        (["FOLDER", "--plan", "pocket", "--plan", "pocket"], "named twice"),
        (["FOLDER", "--limit", "0"], "--limit"),
    ],
)
def test_bad_input_is_said_in_a_line(
    viva: Viva, folder: Path, words: list[str], complaint: str
) -> None:
    outcome = viva("eval", "clips", *(folder if word == "FOLDER" else word for word in words))
    assert outcome.status == 2
    assert complaint in outcome.stderr
    assert "Traceback" not in outcome.stderr
