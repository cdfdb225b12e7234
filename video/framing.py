"""What a viewer sees of a portrait: the face alone, or the whole picture in which it moves."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from video.canvas import open_canvas
from video.chunk import VideoChunk
from video.crop import Box, Crop
from video.frame_choice import FrameChoice
from video.picture import decode_picture, read_picture_file
from video.reference import chosen_box, printable_name, reference_at

# A picture no larger than this which the face's box fills to this share is a framed portrait.
FRAMED_SIDE_PX = 512
FRAMED_SHARE = 0.8


class Framing(Protocol):
    """What stands between a portrait and a model, and between its pictures and their viewer."""

    @property
    def face_BCHW(self) -> torch.Tensor:  # noqa: N802  # BCHW is the shape suffix
        """The portrait in [-1, 1] as the model starts from it."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of what `compose` gives, in pixels; both even."""

    @property
    def still_border(self) -> bool:
        """Whether the face's border has to stay where it is."""

    def compose(self, chunk: VideoChunk) -> VideoChunk:
        """The pictures to show for a chunk of the model's pictures, at the same time."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceFraming:
    """The model's pictures as they are; `face_BCHW` is RGB in [-1, 1]."""

    face_BCHW: torch.Tensor
    still_border: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.face_BCHW.shape[-1], self.face_BCHW.shape[-2]

    def compose(self, chunk: VideoChunk) -> VideoChunk:
        """The chunk itself."""
        return chunk


def open_framing(
    path: str | Path,
    *,
    model_size: tuple[int, int],
    any_size: bool,
    frame: FrameChoice = "auto",
    size: tuple[int, int] | None = None,
    crop: Crop | None = None,
) -> Framing:
    """Read a portrait file for a model of `model_size` (width, height).

    `any_size` says that the model makes other sizes as well; `size` is that of the output. `auto`
    shows the whole picture, but the face alone where `crop` says what to show, or where a square
    picture of at most 512 pixels is framed as the model wants it.

    Raises:
        ImageError: one line naming the file and the remedy.
    """
    name = printable_name(path)
    data = read_picture_file(Path(path), name)
    return framing_from_bytes(
        data,
        name=name,
        model_size=model_size,
        any_size=any_size,
        frame=frame,
        size=size,
        crop=crop,
    )


def framing_from_bytes(
    data: bytes,
    *,
    name: str,
    model_size: tuple[int, int],
    any_size: bool,
    frame: FrameChoice = "auto",
    size: tuple[int, int] | None = None,
    crop: Crop | None = None,
) -> Framing:
    """As `open_framing`, from the file's content; messages call it `name`.

    Raises:
        ImageError: one line naming the picture and the remedy.
    """
    crop = crop or Crop()
    picture = decode_picture(data, name)
    if frame == "auto" and crop.mode != "auto":
        frame = "face"
    shape = size or model_size
    box = chosen_box(picture, shape if frame == "face" else model_size, crop, name)
    if frame == "portrait" or (frame == "auto" and not is_framed(picture.size, box)):
        face_size = None if any_size else model_size
        return open_canvas(picture, box, name, size=size, face_size=face_size)
    if frame == "auto" and shape[0] * model_size[1] != shape[1] * model_size[0]:
        box = chosen_box(picture, shape, crop, name)  # the same face in another aspect
    return FaceFraming(face_BCHW=reference_at(picture, box, shape).image_CHW[None])


def is_framed(picture: tuple[int, int], box: Box) -> bool:
    """Whether a picture (width, height) is a small square that the face's box fills."""
    width, height = picture
    filled = min(box.width, box.height) >= FRAMED_SHARE * max(picture)
    return width == height and width <= FRAMED_SIDE_PX and filled
