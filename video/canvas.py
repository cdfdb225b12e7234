"""The user's whole picture as the place where the face moves.

The model sees the face cut out of the canvas at the canvas's own pixels, so what it leaves alone
falls back exactly where it was. There is no rotation to undo: alignment cuts an upright box.

Shape legend: B = batch (1), C = channels, T = frames, H = height, W = width.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image

from video.chunk import VideoChunk
from video.composite import Compositor, Pixels
from video.crop import Box
from video.errors import ImageError
from video.reference import cut_out

# The picture's longest side unless a size is asked for, and the shortest side of a canvas.
MAX_SIDE_PX = 1920
MIN_SIDE_PX = 64
# Faces are generated at the canvas's pixels up to this side; above it they cost too much time.
MAX_FACE_PX = 768
# Smaller cuts are generated at a multiple of their size and averaged: paint is 256 pixels wide.
MIN_FACE_PX = 192


@dataclass(frozen=True, slots=True, kw_only=True)
class Canvas:
    """A still picture and the place in it where faces go; the same for every chunk.

    `face_BCHW` is what the model starts from, in [-1, 1]; `size` is width and height of what
    `compose` gives, `box` the face's place in it.
    """

    face_BCHW: torch.Tensor
    size: tuple[int, int]
    box: Box
    compositor: Compositor
    still_border: bool = True

    def compose(self, chunk: VideoChunk) -> VideoChunk:
        """The chunk's faces laid into the whole picture; time is unchanged."""
        return replace(chunk, frames_THWC=self.compositor.compose(chunk.frames_THWC))


def open_canvas(
    picture: Image.Image,
    face_box: Box,
    name: str,
    *,
    size: tuple[int, int] | None = None,
    face_size: tuple[int, int] | None = None,
) -> Canvas:
    """A canvas of the upright `picture` whose face lies at `face_box`; messages call it `name`.

    `size` (width, height; even) scales the picture to cover it and cuts what is too much, keeping
    the face in sight; unless given it is the picture's own, even, at most `MAX_SIDE_PX` a side.
    `face_size` is what the model makes where that is fixed; else it follows the canvas.

    Raises:
        ImageError: the picture is a strip too thin for a canvas.
    """
    window, wanted = _window(picture.size, face_box, size)
    if min(wanted) < MIN_SIDE_PX:
        raise ImageError(
            f"{name}: a picture of {picture.width}x{picture.height} shows as "
            f"{wanted[0]}x{wanted[1]}, too thin a strip: cut it first, or use --frame face"
        )
    shown = picture.crop((window.x, window.y, window.x + window.width, window.y + window.height))
    if shown.size != wanted:
        shown = shown.resize(wanted, Image.Resampling.LANCZOS)
    box = _placed(face_box, window, wanted)
    face = cut_out(shown, box)
    made = face_size or _face_size(box)
    return Canvas(
        face_BCHW=face_image(np.asarray(face), made),
        size=wanted,
        box=box,
        compositor=Compositor(np.array(shown, dtype=np.uint8), box),
    )


def _window(
    picture: tuple[int, int], face: Box, size: tuple[int, int] | None
) -> tuple[Box, tuple[int, int]]:
    """What of the picture is shown, and the (width, height) it is shown at."""
    width, height = picture
    if size is None:
        scale = min(1.0, MAX_SIDE_PX / max(picture))
        if scale < 1.0:
            return Box(x=0, y=0, width=width, height=height), (
                2 * round(width * scale / 2),
                2 * round(height * scale / 2),
            )
        even = (width - width % 2, height - height % 2)  # a lost line is better than resampling
        return Box(x=0, y=0, width=even[0], height=even[1]), even
    shown = min(width / size[0], height / size[1])
    part = (max(1, round(shown * size[0])), max(1, round(shown * size[1])))
    x, y = (
        min(max(0, start + (length - seen) // 2), whole - seen)
        for start, length, seen, whole in (
            (face.x, face.width, part[0], width),
            (face.y, face.height, part[1], height),
        )
    )
    return Box(x=x, y=y, width=part[0], height=part[1]), size


def _placed(box: Box, window: Box, size: tuple[int, int]) -> Box:
    """A box of the source picture in whole pixels of the canvas, its aspect kept."""
    scale_x, scale_y = size[0] / window.width, size[1] / window.height
    return Box(
        x=round((box.x - window.x) * scale_x),
        y=round((box.y - window.y) * scale_y),
        width=max(1, round(box.width * scale_x)),
        height=max(1, round(box.height * scale_x)),
    )


def _face_size(box: Box) -> tuple[int, int]:
    """The (width, height) to generate a face of that box at, for codecs of any size."""
    shorter, longer = sorted((box.width, box.height))
    if longer > MAX_FACE_PX:
        scale = MAX_FACE_PX / longer
        return max(1, round(box.width * scale)), max(1, round(box.height * scale))
    times = math.ceil(MIN_FACE_PX / shorter)
    return box.width * times, box.height * times


def face_image(face_HWC: Pixels, size: tuple[int, int]) -> torch.Tensor:
    """The cut in [-1, 1] at `size`, [1, C, H, W].

    At a whole multiple of the cut's size the averages over its pixels are the cut exactly, so that
    averaging what did not move gives the cut back.
    """
    height, width = face_HWC.shape[:2]
    scaled = Image.fromarray(face_HWC).resize(size, Image.Resampling.LANCZOS)
    scaled_HWC = np.asarray(scaled, dtype=np.float32)
    down, across = size[1] // height, size[0] // width
    if (down * height, across * width) == (size[1], size[0]):
        blocks = scaled_HWC.reshape(height, down, width, across, 3)
        lacking_HWC = face_HWC - blocks.mean(axis=(1, 3))
        scaled_HWC = scaled_HWC + lacking_HWC.repeat(down, axis=0).repeat(across, axis=1)
    image_CHW = torch.from_numpy(scaled_HWC / 127.5 - 1.0).permute(2, 0, 1)
    return image_CHW[None].clamp(-1.0, 1.0).contiguous()
