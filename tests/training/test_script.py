"""What clips are about: most hold a full blink, some lids droop, many portraits show teeth."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("moderngl", reason="the renderer needs moderngl (extra: train)")

from training.clip import NUM_FRAMES, Script, reference_expression
from training.data import choose_window, speaking_frame
from training.facekit import load_facekit
from training.motion import blinks, droops
from training.performance import EXPRESSIONS, perform

pytestmark = pytest.mark.unit
JAW = EXPRESSIONS.index("jawOpen")


def test_about_seven_windows_in_ten_hold_a_full_blink() -> None:
    found = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        blink_T = blinks(150, 25, rng)
        start = choose_window(blink_T, rng)
        assert 0 <= start <= 150 - NUM_FRAMES
        found.append(bool((blink_T[start : start + NUM_FRAMES] >= 1).any()))
    assert 0.62 < np.mean(found) < 0.85


def test_drooping_lids_stay_half_way_for_long() -> None:
    half = [droops(200, 25, np.random.default_rng(seed)) for seed in range(20)]
    share = np.mean([((lid_T > 0.2) & (lid_T < 0.85)).mean() for lid_T in half])
    assert share > 0.25
    steps = np.abs(np.diff(np.stack(half), axis=1))
    assert steps.max() < 0.3


def test_drowsiness_reaches_the_lids() -> None:
    silence = np.zeros((6, 800), np.float32)
    awake = perform(silence, np.random.default_rng(2))
    drowsy = perform(silence, np.random.default_rng(2), drowsy=True)
    assert drowsy.blink_T.mean() > awake.blink_T.mean() + 0.1
    np.testing.assert_array_equal(
        drowsy.expression_TE[:, EXPRESSIONS.index("eyeBlink_L")], drowsy.blink_T
    )


def test_speaking_frames_cover_all_degrees_of_opening() -> None:
    expression_TE = np.zeros((400, len(EXPRESSIONS)), np.float32)
    expression_TE[:40, JAW] = np.linspace(0, 0.7, 40)  # shut nine tenths of the time
    rng = np.random.default_rng(0)
    jaws = [speaking_frame(expression_TE, EXPRESSIONS, rng)[JAW] for _ in range(200)]
    counts = np.histogram(jaws, bins=4, range=(0, 0.7))[0]
    assert counts.min() > 25


def test_half_of_the_portraits_part_their_lips_and_a_quarter_are_neutral(
    facekit_dir: Path,
) -> None:
    kit = load_facekit(facekit_dir)
    names = list(kit.expression_names)
    rng = np.random.default_rng(1)
    neutral = parted = 0
    for _ in range(400):
        speaking_E = np.zeros(len(names), np.float32)
        speaking_E[names.index("jawOpen")] = rng.uniform(0, 0.7)
        weights_E, _ = reference_expression(kit, _script(speaking_E), rng)
        assert weights_E.min() >= 0
        assert weights_E.max() <= 1
        mouth = [weights_E[names.index(n)] for n in ("jawOpen", "mouthSmile_L", "mouthUpperUp_L")]
        neutral += max(mouth) == 0
        parted += mouth[0] > 0.05 or mouth[2] > 0.3
    assert 75 <= neutral <= 125
    assert parted > 220


def _script(speaking_E: np.ndarray) -> Script:
    return Script(
        expression_TE=np.zeros((NUM_FRAMES, len(speaking_E)), np.float32),
        visemes_TV=np.zeros((NUM_FRAMES, 6), np.float32),
        blink_T=np.zeros(NUM_FRAMES, np.float32),
        gaze_T2=np.zeros((NUM_FRAMES, 2), np.float32),
        pose_T6=np.zeros((NUM_FRAMES, 6), np.float32),
        speaking_E=speaking_E,
        samples_T=np.zeros(41_920, np.int16),
    )
