"""What a portrait becomes, and what every unusable one is told. All inputs are made here."""

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from video.crop import Box, Crop, centred_box, parse_crop, widened_box
from video.errors import ImageError
from video.reference import load_portrait, portrait_from_bytes

pytestmark = pytest.mark.unit

NONE = Crop(mode="none")
SIZE = (96, 96)


def sample(width: int = 128, height: int = 128) -> Image.Image:
    """Four flat quarters: red, green / blue, yellow."""
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[: height // 2, : width // 2] = (220, 40, 40)
    rgb[: height // 2, width // 2 :] = (40, 200, 40)
    rgb[height // 2 :, : width // 2] = (40, 40, 220)
    rgb[height // 2 :, width // 2 :] = (220, 220, 40)
    return Image.fromarray(rgb)


def noise(width: int = 128, height: int = 128) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def encoded(image: Image.Image, format_: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds almost no data."""

    def part(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + part(b"IHDR", head)
        + part(b"IDAT", zlib.compress(bytes(1000)))
        + part(b"IEND", b"")
    )


def animated(format_: str) -> bytes:
    frames = [sample(), noise()]
    return encoded(frames[0], format_, save_all=True, append_images=frames[1:], duration=100)


def quarters(data: bytes, name: str = "p.png") -> np.ndarray:
    """The colours in the middle of the four quarters, 0..255, row by row."""
    reference = portrait_from_bytes(data, name=name, size=SIZE, crop=NONE)
    image_HWC = ((reference.image_CHW + 1) * 127.5).permute(1, 2, 0).numpy()
    return np.array([image_HWC[y, x] for y in (24, 72) for x in (24, 72)])


EXPECTED = np.array([(220, 40, 40), (40, 200, 40), (40, 40, 220), (220, 220, 40)])


def test_the_promised_tensor() -> None:
    reference = portrait_from_bytes(encoded(sample(), "PNG"), name="p", size=(64, 96), crop=NONE)
    assert reference.image_CHW.shape == (3, 96, 64)
    assert reference.image_CHW.dtype == torch.float32
    assert reference.image_CHW.is_contiguous()
    assert float(reference.image_CHW.min()) >= -1
    assert float(reference.image_CHW.max()) <= 1
    assert reference.source_size == (128, 128)
    assert reference.cut_HWC.shape == (reference.box.height, reference.box.width, 3)


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP"])
def test_formats_are_known_by_content(tmp_path: Path, format_: str) -> None:
    options = {} if format_ == "PNG" else {"quality": 95}
    path = tmp_path / "name.txt"
    path.write_bytes(encoded(sample(), format_, **options))
    reference = load_portrait(path, size=SIZE, crop=NONE)
    assert np.abs(quarters(path.read_bytes()) - EXPECTED).max() < 12
    assert reference.box == Box(x=0, y=0, width=128, height=128)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    """The picture is stored turned; read, it stands upright with its size swapped back."""
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    upright = sample(128, 96)
    stored = upright.transpose(back[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(stored, "JPEG", exif=exif, quality=95, subsampling=0)
    reference = portrait_from_bytes(data, name="p", size=(128, 96), crop=NONE)
    assert reference.source_size == (128, 96)
    assert np.abs(reference.cut_HWC.astype(int) - np.asarray(upright)).mean() < 4


def test_broken_exif_is_ignored() -> None:
    data = encoded(sample(), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff", quality=95)
    assert np.abs(quarters(data) - EXPECTED).max() < 12


def swapped_profile() -> bytes:
    """An RGB profile that is not sRGB: sRGB with its red and green columns exchanged."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile = bytearray(bytes(profile).replace(b"rXYZ", b"tmpX").replace(b"gXYZ", b"rXYZ"))
    return bytes(profile.replace(b"tmpX", b"gXYZ"))


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP"])
def test_icc_profile_is_converted(format_: str) -> None:
    """Under the swapped profile, what is stored as red means green."""
    data = encoded(sample(), format_, icc_profile=swapped_profile())
    red_quarter, green_quarter = quarters(data)[:2]
    assert red_quarter[1] > 150 > red_quarter[0]
    assert green_quarter[0] > 150 > green_quarter[1]


@pytest.mark.parametrize("profile", [b"not a profile", swapped_profile()[:200]])
def test_a_broken_profile_is_ignored(profile: bytes) -> None:
    assert np.abs(quarters(encoded(sample(), "PNG", icc_profile=profile)) - EXPECTED).max() < 3


def test_a_profile_of_another_colour_space_is_ignored() -> None:
    grey = sample().convert("L")
    plain = quarters(encoded(grey, "PNG"))
    assert np.array_equal(quarters(encoded(grey, "PNG", icc_profile=swapped_profile())), plain)


def test_transparency_shows_mid_grey() -> None:
    rgba = sample().convert("RGBA")
    alpha = np.full((128, 128), 255, np.uint8)
    alpha[:64, :64] = 0
    alpha[64:, 64:] = 128
    rgba.putalpha(Image.fromarray(alpha))
    for format_, options in (("PNG", {}), ("WEBP", {"lossless": True})):
        got = quarters(encoded(rgba, format_, **options))
        assert np.abs(got[0] - 128).max() <= 1
        assert np.abs(got[1] - EXPECTED[1]).max() <= 1
        assert np.abs(got[3] - (EXPECTED[3] + 128) / 2).max() <= 2


def test_the_backdrop_of_transparency_is_not_colour_managed() -> None:
    rgba = sample().convert("RGBA")
    rgba.putalpha(0)
    got = quarters(encoded(rgba, "PNG", icc_profile=swapped_profile()))
    assert np.abs(got - 128).max() <= 1


def test_palette_with_transparency() -> None:
    data = encoded(sample().convert("P", palette=Image.Palette.ADAPTIVE), "PNG")
    assert np.abs(quarters(data) - EXPECTED).max() <= 3
    keyed = sample().convert("P", palette=Image.Palette.ADAPTIVE)
    index = keyed.getpixel((10, 10))
    got = quarters(encoded(keyed, "PNG", transparency=index))
    assert np.abs(got[0] - 128).max() <= 1
    assert np.abs(got[1] - EXPECTED[1]).max() <= 3


@pytest.mark.parametrize("mode", ["L", "LA", "1"])
def test_grey_pictures(mode: str) -> None:
    got = quarters(encoded(sample().convert(mode), "PNG"))
    assert np.abs(got - got[:, :1]).max() == 0


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    ramp = np.repeat(np.linspace(0, 65535, 128).astype(np.uint16)[None], 128, axis=0)
    data = encoded(Image.fromarray(ramp), "PNG")
    cut = portrait_from_bytes(data, name="p", size=SIZE, crop=NONE).cut_HWC
    assert np.abs(cut[0, :, 0].astype(float) - ramp[0] / 257).max() <= 1


def test_cmyk_jpeg() -> None:
    data = encoded(sample().convert("CMYK"), "JPEG", quality=95, subsampling=0)
    assert np.abs(quarters(data) - EXPECTED).max() < 12


BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "is empty"),
    "text": (lambda: b"hello, I am not a picture\n" * 9, "is text"),
    "svg": (lambda: b"<?xml version='1.0'?>\n<svg width='9'></svg>", "an SVG drawing"),
    "gif": (lambda: encoded(sample(), "GIF"), "is a GIF"),
    "animated gif": (lambda: animated("GIF"), "is a GIF"),
    "bmp": (lambda: encoded(sample(), "BMP"), "a BMP picture"),
    "tiff": (lambda: encoded(sample(), "TIFF"), "a TIFF picture"),
    "avif": (lambda: b"\0\0\0\x20ftypavif" + bytes(90), "AVIF or HEIC"),
    "mp4": (lambda: b"\0\0\0\x20ftypisom" + bytes(90), "a video"),
    "wav": (lambda: b"RIFF\0\0\0\0WAVEfmt " + bytes(90), "sound or video"),
    "binary": (lambda: bytes(range(256)), "something else"),
    "animated webp": (lambda: animated("WEBP"), "is animated"),
    "animated png": (lambda: animated("PNG"), "is animated"),
    "bomb": (lambda: png_header(50_000, 50_000), "scale it down"),
    "large": (lambda: png_header(9_000, 9_000), "scale it down"),
    "long": (lambda: png_header(30_000, 70), "scale it down"),
    "one pixel": (lambda: encoded(sample(1, 1), "PNG"), "1x1 is too small"),
    "narrow": (lambda: encoded(sample(63, 500), "PNG"), "63x500 is too small"),
    "no pixels": (lambda: png_header(200, 200), "damaged or cut short"),
    "zero size": (lambda: png_header(0, 0), "damaged or cut short"),
    "png half": (lambda: encoded(noise(), "PNG")[:20_000], "damaged or cut short"),
    "jpeg half": (lambda: encoded(noise(), "JPEG")[:4_000], "damaged or cut short"),
    "webp half": (lambda: encoded(noise(), "WEBP")[:4_000], "damaged or cut short"),
    "png start": (lambda: encoded(noise(), "PNG")[:20], "damaged or cut short"),
    "jpeg start": (lambda: encoded(noise(), "JPEG")[:20], "damaged or cut short"),
    "webp start": (lambda: encoded(noise(), "WEBP")[:20], "damaged or cut short"),
    "faceless": (lambda: encoded(sample(), "PNG"), "no face found: use --crop center"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_pictures_get_one_line(tmp_path: Path, case: str) -> None:
    make, message = BAD[case]
    path = tmp_path / "portrait.png"
    path.write_bytes(make())
    with pytest.raises(ImageError) as caught:
        load_portrait(path, size=SIZE)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_paths_get_one_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "huge.png").touch()
    os.truncate(tmp_path / "huge.png", 200 * 2**20)
    for name, message in {
        "missing.png": "no such file",
        "": "is a folder",
        "pipe": "not a regular file",
        "zero": "not a regular file",
        "loop": "cannot be read",
        "huge.png": "200 MiB",
        "n" * 300: "cannot be read",
        "nul\x00.png": "cannot be read",
        "line\nbreak.png": "no such file",
    }.items():
        with pytest.raises(ImageError, match=message) as caught:
            load_portrait(tmp_path / name, size=SIZE)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP"])
@given(st.data())
def test_damage_anywhere_is_a_picture_or_one_line(format_: str, data: st.DataObject) -> None:
    """Cut or flip any byte: never another exception than ImageError."""
    whole = bytearray(encoded(noise(64, 64), format_, icc_profile=swapped_profile()))
    at = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        del whole[at:]
    else:
        whole[at] ^= data.draw(st.integers(1, 255))
    message = "p: "
    try:
        reference = portrait_from_bytes(bytes(whole), name="p", size=SIZE, crop=NONE)
        assert reference.image_CHW.shape == (3, 96, 96)
    except ImageError as error:
        message = str(error)
    assert message.startswith("p: ")
    assert "\n" not in message


def test_a_margin_is_soft_and_leaves_the_inside_alone() -> None:
    data = encoded(noise(128, 64), "PNG")
    reference = portrait_from_bytes(data, name="p", size=SIZE, crop=NONE)
    assert reference.box == Box(x=0, y=-32, width=128, height=128)
    cut = reference.cut_HWC.astype(int)
    assert np.array_equal(cut[32:96], np.asarray(noise(128, 64)))
    assert np.abs(cut[31] - cut[32]).mean() < 20, "no seam where the margin begins"
    assert np.diff(cut[0], axis=0).std() < np.diff(cut[32], axis=0).std() / 4, "far out is soft"


def test_a_box_is_cut_where_it_says() -> None:
    data = encoded(noise(200, 150), "PNG")
    reference = portrait_from_bytes(data, name="p", size=SIZE, crop=parse_crop("40,30,64,64"))
    assert np.array_equal(reference.cut_HWC, np.asarray(noise(200, 150))[30:94, 40:104])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("140,0,64,64", "reaches outside the picture of 200x150"),
        ("0,100,64,64", "reaches outside"),
        ("0,0,201,64", "reaches outside"),
        ("0,0,63,64", "too small"),
    ],
)
def test_boxes_that_do_not_fit_are_refused(text: str, message: str) -> None:
    data = encoded(noise(200, 150), "PNG")
    with pytest.raises(ImageError, match=message):
        portrait_from_bytes(data, name="p", size=SIZE, crop=parse_crop(text))


def test_a_huge_cut_is_bounded() -> None:
    data = encoded(Image.new("RGB", (6000, 100), (9, 99, 199)), "PNG")
    reference = portrait_from_bytes(data, name="p", size=SIZE, crop=NONE)
    assert reference.cut_HWC.shape == (4096, 4096, 3)
    assert reference.box.width == 6000


@given(st.sampled_from(["auto", "center", "none"]), st.sampled_from([str.upper, str.title, str]))
def test_crop_words(word: str, spelling: Callable[[str], str]) -> None:
    assert parse_crop(f" {spelling(word)} ") == Crop(mode=word)  # type: ignore[arg-type]  # drawn


boxes = st.builds(
    Box,
    x=st.integers(0, 999_999),
    y=st.integers(0, 999_999),
    width=st.integers(1, 999_999),
    height=st.integers(1, 999_999),
)


@given(boxes)
def test_crop_boxes_survive_printing(box: Box) -> None:
    crop = Crop(mode="box", box=box)
    assert parse_crop(str(crop)) == crop


@given(st.text(max_size=30))
def test_crop_text_is_a_crop_or_one_line(text: str) -> None:
    message = "use auto, center, none or x,y,width,height"
    try:
        crop = parse_crop(text)
        assert parse_crop(str(crop)) == crop
    except ValueError as error:
        message = str(error)
    assert "use auto, center, none or x,y,width,height" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "text",
    ["", "face", "1,2,3", "1,2,3,4,5", "-1,0,64,64", "0,0,0,9", "0,0,9,0", "1.5,0,9,9", "٣,0,9,9",
     "1_0,0,9,9", "0,0,1e3,9", "9999999,0,9,9"],
)  # fmt: skip
def test_crops_that_mean_nothing_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="use auto, center, none"):
        parse_crop(text)


def test_contradicting_crops_are_refused() -> None:
    with pytest.raises(ValueError, match="contradicts"):
        Crop(mode="box")
    with pytest.raises(ValueError, match="contradicts"):
        Crop(mode="auto", box=Box(x=0, y=0, width=9, height=9))


sides = st.integers(64, 4000)


@given(picture=st.tuples(sides, sides), size=st.tuples(sides, sides))
def test_boxes_keep_the_models_aspect(picture: tuple[int, int], size: tuple[int, int]) -> None:
    inner = centred_box(picture, size)
    assert inner.inside(*picture)
    assert inner.width == picture[0] or inner.height == picture[1]
    assert abs(inner.width * size[1] - inner.height * size[0]) <= max(size)
    outer = widened_box(Box(x=0, y=0, width=picture[0], height=picture[1]), size)
    assert outer.x <= 0
    assert outer.y <= 0
    assert outer.width >= picture[0]
    assert outer.height >= picture[1]
    assert abs(outer.width * size[1] - outer.height * size[0]) <= max(size)
