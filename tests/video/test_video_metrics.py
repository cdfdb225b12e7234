"""Figures of single pictures and pairs: known values, and the fault that each is for."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from video.crop import Box
from video.face_window import SIDE, FaceWindow
from video.fidelity import SAME_DB, psnr_db, squared_error, ssim
from video.flicker import CELLS, cell_changes, static_change
from video.identity import describe_face, identity_distance
from video.mouth_opening import LIPS, mouth_opening
from video.sharpness import sharpness

pytestmark = pytest.mark.unit


def _picture(seed: int = 0, side: int = 256) -> np.ndarray:
    """Soft shapes, different ones for every seed."""
    coarse = np.random.default_rng(seed).integers(0, 255, (12, 12, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))


def _grey(picture: np.ndarray) -> np.ndarray:
    brightness: np.ndarray = picture.mean(axis=2).astype(np.float32)
    return brightness


def test_equal_pictures_are_equal_and_others_are_not() -> None:
    picture, other = _picture(), _picture(1)
    assert psnr_db(squared_error(picture, picture)) == SAME_DB
    assert ssim(_grey(picture), _grey(picture)) == pytest.approx(1.0)
    off_by_five = np.clip(picture.astype(np.int16), 5, 255).astype(np.uint8) - np.uint8(5)
    expected = 20 * np.log10(255 / 5)
    assert psnr_db(squared_error(off_by_five + np.uint8(5), off_by_five)) == pytest.approx(expected)
    assert ssim(_grey(picture), _grey(other)) < 0.3


def test_ssim_of_whole_windows_is_the_formula() -> None:
    a, b = (
        np.random.default_rng(seed).uniform(0, 255, (8, 8)).astype(np.float32) for seed in (1, 2)
    )
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    covariance = ((a - a.mean()) * (b - b.mean())).mean()
    expected = (2 * a.mean() * b.mean() + c1) * (2 * covariance + c2)
    expected /= (a.mean() ** 2 + b.mean() ** 2 + c1) * (a.var() + b.var() + c2)
    assert ssim(a, b) == pytest.approx(expected, rel=1e-4)


def test_blur_takes_sharpness_and_contrast_does_not() -> None:
    noise = np.random.default_rng(0).uniform(0, 255, (64, 64)).astype(np.float32)
    assert sharpness(noise) == pytest.approx(3**0.5, rel=0.05)
    assert sharpness(0.3 * noise + 90) == pytest.approx(sharpness(noise), rel=1e-4)
    soft = Image.fromarray(noise.astype(np.uint8)).filter(ImageFilter.GaussianBlur(1.0))
    assert sharpness(np.asarray(soft, np.float32)) < 0.7 * sharpness(noise)
    assert sharpness(np.full((16, 16), 7.0, np.float32)) == 0.0
    assert sharpness(np.tile(np.arange(16, dtype=np.float32), (16, 1))) == 0.0


def test_flicker_is_read_where_nothing_moves() -> None:
    still, side = _picture(side=100), 100
    moving = still.copy()
    moving[:40, :40] = 255 - moving[:40, :40]
    moved = cell_changes(still, moving)
    assert moved.shape == (CELLS * CELLS,)
    assert moved.max() > 30
    assert static_change(moved[None]) == 0.0
    brighter = np.clip(still, 0, 250) + np.uint8(4)
    flicker = cell_changes(np.clip(still, 0, 250), brighter)
    assert static_change(flicker[None]) == pytest.approx(4.0)
    assert cell_changes(still, brighter)[0] == pytest.approx(
        np.abs(still[: side // CELLS, : side // CELLS].astype(int) - brighter[:6, :6]).mean()
    )
    assert static_change(np.zeros((0, CELLS * CELLS), np.float32)) == 0.0


def test_a_face_is_itself_whatever_the_light_and_not_another() -> None:
    face, other = (_grey(_picture(seed, SIDE)) for seed in (0, 1))
    assert identity_distance(describe_face(face), describe_face(face)) == pytest.approx(0.0)
    assert (
        identity_distance(
            describe_face(face), describe_face(np.float32(0.5) * face + np.float32(20))
        )
        < 1e-6
    )
    assert identity_distance(describe_face(face), describe_face(other)) > 0.1


@pytest.mark.parametrize("inside", [10.0, 250.0])
def test_dark_and_teeth_open_a_mouth(inside: float) -> None:
    closed = np.full((SIDE, SIDE), 120.0, np.float32)
    opening = closed.copy()
    opening[84:92, 56:72] = inside
    wide = closed.copy()
    wide[LIPS] = inside
    readings = [mouth_opening(grey) for grey in (closed, opening, wide)]
    assert readings[0] == 0.0
    assert readings == sorted(readings)
    assert readings[2] > 2 * readings[1]


def test_a_face_that_moves_is_held_in_place() -> None:
    scene = _picture(3, 320)
    window = FaceWindow(Box(x=40, y=30, width=256, height=256))
    first = window.show(scene)
    for step in range(1, 12):
        view = window.show(np.roll(scene, (2 * step, -2 * step), axis=(0, 1)))
        assert view.likeness > 0.95
    inner = (slice(20, 108), slice(20, 108))
    error = np.abs(view.picture_SS3[inner] - first.picture_SS3[inner]).mean()
    assert (
        error
        < 0.2
        * np.abs(np.roll(first.picture_SS3, 11, axis=0)[inner] - first.picture_SS3[inner]).mean()
    )
    assert window.show(_picture(9, 320)).likeness < 0.3
    back = window.show(np.roll(scene, (22, -22), axis=(0, 1)))
    assert back.likeness > 0.95  # what was not the face has not led the window astray
