"""`viva eval`: figures of recordings and long streams, each with a fault that must show."""

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.gates import missed
from services.eval_long import Sheet, long_figures, looped_speech
from services.eval_recording import pause_figures, recording_figures
from tests.services.conftest import write_wav
from tests.support.viva import Outcome, run_viva
from video.chunk import VideoChunk
from video.face_reader import FaceReading

pytestmark = pytest.mark.cli
FPS = Fraction(25)
Viva = Callable[..., Outcome]


@pytest.fixture
def viva(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Viva:
    def run(*words: object) -> Outcome:
        return run_viva([str(word) for word in words], monkeypatch, capfd)

    return run


def _voice(num_frames: int = 300) -> np.ndarray:
    """Power of speech: syllables, with a pause of two seconds in the middle."""
    time = np.arange(num_frames)
    power: np.ndarray = 0.02 * (
        1.05 + np.sin(2 * np.pi * time / 7.3) * np.cos(2 * np.pi * time / 31)
    )
    power[num_frames // 2 - 25 : num_frames // 2 + 25] = 1e-7
    return power


def _reading(opening: np.ndarray) -> FaceReading:
    curve = torch.from_numpy(opening)
    return FaceReading(
        opening_px_N=curve,
        width_px_N=curve,
        lids_N=torch.ones_like(curve),
        eye_pattern_N=torch.ones_like(curve),
        darkness_N=curve,
    )


def test_a_mouth_that_follows_the_voice_passes() -> None:
    power = _voice()
    figures = recording_figures(_reading(10 * power**0.3), power, FPS)
    assert figures["envelope_corr"] > 0.9
    assert figures["envelope_lag_frames"] == 0
    assert abs(figures["shifted_control_corr"]) < 0.6
    assert missed("recording", figures) == []


def test_a_mouth_half_a_second_late_fails_and_shows_its_lag() -> None:
    power = _voice()
    late = np.roll(10 * power**0.3, 6)
    figures = recording_figures(_reading(late), power, FPS)
    assert figures["envelope_lag_frames"] == 6


def test_a_mouth_that_moves_by_itself_fails() -> None:
    power = _voice()
    own = np.random.default_rng(0).uniform(0, 10, len(power))
    figures = recording_figures(_reading(own), power, FPS)
    assert missed("recording", figures) == ["envelope_corr", "pause_opening_share"]


def test_a_mouth_open_in_pauses_fails() -> None:
    quiet = np.zeros(100, np.bool_)
    quiet[40:60] = True
    opening = np.where(quiet, 6.0, np.tile([0.0, 10.0], 50))
    assert pause_figures(opening, quiet, FPS)["pause_opening_share"] == pytest.approx(0.6)
    assert "pause_opening_share" not in pause_figures(opening, np.zeros(100, np.bool_), FPS)


def _minute(**changes: float) -> dict[str, float]:
    row = {
        "background_drift_levels": 0.4,
        "face_colour_drift_levels": 1.0,
        "rest_db": 38.0,
        "blinks": 15.0,
        "yaw_mean_rad": 0.0,
        "peak_resident_mb": 600.0,
    }
    return row | changes


@pytest.mark.parametrize(
    ("changes", "fails"),
    [
        ({}, []),
        ({"blinks": 0.0}, ["blinks_per_minute"]),
        ({"background_drift_levels": 3.0}, ["background_drift_levels"]),
        ({"face_colour_drift_levels": 6.0}, ["face_colour_drift_levels"]),
        ({"rest_db": 34.0}, ["identity_loss_db"]),
    ],
)
def test_the_worst_minute_counts(changes: dict[str, float], fails: list[str]) -> None:
    rows = [_minute(), _minute(**changes)]
    if "blinks" in changes:
        rows[0]["blinks"] = 0.0
    assert missed("long", long_figures(rows) | {"pop_ratio": 1.0}) == fails


def test_looped_speech_has_its_length_and_pauses(tmp_path: Path) -> None:
    tone = 0.2 * np.sin(2 * np.pi * 300 * np.arange(16_000) / 16_000)
    chunks = list(looped_speech(write_wav(tmp_path / "tone.wav", tone), 9.5))
    assert [c.pts for c in chunks] == list(np.cumsum([0, *(c.num_samples for c in chunks)])[:-1])
    sound = np.concatenate([c.samples_T for c in chunks])
    assert len(sound) == int(9.5 * 16_000)
    assert max(c.num_samples for c in chunks) <= 16_000
    seconds = np.abs(sound[: 9 * 16_000]).reshape(9, -1).max(axis=1) > 0.1
    assert seconds.tolist() == [True, False, True, False, False, False, False, True, False]


def test_the_sheet_shows_the_moments_that_there_are(tmp_path: Path) -> None:
    sheet = Sheet(1500, 25.0)
    for start in range(0, 1500, 12):
        frames = np.full((12, 4, 4, 3), start // 12, np.uint8)
        sheet.push(VideoChunk(frames_THWC=frames, pts=start, time_base=1 / FPS))
    sheet.save(tmp_path / "sheet.png")
    pixels = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert pixels.shape == (8, 32, 3)  # minutes 0 and 1
    assert pixels[0, 0, 0] == 0
    assert pixels[4, 0, 0] == 1420 // 12


def test_a_recording_is_measured_with_the_shipped_model(viva: Viva, tmp_path: Path) -> None:
    tone = 0.2 * np.sin(2 * np.pi * 150 * np.arange(16_000) / 16_000)
    sound = write_wav(tmp_path / "tone.wav", tone)
    portrait = Path("configs/models/pocket/portraits/ada.png").resolve()
    outcome = viva("eval", "recording", "--portrait", portrait, "--audio", sound)
    assert outcome.status == 0, outcome.stderr
    figures = json.loads(outcome.stdout)
    assert figures["frames"] == 25
    assert figures["portrait"] == "ada.png"
    assert {"envelope_corr", "darkness_envelope_corr", "missed"} <= set(figures)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["recording"], "--portrait is missing"),
        (["recording", "--portrait", "no.png", "--audio", "no.wav"], "no.png"),
        (["long", "--minutes", "0"], "--minutes"),
        (["speech"], "--clips"),
        (["codec", "--clips", "nowhere"], "nowhere"),
    ],
)
def test_bad_input_is_said_in_a_line(viva: Viva, words: list[str], complaint: str) -> None:
    outcome = viva("eval", *words)
    assert outcome.status == 2
    assert complaint in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_a_model_without_a_motion_codec_is_refused(
    viva: Viva, tiny_model: Path, portrait: Path, speech: Path
) -> None:
    outcome = viva(
        "eval", "recording", "--portrait", portrait, "--audio", speech, "--model", tiny_model
    )
    assert outcome.status == 2
    assert "motion codec" in outcome.stderr
