"""The portrait a model starts from: read, cut and scaled to the model's size.

Shape legend: C = channels, H = height, W = width.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageFilter

from video.crop import Box, Crop, centred_box, parse_crop, widened_box
from video.errors import ImageError
from video.face import aligned_box, framed_box, locate_face
from video.framed_mark import carries_mark
from video.picture import MIN_SIDE_PX, decode_picture, read_picture_file

__all__ = ["Crop", "Reference", "load_portrait", "parse_crop", "portrait_from_bytes"]

# The full-resolution cut is for compositing into a video; nobody makes one larger than this.
MAX_CUT_SIDE_PX = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A portrait ready for a model.

    `image_CHW`: float32 in [-1, 1], the model's size. `box`: what was cut, in pixels of the
    upright source; it may reach outside `source_size` (width, height). `cut_HWC`: the same box at
    the source's own resolution (at most 4096 pixels a side), uint8 sRGB, for compositing.
    """

    image_CHW: torch.Tensor
    box: Box
    cut_HWC: npt.NDArray[np.uint8]
    source_size: tuple[int, int]


def load_portrait(
    path: str | Path, *, size: tuple[int, int], crop: Crop | None = None
) -> Reference:
    """Read a portrait file for a model of `size` (width, height); `crop` is auto unless given.

    Raises:
        ImageError: one line naming the file and the remedy.
    """
    name = printable_name(path)
    return portrait_from_bytes(read_picture_file(Path(path), name), name=name, size=size, crop=crop)


def portrait_from_bytes(
    data: bytes, *, name: str, size: tuple[int, int], crop: Crop | None = None
) -> Reference:
    """As `load_portrait`, from the file's content; messages call it `name`.

    Raises:
        ImageError: one line naming the picture and the remedy.
    """
    picture = decode_picture(data, name)
    box = chosen_box(picture, size, crop or Crop(), name)
    return reference_at(picture, box, size)


def printable_name(path: str | Path) -> str:
    """The path as messages show it, on one line."""
    return str(path) if str(path).isprintable() else repr(str(path))


def reference_at(picture: Image.Image, box: Box, size: tuple[int, int]) -> Reference:
    """The portrait that a box of an upright picture is, for a model of `size` (width, height)."""
    cut = cut_out(picture, box)
    # Enlarging or shrinking, LANCZOS in Pillow filters over the source pixels it covers.
    scaled_HWC = np.asarray(cut.resize(size, Image.Resampling.LANCZOS), dtype=np.float32)
    image_CHW = torch.from_numpy(scaled_HWC / 127.5 - 1.0).permute(2, 0, 1).contiguous()
    return Reference(
        image_CHW=image_CHW,
        box=box,
        cut_HWC=np.array(cut, dtype=np.uint8),
        source_size=picture.size,
    )


def chosen_box(picture: Image.Image, size: tuple[int, int], crop: Crop, name: str) -> Box:
    """The box a crop means in this picture.

    A box given by hand with another aspect than the model's is widened around its centre, so
    that nothing chosen is lost and nobody is stretched. Of a portrait that is marked as framed
    `auto` takes the whole, without looking for a face.
    """
    if crop.box is not None:
        _check_box(crop.box, picture.size, name)
        return widened_box(crop.box, size)
    if crop.mode == "none":
        return widened_box(Box(x=0, y=0, width=picture.width, height=picture.height), size)
    if crop.mode == "center":
        return centred_box(picture.size, size)
    if carries_mark(picture):
        return framed_box(picture.width, size)
    face = locate_face(np.asarray(picture, dtype=np.uint8))
    remedy = "use --crop center, or --crop x,y,w,h around the head"
    if face is None:
        raise ImageError(f"{name}: no face found: {remedy}")
    box = aligned_box(face, size)
    if min(box.width, box.height) < MIN_SIDE_PX:
        raise ImageError(
            f"{name}: the face is too small ({box.width}x{box.height} pixels with its surroundings)"
            f": give a closer portrait, or {remedy}"
        )
    return box


def _check_box(box: Box, picture: tuple[int, int], name: str) -> None:
    """Refuse a box that is not wholly in the picture, or too small to be a portrait."""
    where = f"{box.x},{box.y},{box.width},{box.height}"
    if not box.inside(*picture):
        raise ImageError(
            f"{name}: the crop {where} reaches outside the picture of {picture[0]}x{picture[1]}: "
            "choose x,y,w,h inside it"
        )
    if min(box.width, box.height) < MIN_SIDE_PX:
        raise ImageError(
            f"{name}: the crop {where} is too small: choose at least "
            f"{MIN_SIDE_PX}x{MIN_SIDE_PX} pixels"
        )


def cut_out(picture: Image.Image, box: Box) -> Image.Image:
    """The box at the source's resolution, its outside filled from the picture's edge."""
    left, top = max(0, box.x), max(0, box.y)
    right = min(picture.width, box.x + box.width)
    bottom = min(picture.height, box.y + box.height)
    inside = picture.crop((left, top, right, bottom))
    scale = min(1.0, MAX_CUT_SIDE_PX / max(box.width, box.height))
    if scale < 1.0:
        inside = inside.resize(
            (max(1, round(inside.width * scale)), max(1, round(inside.height * scale))),
            Image.Resampling.LANCZOS,
        )
    if box.inside(*picture.size):
        return inside
    width, height = max(1, round(box.width * scale)), max(1, round(box.height * scale))
    before_x = min(round((left - box.x) * scale), width - inside.width)
    before_y = min(round((top - box.y) * scale), height - inside.height)
    after_x, after_y = width - inside.width - before_x, height - inside.height - before_y
    return _extended(inside, (before_x, after_x), (before_y, after_y))


def _extended(inside: Image.Image, pad_x: tuple[int, int], pad_y: tuple[int, int]) -> Image.Image:
    """The picture with its edges repeated outwards, softer the farther out; inside unchanged."""
    repeated = np.pad(np.asarray(inside), (pad_y, pad_x, (0, 0)), mode="edge")
    sharp = Image.fromarray(repeated)
    widest = max(*pad_x, *pad_y)
    soft = sharp.filter(ImageFilter.GaussianBlur(max(2.0, widest / 6)))
    # 0 on the inside, rising to 255 over a quarter of the widest margin: no seam at the edge.
    ramp = max(1.0, widest / 4)
    out_x = _distance_outside(inside.width, pad_x)
    out_y = _distance_outside(inside.height, pad_y)
    out_HW = np.maximum(out_y[:, None], out_x[None, :])
    mask = np.clip(out_HW * (255.0 / ramp), 0, 255).astype(np.uint8)
    return Image.composite(soft, sharp, Image.fromarray(mask))


def _distance_outside(length: int, pad: tuple[int, int]) -> npt.NDArray[np.float32]:
    """For each pixel of a padded line, how far it lies outside the unpadded one."""
    at = np.arange(length + sum(pad), dtype=np.float32) - pad[0]
    return np.maximum(np.maximum(-at, at - (length - 1)), 0.0)
