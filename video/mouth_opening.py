"""How open a mouth is, from the pixels of a face held at one place (`video/face_window.py`).

What an open mouth shows, dark, teeth or tongue, is not skin: the figure is how far brightness
around the lips is from the skin's. On pocket renders it follows the opening read from the decoded
flow with .91 (a 3-D head), .92 and .96 (drawn characters), .89 (dark skin, where darkness alone
fails with -.32) and .94 (a photograph).

Shape legend: S = 128.
"""

import numpy as np
import numpy.typing as npt

LIPS = (slice(77, 96), slice(50, 78))  # rows and columns around lips of an aligned face
SKIN = (slice(60, 104), slice(40, 88))  # from nose to chin: mostly skin


def mouth_opening(grey_SS: npt.NDArray[np.float32]) -> float:
    """Return the mean distance of the lips' brightness from the skin's, as a share of that."""
    skin = float(np.median(grey_SS[SKIN]))
    return float(np.abs(grey_SS[LIPS] - skin).mean()) / max(skin, 8.0)
