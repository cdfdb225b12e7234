"""The figures of held-out clips trip on planted faults: lag, frozen lids, lips that stay apart."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from training import eval_codec, eval_speech
from training.eval_codec import lids_left, summary
from training.eval_speech import Spoken, figures_of, press_distances, session_sound
from training.held_out import HeldOutClip, held_out_clips
from video.face_points import mean_points

pytestmark = pytest.mark.train
CLIPS = 2


def _curve(seed: int, length: int = 48) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(length + 6)
    return np.abs(4 + 3 * np.convolve(noise, np.hanning(7), mode="valid"))


def _spoken(seed: int, **changes: object) -> Spoken:
    gap = _curve(seed)
    pressed = np.zeros(48, np.bool_)
    pressed[20:22] = True
    gap[20:22] = 0.0
    width = 2 * _curve(seed + 50)
    curves: dict[str, object] = {
        "opening_T": gap,
        "width_T": width,
        "darkness_T": gap,
        "exact_opening_T": gap,
        "exact_width_T": width,
        "gap_T": gap,
        "pressed_T": pressed,
    }
    return Spoken(**curves | changes)  # type: ignore[arg-type]  # arrays by name


def test_the_truth_passes_every_figure() -> None:
    figures = figures_of([_spoken(seed) for seed in range(6)])
    assert figures["opening_corr"] == pytest.approx(1.0)
    assert figures["lag_frames"] == 0
    assert figures["opening_amplitude"] == pytest.approx(1.0)
    assert figures["press_closed_share"] == 1.0
    assert figures["rounding_corr"] == pytest.approx(1.0)


@pytest.mark.parametrize("late", [-2, 3])
def test_a_mouth_out_of_time_shows_its_lag(late: int) -> None:
    clips = [_spoken(s, opening_T=np.roll(_spoken(s).gap_T, late)) for s in range(6)]
    figures = figures_of(clips)
    assert figures["lag_frames"] == late
    assert figures["opening_corr"] < figures["corr_at_best_lag"]


def test_lips_that_stay_apart_at_p_b_m_are_counted() -> None:
    gap = _spoken(1).gap_T.copy()
    apart = np.maximum(gap, 3.0)
    assert press_distances(_spoken(1)) == [0.0]
    assert press_distances(_spoken(1, opening_T=apart)) == [3.0]
    assert figures_of([_spoken(1, opening_T=apart)])["press_closed_share"] == 0.0


def test_half_the_motion_is_half_the_amplitude() -> None:
    assert figures_of([_spoken(2, opening_T=0.5 * _spoken(2).gap_T)])[
        "opening_amplitude"
    ] == pytest.approx(0.5)


def test_frozen_lids_leave_everything_open_and_true_ones_nothing() -> None:
    rng = torch.Generator().manual_seed(0)
    open_eyes, shut = (torch.rand(2, 3, 64, 160, generator=rng) * 2 - 1 for _ in range(2))
    assert lids_left(open_eyes, shut, open_eyes) == pytest.approx(1.0)
    assert lids_left(shut, shut, open_eyes) == pytest.approx(0.0, abs=1e-6)
    half = lids_left(0.5 * (open_eyes + shut), shut, open_eyes)
    assert half == pytest.approx(0.5, abs=1e-6)
    assert lids_left(shut, open_eyes + 0.01, open_eyes) is None


def test_a_summary_averages_what_clips_have() -> None:
    figures = summary([{"a": 1.0, "opening_amplitude": 1.0}, {"a": 3.0}, {}])
    assert figures == {"a": 2.0, "opening_amplitude": 1.0, "clips": 3.0}


def test_hidden_pixels_count_alike_whatever_clip_they_are_in() -> None:
    many = {"mouth_hidden_made": 40.0, "mouth_hidden_copied": 100.0}
    few = {"mouth_hidden_made": 3.0, "mouth_hidden_copied": 1.0}
    assert summary([many, few])["mouth_hidden_error_of_copy"] == pytest.approx(43 / 101, abs=1e-4)


def test_a_clip_begins_on_a_frame_of_its_session() -> None:
    samples = np.zeros(41_920, np.int16)
    samples[8_000] = 32_767  # the instant of the clip's first frame
    sound = session_sound(samples)
    assert int(sound.argmax()) == eval_speech.LEAD_FRAMES * 16_000 // 25


def _write_shard(path: Path) -> None:
    rng = np.random.default_rng(5)
    fall = np.abs(np.sin(np.arange(48) / 4)) * 12
    flow = np.zeros((CLIPS, 48, 2, 64, 64), np.float16)
    flow[:, :, 1, 41:] = -fall[None, :, None, None]
    rows = np.arange(64)[None, :] - 41
    in_gap = (rows >= 0) & (rows < fall[:, None] / 4)
    hidden = np.zeros((CLIPS, 48, 64, 64), np.uint8)
    hidden[:] = np.where(in_gap, 255, 0)[None, :, :, None]
    portrait = rng.integers(0, 255, (CLIPS, 256, 256, 3), dtype=np.uint8)
    blink = np.zeros((CLIPS, 48), np.float16)
    blink[:, 8:12] = 1.0
    np.savez(
        path,
        ref_rgb=portrait,
        landmarks=np.tile(np.nan_to_num(mean_points()) + 0.5, (CLIPS, 1, 1)).astype(np.float32),
        flow64=flow,
        occl64=hidden,
        group_start=np.tile(np.array([0, 8, 16, 44], np.int32), (CLIPS, 1)),
        rgb=rng.integers(0, 255, (CLIPS, 16, 256, 256, 3), dtype=np.uint8),
        occl128=np.full((CLIPS, 16, 128, 128), 255, np.uint8),
        samples=rng.integers(-9000, 9000, (CLIPS, 41920), dtype=np.int16),
        blink=blink,
        openness=np.tile(fall, (CLIPS, 1)).astype(np.float32),
        ref_openness=np.zeros(CLIPS, np.float32),
        visemes=rng.random((CLIPS, 48, 6)).astype(np.float16),
    )


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    _write_shard(folder / "clips_00000.npz")
    return folder


def test_exact_flow_reads_as_the_true_gap(clips: Path) -> None:
    read = list(held_out_clips(clips, 1))
    assert len(read) == 1
    clip: HeldOutClip = read[0]
    assert clip.moves
    opening = clip.exact_reading().opening_px_N.numpy()
    assert np.corrcoef(opening, clip.openness)[0, 1] > 0.97


@pytest.mark.parametrize(
    ("program", "figure"), [(eval_codec, "lids_left"), (eval_speech, "wrong_sound_corr")]
)
def test_the_programs_print_one_object(
    clips: Path,
    program: object,
    figure: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["viva eval", "--clips", str(clips), "--limit", "2"])
    program.main()  # type: ignore[attr-defined]  # a module
    figures = json.loads(capsys.readouterr().out)
    assert figure in figures
    assert figures["clips"] == CLIPS
    assert figures["missed"]
