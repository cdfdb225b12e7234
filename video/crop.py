"""Which part of a picture becomes the portrait: the choice a user writes and the boxes it means.

Boxes are in pixels of the upright source picture, (x, y) their top left corner. A box may reach
outside the picture; what lies outside is filled by `video.reference`.
"""

from dataclasses import dataclass
from typing import Literal

CropMode = Literal["auto", "center", "none", "box"]
_REMEDY = "use auto, center, none or x,y,width,height in whole pixels such as 120,40,512,512"


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A rectangle of whole source pixels."""

    x: int
    y: int
    width: int
    height: int

    def inside(self, width: int, height: int) -> bool:
        """Whether the box lies wholly in a picture of that size."""
        return (
            self.x >= 0
            and self.y >= 0
            and self.x + self.width <= width
            and self.y + self.height <= height
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Crop:
    """How to cut the portrait: around the face, centred, not at all, or the box given.

    Raises:
        ValueError: a box is given without mode "box", or the other way round.
    """

    mode: CropMode = "auto"
    box: Box | None = None

    def __post_init__(self) -> None:
        """Refuse a contradiction between mode and box."""
        if (self.mode == "box") != (self.box is not None):
            raise ValueError(f"crop mode {self.mode!r} contradicts box {self.box!r}")

    def __str__(self) -> str:
        """The text `parse_crop` reads back."""
        if self.box is None:
            return self.mode
        return f"{self.box.x},{self.box.y},{self.box.width},{self.box.height}"


def parse_crop(text: str) -> Crop:
    """Read `auto`, `center`, `none` or `x,y,w,h`.

    Raises:
        ValueError: the text is none of these; one line with the remedy.
    """
    word = text.strip().lower()
    if word in ("auto", "center", "none"):
        return Crop(mode=word)  # type: ignore[arg-type]  # narrowed by the line above
    parts = word.split(",")
    # ASCII digits only, and few: int() would also take "1_0", "٣" and numbers of a megabyte.
    if len(parts) != 4 or not all(
        p.strip().isascii() and p.strip().isdigit() and len(p.strip()) <= 6 for p in parts
    ):
        raise ValueError(f"crop {text[:80]!r} is not understood: {_REMEDY}")
    x, y, width, height = (int(part) for part in parts)
    if width == 0 or height == 0:
        raise ValueError(f"crop {text[:80]!r} has no area: {_REMEDY}")
    return Crop(mode="box", box=Box(x=x, y=y, width=width, height=height))


def centred_box(picture: tuple[int, int], size: tuple[int, int]) -> Box:
    """The largest centred box inside `picture` (width, height) with the aspect of `size`."""
    width, height = picture
    if width * size[1] > height * size[0]:
        box_width, box_height = max(1, round(height * size[0] / size[1])), height
    else:
        box_width, box_height = width, max(1, round(width * size[1] / size[0]))
    return Box(
        x=(width - box_width) // 2,
        y=(height - box_height) // 2,
        width=box_width,
        height=box_height,
    )


def widened_box(box: Box, size: tuple[int, int]) -> Box:
    """The smallest box around `box`, same centre, with the aspect of `size` (width, height)."""
    width = max(box.width, round(box.height * size[0] / size[1]))
    height = max(box.height, round(box.width * size[1] / size[0]))
    return Box(
        x=box.x - (width - box.width) // 2,
        y=box.y - (height - box.height) // 2,
        width=width,
        height=height,
    )
