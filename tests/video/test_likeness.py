"""Likeness of clips: what moves and what is fine are told apart."""

import cv2
import numpy as np
import pytest

from video.likeness import Frames, correlation, detail_likeness, motion_likeness, optical_flow

pytestmark = pytest.mark.unit

SIDE, NUM_FRAMES = 96, 12


def picture(seed: int, blur: float) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(SIDE, SIDE, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(values, (0, 0), blur)
    return np.asarray(smooth / smooth.std(), np.float32)


def clip(way: np.ndarray, *, coarse: int = 1, fine: int = 2) -> Frames:
    """Pictures of a coarse pattern that is shifted along a way, with a fine one on it."""
    frames = []
    for x, y in way:
        values = 110 + 40 * picture(coarse, 5.0) + 6 * picture(fine, 0.7)
        matrix = np.array([[1, 0, x], [0, 1, y]], np.float32)
        moved = cv2.warpAffine(values, matrix, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT)
        frames.append(np.clip(moved, 0, 255).astype(np.uint8))
    return np.stack(frames)


def way(seed: int) -> np.ndarray:
    steps = np.random.default_rng(seed).normal(size=(NUM_FRAMES, 2))
    return np.cumsum(steps, axis=0)


def test_the_same_movement_of_other_detail_is_the_same_motion() -> None:
    one, other = clip(way(1)), clip(way(1), fine=9)
    assert motion_likeness(one, other) > 0.97
    assert detail_likeness(one, other) < 0.6
    assert detail_likeness(one, one) == pytest.approx(1.0)


def test_another_movement_is_another_motion() -> None:
    across = way(1)[:, ::-1] * [1, -1]
    assert abs(motion_likeness(clip(way(1)), clip(across))) < 0.2
    assert motion_likeness(clip(way(1)), clip(-way(1))) < -0.9
    assert motion_likeness(clip(way(1)), clip(way(1))) == pytest.approx(1.0)


def test_flow_is_the_way_that_was_gone() -> None:
    flow = optical_flow(clip(np.array([[0.0, 0.0], [2.0, 0.0], [2.0, 3.0]])))
    assert flow.shape == (2, 128, 128, 2)
    scale = 128 / SIDE
    middle = flow[:, 32:96, 32:96].mean(axis=(1, 2))
    np.testing.assert_allclose(middle, [[2 * scale, 0], [0, 3 * scale]], atol=0.4)


def test_a_clip_that_stands_still_has_no_motion_to_compare() -> None:
    still = np.repeat(clip(way(1))[:1], NUM_FRAMES, axis=0)
    assert motion_likeness(still, still) == 0.0
    assert detail_likeness(still, still) == 0.0
    assert correlation(np.zeros(3), np.ones(3)) == 0.0
