"""Options are parsed once, exactly, or refused in one line that names the option."""

from contextlib import suppress
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.options import (
    OptionError,
    parse_crop_option,
    parse_fps,
    parse_seconds,
    parse_seed,
    parse_size,
    require_path,
)

pytestmark = pytest.mark.unit


@given(width=st.integers(32, 1024), height=st.integers(32, 1024))
def test_even_sizes_are_read_back(width: int, height: int) -> None:
    assert parse_size(f"{2 * width}x{2 * height}") == (2 * width, 2 * height)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "WxH"),
        ("512", "WxH"),
        ("512x", "WxH"),
        ("-64x64", "WxH"),
        ("64.0x64", "WxH"),
        ("1e3x64", "WxH"),
        ("٦٤x64", "WxH"),
        ("999999x64", "WxH"),
        ("62x64", "64..2048"),
        ("64x2050", "64..2048"),
        ("0x0", "64..2048"),
        ("65x64", "66x64"),
        ("64x101", "64x102"),
    ],
)
def test_other_sizes_are_refused(text: str, says: str) -> None:
    with pytest.raises(OptionError, match=f"--size.*{says}"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "fps"),
    [
        ("25", Fraction(25)),
        ("1", Fraction(1)),
        ("60", Fraction(60)),
        ("29.97", Fraction(2997, 100)),
        ("30000/1001", Fraction(30000, 1001)),
        (" 24 ", Fraction(24)),
    ],
)
def test_frame_rates_are_exact(text: str, fps: Fraction) -> None:
    assert parse_fps(text) == fps


@pytest.mark.parametrize(
    "text",
    ["", "0", "0.5", "61", "-25", "25fps", "1/0", "0/0", "1e1", "nan", "inf", "25/", "1000/10"],
)
def test_other_frame_rates_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match="--fps"):
        parse_fps(text)


@pytest.mark.parametrize("text", ["", "0", "-1", "nan", "inf", "1e3", "ten", "1:30", "9999999"])
def test_times_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match="--max-seconds"):
        parse_seconds(text)


def test_times_are_exact() -> None:
    assert parse_seconds("0.1") == Fraction(1, 10)
    assert parse_seconds("90") == 90


@pytest.mark.parametrize("text", ["", "-1", "1.5", "0x10", "abc", "9223372036854775808", "1 2"])
def test_seeds_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match="--seed"):
        parse_seed(text)


@given(st.integers(0, 2**63 - 1))
def test_seeds_are_read_back(seed: int) -> None:
    assert parse_seed(str(seed)) == seed


def test_crops_and_paths_name_their_option() -> None:
    with pytest.raises(OptionError, match="--crop"):
        parse_crop_option("middle")
    with pytest.raises(OptionError, match="--audio is missing"):
        require_path("--audio", "", "a.wav")
    with pytest.raises(OptionError, match=r"--audio.*NUL"):
        require_path("--audio", "a\0b", "a.wav")


@given(st.text(max_size=60))
def test_no_text_makes_a_parser_raise_anything_else(text: str) -> None:
    for parse in (parse_size, parse_fps, parse_seconds, parse_seed, parse_crop_option):
        with suppress(OptionError):
            parse(text)
