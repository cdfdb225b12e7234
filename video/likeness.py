"""How alike two clips of one scene are: in what moves, and in their fine detail, apart.

Shape legend: T = frames, H, W = rows and columns, C = RGB.
"""

from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

# Flow is read on pictures of this side: heads move by whole pixels there, and it takes 2 ms.
FLOW_SIDE_PX = 128
# What a Gaussian of this many pixels takes away is coarse, what it leaves is detail.
COARSE_PX = 2.0
# Values that vary less than this (pixels of flow, levels of brightness) are rounding.
STILL = 0.01

Frames = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float32]


def motion_likeness(one_THWC: Frames, other_THWC: Frames) -> float:
    """Correlation of the optical flow of two clips, over all frames and places.

    1 where all moves alike, 0 where nothing does or one of them stands still.
    Source of the flow: Farnebäck, 2003.
    """
    return correlation(optical_flow(one_THWC), optical_flow(other_THWC))


def detail_likeness(one_THWC: Frames, other_THWC: Frames) -> float:
    """Correlation of what is fine in two clips and changes: each place less its mean over time.

    What stands still is the portrait's and alike in any two clips, so it does not count.
    """
    return correlation(_changing_detail(one_THWC), _changing_detail(other_THWC))


def optical_flow(frames_THWC: Frames) -> Values:
    """Movement between frames in pixels of a picture of 128: `[T - 1, 128, 128, 2]`."""
    small = [
        cv2.resize(frame, (FLOW_SIDE_PX, FLOW_SIDE_PX), interpolation=cv2.INTER_AREA)
        for frame in _grey(frames_THWC)
    ]
    still = np.zeros((FLOW_SIDE_PX, FLOW_SIDE_PX, 2), np.float32)
    flows = [
        cv2.calcOpticalFlowFarneback(a, b, still.copy(), 0.5, 3, 15, 3, 5, 1.2, 0)
        for a, b in pairwise(small)
    ]
    return np.asarray(flows, np.float32)


def correlation(one: npt.NDArray[np.floating], other: npt.NDArray[np.floating]) -> float:
    """Pearson's, of all values; 0 where one side does not vary."""
    if min(one.std(), other.std()) < STILL:
        return 0.0
    a, b = (values.astype(np.float64).ravel() - values.mean() for values in (one, other))
    return float(a @ b) / float(np.sqrt((a @ a) * (b @ b)))


def _changing_detail(frames_THWC: Frames) -> Values:
    """The fine part of each frame, less its mean over time."""
    fine = []
    for frame in _grey(frames_THWC):
        values = frame.astype(np.float32)
        fine.append(values - cv2.GaussianBlur(values, (0, 0), COARSE_PX))
    fine_THW = np.asarray(fine, np.float32)
    changing: Values = fine_THW - fine_THW.mean(axis=0)
    return changing


def _grey(frames_THWC: Frames) -> list[Frames]:
    """Frames by their brightness."""
    return [np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.uint8) for frame in frames_THWC]
