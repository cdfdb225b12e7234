"""What a user's picture becomes: the whole picture, or the face alone."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from video.canvas import Canvas
from video.crop import Box, Crop, parse_crop
from video.errors import ImageError
from video.framing import FaceFraming, Framing, is_framed, open_framing

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[2]
FACE = ROOT / "configs/models/pocket/portraits/ada.png"
MODEL = (256, 256)


def photograph(path: Path, width: int, height: int, side: int, at: tuple[int, int]) -> Path:
    """A plain wall with a framed portrait of `side` pixels hanging at a place."""
    wall = Image.new("RGB", (width, height), (150, 140, 130))
    wall.paste(Image.open(FACE).convert("RGB").resize((side, side)), at)
    wall.save(path)
    return path


def opened(path: Path, **options: object) -> Framing:
    return open_framing(path, model_size=MODEL, any_size=True, **options)  # type: ignore[arg-type]  # by name


def test_a_photograph_is_shown_whole(tmp_path: Path) -> None:
    path = photograph(tmp_path / "p.png", 720, 480, 300, (380, 90))
    framing = opened(path)
    assert isinstance(framing, Canvas)
    assert framing.size == (720, 480)
    assert framing.still_border
    assert abs(framing.box.x - 380) < 30
    assert abs(framing.box.y - 90) < 30
    assert abs(framing.box.width - 300) < 30


def test_a_framed_square_is_shown_as_the_face() -> None:
    framing = opened(FACE)
    assert isinstance(framing, FaceFraming)
    assert framing.size == MODEL
    assert not framing.still_border
    assert opened(FACE, size=(320, 256)).size == (320, 256)
    assert opened(FACE, frame="portrait").size == (512, 512)


def test_face_shows_the_face_of_a_photograph(tmp_path: Path) -> None:
    path = photograph(tmp_path / "p.png", 720, 480, 300, (380, 90))
    assert opened(path, frame="face").size == MODEL
    assert opened(path, frame="face", size=(128, 96)).size == (128, 96)


def test_a_crop_says_what_to_show_unless_the_frame_does(tmp_path: Path) -> None:
    path = photograph(tmp_path / "p.png", 720, 480, 300, (380, 90))
    crop = parse_crop("380,90,300,300")
    assert opened(path, crop=crop).size == MODEL
    framing = opened(path, crop=crop, frame="portrait")
    assert isinstance(framing, Canvas)
    assert framing.box == Box(x=380, y=90, width=300, height=300)


def test_a_picture_without_a_face_needs_a_crop(tmp_path: Path) -> None:
    path = tmp_path / "wall.png"
    Image.new("RGB", (400, 300), (90, 90, 90)).save(path)
    for frame in ("auto", "portrait"):
        with pytest.raises(ImageError, match="no face found: use --crop"):
            opened(path, frame=frame)
    assert opened(path, frame="portrait", crop=Crop(mode="center")).size == (400, 300)


def test_the_larger_of_two_faces_talks(tmp_path: Path) -> None:
    path = photograph(tmp_path / "p.png", 900, 480, 380, (480, 60))
    both = Image.open(path)
    both.paste(Image.open(FACE).convert("RGB").resize((220, 220)), (60, 130))
    both.save(path)
    framing = opened(path)
    assert isinstance(framing, Canvas)
    assert framing.box.x > 400


@pytest.mark.parametrize("mode", ["L", "RGBA", "I;16"])
def test_grey_transparent_and_deep_pictures_are_canvases(tmp_path: Path, mode: str) -> None:
    path = photograph(tmp_path / "p.png", 500, 400, 300, (100, 50))
    image: Image.Image = Image.open(path)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    else:
        image = image.convert(mode)
    image.save(path)
    assert opened(path).size == (500, 400)


def test_a_turned_photograph_stands_upright(tmp_path: Path) -> None:
    path = photograph(tmp_path / "p.png", 480, 720, 300, (90, 90))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    assert opened(path).size == (480, 720)


@pytest.mark.parametrize(
    ("picture", "box", "framed"),
    [
        ((512, 512), Box(x=-10, y=-10, width=530, height=530), True),
        ((512, 512), Box(x=50, y=50, width=420, height=420), True),
        ((512, 512), Box(x=50, y=50, width=400, height=400), False),
        ((512, 500), Box(x=0, y=0, width=500, height=500), False),
        ((800, 800), Box(x=0, y=0, width=800, height=800), False),
    ],
)
def test_framed_is_small_square_and_filled(
    picture: tuple[int, int], box: Box, framed: bool
) -> None:
    assert is_framed(picture, box) == framed
