"""What laying a face back into its picture may change, and what it may not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from video.composite import FEATHER, RIM, Compositor, face_weights, resampled
from video.crop import Box

pytestmark = pytest.mark.unit

WIDTH, HEIGHT = 90, 70
# Inside, over each side, over two corners, and larger than the picture.
BOXES = [
    Box(x=20, y=10, width=40, height=40),
    Box(x=-15, y=10, width=40, height=40),
    Box(x=70, y=10, width=40, height=40),
    Box(x=20, y=-15, width=40, height=40),
    Box(x=20, y=50, width=40, height=40),
    Box(x=-9, y=-9, width=40, height=40),
    Box(x=75, y=55, width=40, height=40),
    Box(x=-10, y=-20, width=110, height=110),
]


def pixels(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def cut(picture: np.ndarray, box: Box) -> np.ndarray:
    """The box of the picture, its edge repeated outside."""
    y = np.clip(np.arange(box.y, box.y + box.height), 0, picture.shape[0] - 1)
    x = np.clip(np.arange(box.x, box.x + box.width), 0, picture.shape[1] - 1)
    return picture[y][:, x]


@given(st.integers(64, 400), st.integers(64, 400))
def test_weights_fade_before_the_border_and_are_full_around_the_face(
    width: int, height: int
) -> None:
    weights = face_weights(width, height)
    assert weights.shape == (height, width)
    assert weights.min() == 0
    assert weights.max() == 1
    for edge in (weights[0], weights[-1], weights[:, 0], weights[:, -1]):
        assert not edge.any()
    margin = int(np.ceil((RIM + FEATHER) * min(width, height)))
    assert (weights[height // 2, margin : width - margin] == 1).all()
    assert (weights[margin : height - margin, width // 2] == 1).all()
    assert np.array_equal(weights, weights[::-1])
    assert np.array_equal(weights, weights[:, ::-1])


def test_weights_have_no_step() -> None:
    weights = face_weights(256, 256)
    steepest = max(np.abs(np.diff(weights, axis=axis)).max() for axis in (0, 1))
    assert steepest < 1.6 / (FEATHER * 256)


@pytest.mark.parametrize("box", BOXES)
def test_a_face_that_did_not_move_gives_the_picture_itself(box: Box) -> None:
    picture = pixels(1, HEIGHT, WIDTH, 3)
    frames = Compositor(picture, box).compose(np.stack([cut(picture, box)] * 2))
    assert frames.shape == (2, HEIGHT, WIDTH, 3)
    assert np.array_equal(frames, np.stack([picture] * 2))


@pytest.mark.parametrize("box", BOXES)
def test_only_where_there_is_weight_does_anything_change(box: Box) -> None:
    picture = pixels(2, HEIGHT, WIDTH, 3)
    inverted = 255 - cut(picture, box)
    (frame,) = Compositor(picture, box).compose(inverted[None])
    changed = (frame != picture).any(axis=-1)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    inside_y, inside_x = y - box.y, x - box.x
    in_box = (inside_y >= 0) & (inside_y < box.height) & (inside_x >= 0) & (inside_x < box.width)
    assert not changed[~in_box].any()
    middle_y = min(max(box.y + box.height // 2, 0), HEIGHT - 1)
    middle_x = min(max(box.x + box.width // 2, 0), WIDTH - 1)
    assert changed[middle_y, middle_x]
    # Where the cut ends inside the picture, its outermost line is the picture's.
    if box.x > 0:
        assert not changed[:, box.x].any()
    if box.y > 0:
        assert not changed[box.y].any()


def test_where_the_picture_ends_the_face_is_shown_up_to_the_edge() -> None:
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    box = Box(x=-12, y=15, width=40, height=40)
    (frame,) = Compositor(picture, box).compose(np.full((1, 40, 40, 3), 200, np.uint8))
    assert (frame[35, :20] == 200).all()
    assert (frame[35, 28:] == 0).all()


def test_full_weight_shows_the_face_and_half_weight_the_mean() -> None:
    picture = np.full((64, 64, 3), 10, np.uint8)
    box = Box(x=0, y=0, width=64, height=64)
    faces = pixels(3, 1, 64, 64, 3)
    (frame,) = Compositor(picture, box).compose(faces)
    weights = face_weights(64, 64)[..., None]
    assert np.array_equal(frame[32, 20:44], faces[0, 32, 20:44])
    expected = 10 + weights * (faces[0].astype(float) - 10)
    assert np.abs(frame - expected).max() <= 1.5


def test_faces_of_a_multiple_of_the_size_are_averaged() -> None:
    picture = pixels(4, HEIGHT, WIDTH, 3)
    box = Box(x=-5, y=10, width=30, height=30)
    large = cut(picture, box).repeat(3, axis=0).repeat(3, axis=1)
    assert np.array_equal(Compositor(picture, box).compose(large[None])[0], picture)


def test_other_sizes_are_resampled_smoothly() -> None:
    ramp = np.repeat(np.linspace(0, 250, 40).astype(np.uint8)[None], 40, axis=0)
    face = np.stack([ramp] * 3, axis=-1)
    assert resampled(face, (40, 40)) is face
    assert resampled(face, (64, 50)).shape == (50, 64, 3)
    assert np.abs(np.diff(resampled(face, (64, 50))[25, :, 0].astype(int))).max() <= 5


def test_the_inputs_are_left_alone_and_frames_do_not_share_memory() -> None:
    picture, faces = pixels(5, HEIGHT, WIDTH, 3), pixels(6, 2, 40, 40, 3)
    kept = picture.copy(), faces.copy()
    compositor = Compositor(picture, BOXES[0])
    first, second = compositor.compose(faces), compositor.compose(faces)
    first[:] = 0
    assert second.any()
    assert np.array_equal(picture, kept[0])
    assert np.array_equal(faces, kept[1])


def test_a_box_beside_the_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="does not touch a picture of 90x70"):
        Compositor(pixels(7, HEIGHT, WIDTH, 3), Box(x=90, y=0, width=40, height=40))
