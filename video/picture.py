"""Bytes of a PNG, JPEG or WebP to an upright sRGB picture, or one line that says why not.

Everything here treats the file as hostile: what it is is read from its content, its size from its
header before a pixel is decoded, and whatever a decoder raises becomes an ImageError.

Shape legend: H = height, W = width, C = channels.
"""

import io
import stat
import struct
import warnings
import zlib
from pathlib import Path

from PIL import Image, ImageCms

from video.errors import ImageError
from video.framed_mark import keep_mark

MAX_PIXELS = 64_000_000
MAX_SIDE_PX = 20_000
MIN_SIDE_PX = 64
MAX_FILE_BYTES = 128 * 1024 * 1024
# What shows through transparency: mid grey, zero for a network fed with [-1, 1].
BACKGROUND = (128, 128, 128)

_FORMATS = ("PNG", "JPEG", "WEBP")
_CONVERT = "save it as PNG, JPEG or WebP"
# What Pillow's decoders were seen or are documented to raise on broken input.
_DECODER_FAILURES = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    ArithmeticError,
    LookupError,
    TypeError,
    AttributeError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
)
_KNOWN_STARTS = (
    (b"GIF8", "a GIF"),
    (b"BM", "a BMP picture"),
    (b"II*\x00", "a TIFF picture"),
    (b"MM\x00*", "a TIFF picture"),
    (b"%PDF", "a PDF document"),
    (b"\x00\x00\x01\x00", "an icon"),
    (b"8BPS", "a Photoshop document"),
    (b"RIFF", "sound or video"),
    (b"ID3", "sound"),
    (b"OggS", "sound"),
    (b"fLaC", "sound"),
    (b"\x1aE\xdf\xa3", "a video"),
)
_TURNS = {
    2: (Image.Transpose.FLIP_LEFT_RIGHT,),
    3: (Image.Transpose.ROTATE_180,),
    4: (Image.Transpose.FLIP_TOP_BOTTOM,),
    5: (Image.Transpose.TRANSPOSE,),
    6: (Image.Transpose.ROTATE_270,),
    7: (Image.Transpose.TRANSVERSE,),
    8: (Image.Transpose.ROTATE_90,),
}
_ORIENTATION_TAG = 0x0112


def read_picture_file(path: Path, name: str) -> bytes:
    """The bytes of a regular file of bearable size.

    Raises:
        ImageError: missing, not a file, empty, unreadable or too large.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(f"{name}: is a folder: name the picture file in it")
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"{name}: is not a regular file: give a PNG, JPEG or WebP file")
        if status.st_size > MAX_FILE_BYTES:
            raise ImageError(
                f"{name}: has {status.st_size // 2**20} MiB, more than "
                f"{MAX_FILE_BYTES // 2**20}: make it smaller"
            )
        if status.st_size == 0:  # also what the kernel says of its own files, which may block
            raise ImageError(f"{name}: is empty: give a PNG, JPEG or WebP picture")
        return path.read_bytes()
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file: check the portrait's path") from None
    except ImageError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ImageError(f"{name}: cannot be read ({reason}): check path and rights") from error


def decode_picture(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """An upright 8-bit sRGB picture (mode RGB) of `data`; `name` is what messages call it.

    The EXIF orientation is applied, an ICC profile converted to sRGB (one that does not fit the
    picture is ignored, as browsers do), transparency laid over mid grey, CMYK, grey, palette and
    16-bit pictures converted. Of a multi-picture JPEG (MPO) the first picture counts. Of the
    metadata only the mark of framed portraits stays (`video.framed_mark`).

    Raises:
        ImageError: not a still PNG, JPEG or WebP, too large, too small, or damaged.
    """
    if not data:
        raise ImageError(f"{name}: is empty: give a PNG, JPEG or WebP picture")
    with warnings.catch_warnings():
        # Pillow warns of large sizes and odd metadata; sizes are judged below, metadata is not.
        warnings.simplefilter("ignore")
        image = _opened(data, name)
        _check_header(image, name, max_pixels)
        try:
            image.load()
            # A decoder may change the mode while it reads, so convert only now.
            return keep_mark(image, _upright(_srgb(image), _orientation(image)))
        except _DECODER_FAILURES as error:
            raise ImageError(
                f"{name}: is damaged or cut short ({_reason(error)}): get a fresh copy of it"
            ) from error


def _opened(data: bytes, name: str) -> Image.Image:
    """The picture with its header read and nothing decoded."""
    try:
        return Image.open(io.BytesIO(data), formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{name}: has more than {MAX_PIXELS // 10**6} megapixels: scale it down first"
        ) from error
    except _DECODER_FAILURES as error:
        if data.startswith((b"\x89PNG", b"\xff\xd8\xff")) or data[8:12] == b"WEBP":
            raise ImageError(f"{name}: is damaged or cut short: get a fresh copy of it") from error
        raise ImageError(
            f"{name}: is {_kind(data)}, not a PNG, JPEG or WebP picture: {_CONVERT}"
        ) from error


def _check_header(image: Image.Image, name: str, max_pixels: int) -> None:
    """Refuse by what the header says."""
    width, height = image.size
    if width * height > max_pixels or max(width, height) > MAX_SIDE_PX:
        raise ImageError(
            f"{name}: {width}x{height} is more than {max_pixels // 10**6} megapixels or "
            f"{MAX_SIDE_PX} pixels a side: scale it down first"
        )
    if min(width, height) < MIN_SIDE_PX:
        raise ImageError(
            f"{name}: {width}x{height} is too small: give a portrait of at least "
            f"{MIN_SIDE_PX}x{MIN_SIDE_PX} pixels"
        )
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise ImageError(f"{name}: is animated: save one frame of it as a still picture")


def _kind(data: bytes) -> str:
    """What the file looks like instead, in words."""
    if data[4:8] == b"ftyp":
        return "an AVIF or HEIC picture" if data[8:12] in _STILL_BRANDS else "a video"
    for start, kind in _KNOWN_STARTS:
        if data.startswith(start):
            return kind
    head = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in head:
        return "an SVG drawing"
    return "text" if head.isascii() and b"\x00" not in head else "something else"


_STILL_BRANDS = (b"avif", b"heic", b"heix", b"mif1", b"msf1")


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation 1..8; 1 where the metadata is missing or broken."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except _DECODER_FAILURES:
        return 1
    return value if isinstance(value, int) and value in _TURNS else 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    for turn in _TURNS.get(orientation, ()):
        image = image.transpose(turn)
    return image


def _srgb(image: Image.Image) -> Image.Image:
    """The picture as 8-bit sRGB over the background."""
    icc = image.info.get("icc_profile")
    image = _eight_bit(image)
    alpha = None
    if image.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        # Flattening comes after colour management, so that the background keeps its grey.
        alpha, image = rgba.getchannel("A"), rgba.convert("RGB")
    if image.mode not in ("RGB", "L", "CMYK"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    colour = _colour_managed(image, icc).convert("RGB")
    if alpha is None:
        return colour
    return Image.composite(colour, Image.new("RGB", colour.size, BACKGROUND), alpha)


def _eight_bit(image: Image.Image) -> Image.Image:
    """Grey of 16 bits scaled to 8; Pillow's own conversion would clip it to white."""
    if not image.mode.startswith("I"):
        return image
    wide = image.convert("I")
    key = image.info.get("transparency")
    narrow = wide.point(lambda value: value * (1 / 257) + 0.5).convert("L")
    if isinstance(key, int):
        narrow.info["transparency"] = key // 257
    return narrow


def _colour_managed(image: Image.Image, icc: object) -> Image.Image:
    """The picture converted from its embedded profile, if that fits its channels."""
    if not isinstance(icc, bytes) or not icc:
        return image
    spaces = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        if profile.profile.xcolor_space.strip() != spaces[image.mode]:
            return image
        converted = ImageCms.profileToProfile(
            image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, *_DECODER_FAILURES):
        return image
    return converted if converted is not None else image


def _reason(error: BaseException) -> str:
    """The decoder's own words, short and on one line."""
    return " ".join(str(error).split())[:100] or type(error).__name__
