"""The mark of framed portraits: kept by reading, worth nothing on other shapes, lost on copies."""

from pathlib import Path

import pytest
from PIL import Image

from video.crop import Box, parse_crop
from video.errors import ImageError
from video.framed_mark import carries_mark, framed_mark
from video.framing import FaceFraming, open_framing
from video.picture import decode_picture
from video.reference import load_portrait

pytestmark = pytest.mark.unit


def saved(path: Path, width: int, height: int, *, marked: bool) -> Path:
    """A plain picture in which nobody could find a face."""
    info = framed_mark() if marked else None
    Image.new("RGB", (width, height), (120, 90, 60)).save(path, pnginfo=info)
    return path


def test_a_marked_square_is_taken_whole_without_a_face(tmp_path: Path) -> None:
    path = saved(tmp_path / "p.png", 512, 512, marked=True)
    assert load_portrait(path, size=(256, 256)).box == Box(x=0, y=0, width=512, height=512)
    framing = open_framing(path, model_size=(256, 256), any_size=True)
    assert isinstance(framing, FaceFraming)
    assert framing.size == (256, 256)


def test_a_crop_by_hand_goes_before_the_mark(tmp_path: Path) -> None:
    path = saved(tmp_path / "p.png", 512, 512, marked=True)
    box = load_portrait(path, size=(256, 256), crop=parse_crop("10,20,200,200")).box
    assert box == Box(x=10, y=20, width=200, height=200)


@pytest.mark.parametrize(("width", "height", "marked"), [(512, 512, False), (512, 400, True)])
def test_without_a_mark_that_holds_a_face_must_be_found(
    tmp_path: Path, width: int, height: int, marked: bool
) -> None:
    path = saved(tmp_path / "p.png", width, height, marked=marked)
    with pytest.raises(ImageError, match="no face found"):
        load_portrait(path, size=(256, 256))


def test_of_the_metadata_only_the_mark_is_kept(tmp_path: Path) -> None:
    info = framed_mark()
    info.add_text("Comment", "anything")
    path = tmp_path / "p.png"
    Image.new("RGBA", (96, 96), (1, 2, 3, 128)).save(path, pnginfo=info)
    picture = decode_picture(path.read_bytes(), "p.png")
    assert carries_mark(picture)
    assert "Comment" not in picture.info
