"""The strip of the cast: its layout, its limit, the same files again, and one small render."""

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from docs import strip
from pipeline.catalog import model_path
from pipeline.model import load_model

pytestmark = pytest.mark.unit

FPS = Fraction(25)


def people(count: int, num_frames: int = 6) -> list[np.ndarray]:
    """People of one grey each: 10, 20, ..."""
    return [np.full((num_frames, 8, 8, 3), 10 * (i + 1), np.uint8) for i in range(count)]


def test_eleven_stand_in_two_rows_the_second_in_the_middle() -> None:
    corners = strip.places(11, 6, 10)
    assert corners[:6] == [(0, 0), (10, 0), (20, 0), (30, 0), (40, 0), (50, 0)]
    assert corners[6:] == [(5, 10), (15, 10), (25, 10), (35, 10), (45, 10)]
    assert strip.places(3, 6, 10) == [(0, 0), (10, 0), (20, 0)]


def test_everybody_is_in_their_place_and_nothing_is_beside_them() -> None:
    pictures = strip.lay_out(people(11), 6, 16)
    assert len(pictures) == 6
    assert pictures[0].size == (96, 32)
    for index, (x, y) in enumerate(strip.places(11, 6, 16)):
        assert pictures[0].getpixel((x + 8, y + 8)) == (*[10 * (index + 1)] * 3, 255)
    assert pictures[0].getpixel((3, 20)) == (0, 0, 0, 0)


def test_the_files_fit_and_are_the_same_again(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (11, 4, 160, 160, 3), dtype=np.uint8)
    limit = 700_000
    contents = []
    for name in ("one", "two"):
        strip.save_animation(list(noise), tmp_path / f"{name}.webp", FPS, limit)
        strip.save_picture(list(noise), tmp_path / f"{name}.png", 1_500_000)
        contents.append([(tmp_path / f"{name}.{end}").read_bytes() for end in ("webp", "png")])
    assert contents[0] == contents[1]
    webp, png = contents[0]
    assert len(webp) <= limit
    assert len(png) <= 1_500_000
    with Image.open(tmp_path / "one.webp") as animation:
        assert getattr(animation, "n_frames", 1) == 4
    with Image.open(tmp_path / "one.png") as picture:
        side = picture.width // 6
        assert side in strip.SIDES_PX
        assert picture.size == (6 * side, 2 * side * strip.MOMENTS)


def test_what_cannot_fit_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="use fewer seconds"):
        strip.save_picture(people(2), tmp_path / "p.png", 10)


def test_without_a_cast_the_script_says_what_draws_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["strip.py", "--model", str(tmp_path / "none")])
    with pytest.raises(SystemExit):
        strip.main()
    assert "viva data portraits" in capsys.readouterr().err


def test_somebody_talks_for_the_seconds_asked() -> None:
    folder = model_path("pocket")
    model = load_model("pocket")
    leo = folder / "portraits" / "leo.png"
    frames_THWC = strip.talk(model, leo, folder / "speech.flac", 8, 0.5)
    assert frames_THWC.shape == (7, 256, 256, 3)
