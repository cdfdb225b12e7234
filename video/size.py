"""The size of the output picture: the portrait's shape, within an area, in whole cells.

Source: design page "live-avatar-spec", section 3.1 (the requested size is only an area).
"""

import math
from collections.abc import Iterator

# Picture sides are multiples of this many pixels, in Live Avatar and its checkpoints.
SIDE_STEP_PX = 64
NUM_SCALES = 100
# How far a picture that already fits may be shrunk so that its rounded-up size fits too.
SMALLEST_SCALE = 0.1


def output_size(
    height_px: int, width_px: int, max_area_px: int, step_px: int = SIDE_STEP_PX
) -> tuple[int, int]:
    """Return the (height, width) to render a portrait of this size at.

    The largest of 100 scales, never above 1, whose sides rounded up to `step_px` stay within
    `max_area_px`; raises ValueError when a side or the area is too small for one cell.
    """
    if min(height_px, width_px) < 1 or max_area_px < step_px**2:
        raise ValueError(
            f"picture of {width_px}x{height_px} px in an area of {max_area_px} px: give a picture "
            f"with both sides above 0 and an area of at least {step_px**2} px"
        )
    for scale in _scales(height_px, width_px, max_area_px, step_px):
        height, width = (
            math.ceil(int(side * scale) / step_px) * step_px for side in (height_px, width_px)
        )
        if 0 < height * width <= max_area_px:
            return height, width
    return _rounded_down(height_px, width_px, max_area_px, step_px)


def _scales(height_px: int, width_px: int, max_area_px: int, step_px: int) -> Iterator[float]:
    """Yield the candidate scales, largest first."""
    area = height_px * width_px
    largest, smallest = 1.0, SMALLEST_SCALE
    if area > max_area_px:
        # Between no rounding up and (about) the most that rounding up can add to both sides.
        pad = step_px - 1
        b = pad * (height_px + width_px)
        c = pad**2 - max_area_px
        largest = math.sqrt(max_area_px / area)
        smallest = (-b + math.sqrt(max(0.0, b**2 - 2 * area * c))) / (2 * area)
    for i in range(NUM_SCALES):
        yield largest - (largest - smallest) * i / NUM_SCALES


def _rounded_down(height_px: int, width_px: int, max_area_px: int, step_px: int) -> tuple[int, int]:
    """Return the area's own sides at this shape, rounded down to at least one cell."""
    aspect = width_px / height_px
    sides = math.sqrt(max_area_px / aspect), math.sqrt(max_area_px * aspect)
    if sides[0] >= height_px or sides[1] >= width_px:
        sides = height_px, width_px
    height, width = (max(1, int(side // step_px)) * step_px for side in sides)
    # A strip thinner than a cell was widened to one: shorten it to stay within the area.
    limit = max_area_px // min(height, width) // step_px * step_px
    return min(height, limit), min(width, limit)
