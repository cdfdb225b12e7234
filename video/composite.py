"""Lays a moving face back into the still picture it was cut from.

The weight is 1 around the face and fades to 0 before the cut's border, so every pixel outside the
cut, and a rim inside it, stays the user's own. Where the face did not move, face and picture are
equal and any weight gives the same: a zero motion composes to the picture itself.

Shape legend: T = frames, H = height, W = width, C = channels (RGB).
"""

import numpy as np
import numpy.typing as npt
from PIL import Image

from video.crop import Box

Pixels = npt.NDArray[np.uint8]
Weights = npt.NDArray[np.int16]

# Weights are whole 128ths: a difference of 255 times 128 still fits 16 bits.
FULL_WEIGHT = 128
_SHIFT = 7
# Shares of the cut's shorter side: where the weight reaches 0 and how long it takes to reach 1.
RIM = 0.02
FEATHER = 0.10
CORNER = 0.25


def face_weights(width: int, height: int) -> npt.NDArray[np.float32]:
    """Weights [H, W] in 0..1 of a cut of that size: a rounded rectangle with a soft edge.

    1 inside, 0 within `RIM` of the border, a smooth step of `FEATHER` between; corners are rounded
    with `CORNER`, as a head's outline is.
    """
    side = min(width, height)
    radius = CORNER * side
    x_W, y_H = (np.abs(np.arange(n) + 0.5 - n / 2) - (n / 2 - radius) for n in (width, height))
    # Signed distance to the rounded border, positive inside.
    outside = np.hypot(np.maximum(x_W, 0)[None], np.maximum(y_H, 0)[:, None])
    inside = np.minimum(np.maximum(x_W[None], y_H[:, None]), 0)
    distance_HW = radius - outside - inside
    ramp = np.clip((distance_HW - RIM * side) / (FEATHER * side), 0, 1)
    return np.asarray(ramp * ramp * (3 - 2 * ramp), dtype=np.float32)


class Compositor:
    """Blends faces into one picture; holds no state, so sessions may share it.

    Only the part of the cut that has weight and lies in the picture is touched.
    """

    def __init__(self, picture_HWC: Pixels, box: Box) -> None:
        """Prepare for faces cut at `box`, which may reach outside the picture.

        Raises:
            ValueError: the box does not touch the picture.
        """
        height, width = picture_HWC.shape[:2]
        left, top = max(0, box.x), max(0, box.y)
        right, bottom = min(width, box.x + box.width), min(height, box.y + box.height)
        if left >= right or top >= bottom:
            raise ValueError(f"{box} does not touch a picture of {width}x{height}: move it inside")
        weights_HW = _outward(face_weights(box.width, box.height), picture_HWC.shape[:2], box)
        self._picture_HWC = picture_HWC
        self._size = (box.width, box.height)
        self._place = (slice(top, bottom), slice(left, right))
        self._part = (slice(top - box.y, bottom - box.y), slice(left - box.x, right - box.x))
        whole = np.round(weights_HW[self._part] * FULL_WEIGHT).astype(np.int16)
        self._weights_HW1 = np.ascontiguousarray(whole[:, :, None])
        self._still_HWC = picture_HWC[self._place].astype(np.int16)

    def compose(self, faces_THWC: Pixels) -> Pixels:
        """The picture [T, H, W, C] with each face in it; faces of another size are resampled."""
        frames = np.empty((len(faces_THWC), *self._picture_HWC.shape), dtype=np.uint8)
        for frame_HWC, face_HWC in zip(frames, faces_THWC, strict=True):
            frame_HWC[:] = self._picture_HWC
            self._blend(resampled(face_HWC, self._size)[self._part], frame_HWC[self._place])
        return frames

    def _blend(self, face_HWC: Pixels, target_HWC: Pixels) -> None:
        """Write still + weight * (face - still) into the picture, rounded to nearest."""
        change = face_HWC.astype(np.int16)
        change -= self._still_HWC
        change *= self._weights_HW1
        change += FULL_WEIGHT // 2
        change >>= _SHIFT
        change += self._still_HWC
        target_HWC[:] = change


def _outward(
    weights_HW: npt.NDArray[np.float32], picture: tuple[int, ...], box: Box
) -> npt.NDArray[np.float32]:
    """No fading where the picture itself ends inside the cut: the edge there would stand still."""
    height, width = picture
    weights_HW = weights_HW.copy()
    middle_y, middle_x = box.height // 2, box.width // 2
    if box.x < 0:
        weights_HW[:, :middle_x] = weights_HW[:, middle_x, None]
    if box.x + box.width > width:
        weights_HW[:, middle_x:] = weights_HW[:, middle_x, None]
    if box.y < 0:
        weights_HW[:middle_y] = weights_HW[middle_y]
    if box.y + box.height > height:
        weights_HW[middle_y:] = weights_HW[middle_y]
    return weights_HW


def resampled(face_HWC: Pixels, size: tuple[int, int]) -> Pixels:
    """The face at `size` (width, height); a whole multiple of it is averaged exactly."""
    height, width = face_HWC.shape[:2]
    if (width, height) == size:
        return face_HWC
    whole = width % size[0] == 0 and height % size[1] == 0
    kind = Image.Resampling.BOX if whole else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(face_HWC).resize(size, kind))
