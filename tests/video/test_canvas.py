"""The whole picture around a face: its size, its exactness, the face's place in it."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from video.canvas import MAX_FACE_PX, MAX_SIDE_PX, Canvas, face_image, open_canvas
from video.chunk import VideoChunk
from video.crop import Box
from video.errors import ImageError

pytestmark = pytest.mark.unit


def picture(width: int, height: int) -> Image.Image:
    """Smooth structure with some noise, as photographs have."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [120 + 90 * np.sin(x / 17 + y / (11 + c) + c) for c in range(3)]
    noise = np.random.default_rng(0).normal(0, 8, (height, width, 3))
    return Image.fromarray(np.clip(np.stack(waves, -1) + noise, 0, 255).astype(np.uint8))


def chunk_of(face_BCHW: torch.Tensor) -> VideoChunk:
    """What a model says that does not move anything."""
    levels = face_BCHW[0].add(1).mul(127.5).round().to(torch.uint8)
    frames_THWC = levels.permute(1, 2, 0)[None].numpy()
    return VideoChunk(frames_THWC=frames_THWC, pts=7, time_base=Fraction(1, 25))


def still(canvas: Canvas) -> np.ndarray:
    (frame_HWC,) = canvas.compose(chunk_of(canvas.face_BCHW)).frames_THWC
    return np.asarray(frame_HWC)


@pytest.mark.parametrize(
    "box",
    [
        Box(x=100, y=60, width=201, height=201),
        Box(x=-40, y=-30, width=230, height=230),
        Box(x=250, y=150, width=256, height=256),
        Box(x=300, y=20, width=64, height=64),
        Box(x=10, y=200, width=83, height=83),
    ],
    ids=["inside", "top left corner", "bottom right corner", "tiny", "small"],
)
def test_without_motion_the_picture_is_the_users_own(box: Box) -> None:
    source = picture(400, 300)
    canvas = open_canvas(source, box, "p")
    assert canvas.size == (400, 300)
    assert canvas.box == box
    assert np.abs(still(canvas).astype(int) - np.asarray(source)).max() <= 1


def test_time_is_unchanged() -> None:
    canvas = open_canvas(picture(200, 200), Box(x=0, y=0, width=200, height=200), "p")
    chunk = canvas.compose(chunk_of(canvas.face_BCHW))
    assert (chunk.pts, chunk.time_base, chunk.num_frames) == (7, Fraction(1, 25), 1)


def test_an_odd_picture_loses_a_line_rather_than_its_pixels() -> None:
    source = picture(401, 303)
    canvas = open_canvas(source, Box(x=100, y=60, width=200, height=200), "p")
    assert canvas.size == (400, 302)
    assert np.abs(still(canvas).astype(int) - np.asarray(source)[:302, :400]).max() <= 1


@settings(max_examples=12, deadline=None)
@given(st.integers(300, 3000), st.integers(300, 3000))
def test_sizes_are_even_bounded_and_of_the_pictures_shape(width: int, height: int) -> None:
    source = Image.new("RGB", (width, height), (90, 120, 150))
    side = min(width, height) // 2
    canvas = open_canvas(source, Box(x=20, y=30, width=side, height=side), "p")
    assert max(canvas.size) <= MAX_SIDE_PX
    assert all(length % 2 == 0 for length in canvas.size)
    scale = min(1, MAX_SIDE_PX / max(width, height))
    assert abs(canvas.size[0] - width * scale) <= 1
    assert abs(canvas.size[1] - height * scale) <= 1
    assert canvas.box.width == canvas.box.height
    assert abs(canvas.box.width - side * scale) <= 2
    assert abs(canvas.box.x - 20 * scale) <= 1
    assert abs(canvas.box.y - 30 * scale) <= 1


def test_a_size_is_covered_with_the_face_in_sight() -> None:
    source = picture(1200, 600)
    face = Box(x=950, y=100, width=200, height=200)
    canvas = open_canvas(source, face, "p", size=(400, 400))
    assert canvas.size == (400, 400)
    assert canvas.box.inside(400, 400)
    # Shown is the right-hand square of 600 pixels, at two thirds.
    assert (canvas.box.x, canvas.box.y) == (round((950 - 600) / 1.5), round(100 / 1.5))
    assert canvas.box.width == round(200 / 1.5)


def test_a_larger_size_enlarges() -> None:
    canvas = open_canvas(
        picture(200, 100), Box(x=50, y=0, width=100, height=100), "p", size=(400, 200)
    )
    assert canvas.size == (400, 200)
    assert canvas.box == Box(x=100, y=0, width=200, height=200)


def test_a_model_of_one_size_gets_that_size() -> None:
    source = picture(400, 300)
    canvas = open_canvas(source, Box(x=100, y=60, width=160, height=120), "p", face_size=(128, 96))
    assert canvas.face_BCHW.shape == (1, 3, 96, 128)
    error = np.abs(still(canvas).astype(int) - np.asarray(source))
    assert error[:, :100].max() == 0
    assert error.mean() < 3


def test_large_faces_are_generated_within_bounds() -> None:
    canvas = open_canvas(picture(1600, 1600), Box(x=0, y=0, width=1600, height=1600), "p")
    assert canvas.face_BCHW.shape[-2:] == (MAX_FACE_PX, MAX_FACE_PX)
    assert still(canvas).shape == (1600, 1600, 3)


def test_a_strip_is_refused_in_one_line() -> None:
    with pytest.raises(ImageError, match="p: a picture of 6000x100 shows as 1920x32, too thin"):
        open_canvas(picture(6000, 100), Box(x=0, y=0, width=100, height=100), "p")


def test_a_face_stays_where_it_was_to_a_fraction_of_a_pixel() -> None:
    """A dot's centre of gravity, seen through a model of three times the size and through one."""
    y, x = np.mgrid[0:120, 0:160]
    dot = np.exp(-((x - 71.3) ** 2 + (y - 48.6) ** 2) / 18)
    source = Image.fromarray(np.repeat((250 * dot)[..., None], 3, -1).astype(np.uint8))
    for size in ((180, 180), (47, 47), (90, 90)):
        canvas = open_canvas(source, Box(x=40, y=20, width=60, height=60), "p", face_size=size)
        seen = still(canvas)[..., 0].astype(float)
        assert abs((seen * x).sum() / seen.sum() - 71.3) < 0.1
        assert abs((seen * y).sum() / seen.sum() - 48.6) < 0.1


def test_averages_over_an_enlarged_cut_are_the_cut() -> None:
    cut = np.asarray(picture(64, 64))
    large = face_image(cut, (192, 192))[0].permute(1, 2, 0).numpy()
    means = large.reshape(64, 3, 64, 3, 3).mean(axis=(1, 3))
    assert np.abs((means + 1) * 127.5 - cut).mean() < 0.05
    assert np.abs((means + 1) * 127.5 - cut).max() < 6, "only where an overshoot is clipped"
