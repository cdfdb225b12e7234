"""Read from pixels alone what eyes and mouth do, where the face is at the portrait's own place.

No network and no displacement is asked, so paint that should be there and is not shows here.

Shape legend: N = frames, H, W = 256, P = 68 points.
"""

import numpy as np
import torch

from video.face_points import EYES, INNER_LOWER, INNER_UPPER, MOUTH_CORNERS, Points

LUMA_3 = (0.299, 0.587, 0.114)
MOUTH_ABOVE_PX, MOUTH_BELOW_PX = 4, 22  # around the inner lips: where an open mouth's interior is
BLACK = -1.0


def luma(pictures_N3HW: torch.Tensor) -> torch.Tensor:
    """Return brightness [N, H, W] in [-1, 1]."""
    weights = pictures_N3HW.new_tensor(LUMA_3)
    return torch.einsum("nchw,c->nhw", pictures_N3HW, weights)


def eye_pattern(
    pictures_N3HW: torch.Tensor, portrait_13HW: torch.Tensor, points_P2: Points
) -> torch.Tensor:
    """Return [N] how much of the portrait's eyes is still seen: 1 as in the portrait, near 0 shut.

    The regression of a frame's eye pixels on the portrait's, each about its mean. A glance lowers
    it (exact pictures: .67 to 1.0 with open eyes, -.32 to .13 with closed ones).
    """
    shares = []
    for eye in EYES:
        window = _around(points_P2[list(eye)], above=1, below=2, beside=0)
        open_eye = _about_mean(luma(portrait_13HW)[window])
        seen = _about_mean(luma(pictures_N3HW)[window])
        shares.append((seen * open_eye).sum((1, 2)) / open_eye.square().sum((1, 2)).clamp_min(1e-6))
    return torch.stack(shares).mean(dim=0)


def mouth_darkness(
    pictures_N3HW: torch.Tensor, portrait_13HW: torch.Tensor, points_P2: Points
) -> torch.Tensor:
    """Return [N] how much darker than skin it is where a mouth opens, less that of the portrait.

    0 means as in the portrait, 1 that all of the region turned from skin to black. Skin is the
    median of the portrait there, so very dark skin gives small figures.
    """
    lips = points_P2[[*INNER_UPPER, *INNER_LOWER]]
    beside = int((points_P2[MOUTH_CORNERS[1], 0] - points_P2[MOUTH_CORNERS[0], 0]) / 8)
    window = _around(lips, above=MOUTH_ABOVE_PX, below=MOUTH_BELOW_PX, beside=beside)
    before = luma(portrait_13HW)[window]
    skin = before.median()
    scale = (skin - BLACK).clamp_min(1e-3)

    def dark(brightness_NHW: torch.Tensor) -> torch.Tensor:
        return ((skin - brightness_NHW) / scale).clamp_min(0).mean((1, 2))

    return dark(luma(pictures_N3HW)[window]) - dark(before)


def _about_mean(values_NHW: torch.Tensor) -> torch.Tensor:
    return values_NHW - values_NHW.mean((1, 2), keepdim=True)


def _around(points: Points, *, above: int, below: int, beside: int) -> tuple[slice, slice, slice]:
    """The window [all, rows, columns] that holds the points and so many pixels around them."""
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    rows = slice(max(0, int(np.floor(top)) - above), int(np.ceil(bottom)) + below)
    columns = slice(max(0, int(np.floor(left)) - beside), int(np.ceil(right)) + 1 + beside)
    return slice(None), rows, columns
