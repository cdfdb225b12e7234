"""Where eyes and lips are in an aligned portrait: 68 points in the usual order of face alignment.

Portraits are brought to one framing (`video/face.py`), so the mean over drawn heads stands for a
face whose points nobody knows, within about five pixels of the 256-pixel picture. Readings of
motion are made on the safe side of that: from points outside the moving edge, not on it.

Shape legend: P = 68 points, 2 = (x, y) in pixels of the canonical 256-pixel picture, whose centres
are at whole numbers.
"""

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]

# Upper and lower lip, outer then inner edge, from the viewer's left to right.
OUTER_UPPER, OUTER_LOWER = (50, 51, 52), (58, 57, 56)
INNER_UPPER, INNER_LOWER = (61, 62, 63), (67, 66, 65)
MOUTH_CORNERS = (48, 54)
UPPER_LIDS, LOWER_LIDS = (37, 38, 43, 44), (41, 40, 47, 46)
EYES = ((36, 37, 38, 39, 40, 41), (42, 43, 44, 45, 46, 47))

# The viewer's left half, means of 112 drawn heads; the right half is its mirror image.
_LEFT_EYE = (
    (92.0, 108.0),
    (97.0, 103.5),
    (105.5, 103.5),
    (113.0, 108.5),
    (105.5, 110.0),
    (97.0, 110.0),
)
_OUTER_LIPS = ((106.5, 164.0), (113.0, 157.5), (121.0, 155.0), (128.0, 155.5))
_OUTER_LOWER = ((128.0, 173.5), (119.5, 172.5), (113.0, 169.5))
_INNER_LIPS = ((109.5, 164.0), (119.0, 162.0), (128.0, 162.5))
_INNER_LOWER = ((128.0, 165.5), (119.0, 165.0))
MIDDLE_X = 128.0


def mean_points() -> Points:
    """Return the mean points [68, 2]; those that no reading uses (jaw, brows, nose) are NaN."""
    points = np.full((68, 2), np.nan)
    points[36:42] = _LEFT_EYE
    for right, left in ((42, 39), (43, 38), (44, 37), (45, 36), (46, 41), (47, 40)):
        points[right] = _mirrored(points[left])
    points[48:52] = _OUTER_LIPS
    points[52:55] = [_mirrored(points[left]) for left in (50, 49, 48)]
    points[57:60] = _OUTER_LOWER
    points[55:57] = [_mirrored(points[left]) for left in (59, 58)]
    points[60:63] = _INNER_LIPS
    points[63:65] = [_mirrored(points[left]) for left in (61, 60)]
    points[66:68] = _INNER_LOWER
    points[65] = _mirrored(points[67])
    return points


def _mirrored(point: Points) -> Points:
    """The point on the other side of the face."""
    return np.array([2 * MIDDLE_X - point[0], point[1]])
