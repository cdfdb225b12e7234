"""`viva eval video`: a rendered clip passes everything, and every planted failure is caught."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from audio.chunk import AudioChunk
from audio.source import FileSource
from pipeline.catalog import model_path
from pipeline.generator import AvatarGenerator
from pipeline.model import load_model
from pipeline.plan_parse import load_plan
from services.eval_video import VideoRequest, VideoResult, measure_video
from services.video_figures import truth_figures
from tests.support.viva import Outcome, run_viva
from video.chunk import VideoChunk
from video.record import Mp4Recorder
from video.reference import load_portrait

pytestmark = pytest.mark.cli
FPS, SIDE_PX, SECONDS = Fraction(25), 128, 6
PORTRAITS = model_path("pocket") / "portraits"
Viva = Callable[..., Outcome]


@dataclass(frozen=True)
class Clip:
    """Pictures and their sound."""

    frames_THWC: np.ndarray
    samples_T: np.ndarray
    sample_rate: int

    def save(self, path: Path) -> Path:
        height, width = self.frames_THWC.shape[1:3]
        with Mp4Recorder(
            path, width=width, height=height, fps=FPS, sample_rate=self.sample_rate
        ) as recorder:
            recorder.write_video(VideoChunk(frames_THWC=self.frames_THWC, pts=0, time_base=1 / FPS))
            recorder.write_audio(
                AudioChunk(samples_T=self.samples_T, sample_rate=self.sample_rate, pts=0)
            )
        return path


@pytest.fixture(scope="session")
def clip() -> Clip:
    """Six seconds of ada by the pocket model, rendered once."""
    model, folder = load_model("pocket"), model_path("pocket")
    portrait = load_portrait(PORTRAITS / "ada.png", size=(SIDE_PX, SIDE_PX))
    source = FileSource(folder / "speech.flac")
    session = AvatarGenerator(
        model,
        load_plan(model.config.plan),
        portrait.image_CHW[None],
        sample_rate=source.sample_rate,
    )
    heard = list(islice(source.chunks(), 10 * SECONDS))
    frames = np.concatenate([video.frames_THWC for video, _ in session.run(heard)])
    samples = np.concatenate([chunk.samples_T for chunk in heard])
    return Clip(frames, samples, source.sample_rate)


@pytest.fixture(scope="session")
def clean(clip: Clip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clip.save(tmp_path_factory.mktemp("clips") / "clean.mp4")


def _measure(path: Path, **known: Any) -> VideoResult:
    return measure_video(VideoRequest(video=path, **known), _ignore)


def _ignore(*_: object) -> None:
    """Progress that nobody looks at."""


@pytest.fixture(scope="session")
def passed(clean: Path) -> VideoResult:
    """What is measured of the clean clip."""
    return _measure(clean, portrait=PORTRAITS / "ada.png", reference=clean)


def test_a_clean_clip_passes_everything(passed: VideoResult) -> None:
    result = passed
    assert result.missed == []
    assert result.face == "found"
    assert result.figures["psnr_db"] == 100.0
    assert result.figures["ssim"] == 1.0
    assert abs(result.figures["sync_shifted_corr"]) < 0.3
    assert result.watch.num_frames == SECONDS * FPS


def _late_sound(clip: Clip) -> Clip:
    late = np.pad(clip.samples_T, (int(0.12 * clip.sample_rate), 0))[: len(clip.samples_T)]
    return Clip(clip.frames_THWC, late, clip.sample_rate)


def _seen(clip: Clip, frames_THWC: np.ndarray) -> Clip:
    pixels = np.clip(frames_THWC, 0, 255).astype(np.uint8)
    return Clip(pixels, clip.samples_T, clip.sample_rate)


def _frozen_mouth(clip: Clip) -> Clip:
    frames = clip.frames_THWC.copy()
    frames[:, 76:100, 46:82] = frames[0, 76:100, 46:82]
    return _seen(clip, frames)


def _colour_ramp(clip: Clip) -> Clip:
    ramp = np.linspace(0, 15, len(clip.frames_THWC))[:, None, None, None]
    return _seen(clip, clip.frames_THWC + ramp * np.array([1.0, 0.0, -1.0]))


def _swapped_face(clip: Clip) -> Clip:
    other = Image.open(PORTRAITS / "dev.png").convert("RGB").resize((SIDE_PX, SIDE_PX))
    frames = clip.frames_THWC.copy()
    frames[len(frames) // 2 :] = np.asarray(other)
    return _seen(clip, frames)


def _flickering(clip: Clip) -> Clip:
    sign = np.array([1, -1] * len(clip.frames_THWC))[: len(clip.frames_THWC)]
    return _seen(clip, clip.frames_THWC.astype(np.int16) + 2 * sign[:, None, None, None])


def _blurred(clip: Clip, first: int = 75) -> Clip:
    blur = ImageFilter.GaussianBlur(1.0)
    after = [np.asarray(Image.fromarray(f).filter(blur)) for f in clip.frames_THWC[first:]]
    return _seen(clip, np.concatenate([clip.frames_THWC[:first], np.stack(after)]))


@pytest.mark.parametrize(
    ("plant", "caught", "kept"),
    [
        (_late_sound, "sync_lag_ms", {"frozen_share", "identity_drift", "flicker_levels"}),
        (_frozen_mouth, "frozen_share", {"identity_drift", "face_colour_drift_levels"}),
        (_colour_ramp, "face_colour_drift_levels", {"identity_drift", "sync_lag_ms"}),
        (_swapped_face, "identity_drift", {"sharpness_kept"}),
        (_flickering, "flicker_levels", {"identity_drift", "sync_lag_ms"}),
        (_blurred, "sharpness_kept", {"identity_drift", "sync_lag_ms", "frozen_share"}),
    ],
)
def test_a_planted_failure_is_caught_by_its_detector(
    plant: Callable[[Clip], Clip],
    caught: str,
    kept: set[str],
    clip: Clip,
    clean: Path,
    tmp_path: Path,
) -> None:
    path = plant(clip).save(tmp_path / "planted.mp4")
    result = _measure(path, reference=clean) if plant is _swapped_face else _measure(path)
    assert caught in result.missed
    assert not kept & set(result.missed)
    if plant is _swapped_face:
        assert {"psnr_db", "ssim"} <= set(result.missed)
        assert result.figures["psnr_worst_second_db"] < 20


def test_the_lag_of_late_sound_is_found_within_40_ms(
    clip: Clip, passed: VideoResult, tmp_path: Path
) -> None:
    late = _measure(_late_sound(clip).save(tmp_path / "late.mp4"))
    before, after = (result.figures["sync_lag_ms"] for result in (passed, late))
    assert abs(before) <= 40
    assert after - before == pytest.approx(-120, abs=40)


def test_blur_throughout_shows_beside_the_portrait_and_the_reference(
    clip: Clip, clean: Path, tmp_path: Path
) -> None:
    soft = _blurred(clip, first=0).save(tmp_path / "soft.mp4")
    result = _measure(soft, portrait=PORTRAITS / "ada.png", reference=clean)
    assert "sharpness_kept" not in result.missed
    assert "sharpness_of_portrait" in result.missed
    assert result.figures["psnr_db"] < 45


def test_another_persons_portrait_is_told_apart(clean: Path) -> None:
    result = _measure(clean, portrait=PORTRAITS / "greta.png")
    assert "identity_from_portrait" in result.missed


def test_truth_is_followed_and_a_late_truth_is_not(
    clean: Path, passed: VideoResult, tmp_path: Path
) -> None:
    opening, late = passed.watch.opening, tmp_path / "late.json"
    own = truth_figures(opening, opening, FPS)
    assert own["truth_corr"] == pytest.approx(1.0)
    assert own["truth_lag_ms"] == pytest.approx(0, abs=1)
    late.write_text(json.dumps({"openness": np.roll(opening, 3).tolist()}))
    result = _measure(clean, truth=late)
    assert "truth_lag_ms" in result.missed
    assert result.figures["truth_lag_ms"] == pytest.approx(-120, abs=10)


def test_a_video_without_a_face_has_not_passed(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (20, 64, 96, 3), dtype=np.uint8)
    result = _measure(Clip(noise, np.zeros(12_800, np.float32), 16_000).save(tmp_path / "n.mp4"))
    assert result.face == "none"
    assert {"identity_drift", "sync_corr", "frozen_share", "flicker_levels"} <= set(result.missed)


@pytest.fixture
def viva(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Viva:
    def run(*words: object) -> Outcome:
        return run_viva([str(word) for word in words], monkeypatch, capfd)

    return run


def test_the_report_stands_alone(viva: Viva, clean: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    outcome = viva("eval", "video", clean, "--reference", clean, "--report", report)
    assert outcome.status == 0, outcome.stderr
    figures = json.loads(outcome.stdout)
    assert figures["missed"] == []
    assert figures["frames"] == 150
    page = report.read_text()
    assert page.count("<svg") == 7
    assert "data:image/jpeg;base64," in page
    assert "prefers-color-scheme:dark" in page
    assert not re.search(r"(src|href)=\"(?!data:)|@import|url\(|<script", page)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["no.mp4"], "no.mp4 does not exist"),
        ([PORTRAITS / "cast.json"], "cast.json holds no video"),
        ([PORTRAITS.parent / "speech.flac"], "speech.flac holds no video"),
        ([PORTRAITS], "not a regular file"),
        (["CLEAN", "--reference", PORTRAITS / "ada.png"], "same size"),
        (["CLEAN", "--truth", PORTRAITS / "cast.json"], "--truth"),
        (["CLEAN", "--report", "page.txt"], "--report"),
        (["CLEAN", "--report", "nowhere/page.html"], "--report"),
        (["CLEAN", "--audio", "no.wav"], "no.wav"),
        (["CLEAN", "--crop", "round"], "--crop"),
    ],
)
def test_bad_input_is_said_in_a_line(
    viva: Viva, clean: Path, words: list[object], complaint: str
) -> None:
    outcome = viva("eval", "video", *(clean if word == "CLEAN" else word for word in words))
    assert outcome.status == 2
    assert complaint in outcome.stderr
    assert outcome.stderr.count("\n") == 1
