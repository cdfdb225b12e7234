"""Readings of displacement fields of known motion."""

import numpy as np
import pytest
import torch

from video.face_flow import locate, read_flow
from video.face_points import MIDDLE_X, mean_points

pytestmark = pytest.mark.unit
POINTS = mean_points()


def _still(num_frames: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(num_frames, 2, 256, 256), torch.zeros(num_frames, 1, 256, 256)


def test_the_mean_face_is_symmetric() -> None:
    mirrored = POINTS[[54, 53, 52, 51, 50, 49, 48]]
    assert mirrored[:, 0] == pytest.approx(2 * MIDDLE_X - POINTS[48:55, 0])
    assert mirrored[:, 1] == pytest.approx(POINTS[48:55, 1])
    assert not np.isnan(POINTS[36:]).any()


@pytest.mark.parametrize("open_px", [0.0, 3.0, 12.0, 20.0])
def test_a_jaw_that_falls_opens_the_mouth_by_so_much(open_px: float) -> None:
    flow, hidden = _still()
    seam = 164
    rows = torch.arange(256)
    gap = (rows >= seam) & (rows < seam + open_px)
    flow[0, 1, rows >= seam] = -open_px
    hidden[0, 0, gap] = 1.0
    reading = read_flow(flow, hidden, POINTS)
    assert float(reading.opening_px_N[0]) == pytest.approx(open_px, abs=0.01)
    assert float(reading.width_px_N[0]) == pytest.approx(0.0, abs=0.01)
    assert float(reading.lids_N[0]) == pytest.approx(1.0, abs=0.01)


def test_lips_that_draw_together_make_the_mouth_narrower() -> None:
    flow, hidden = _still()
    columns = torch.arange(256) - MIDDLE_X
    flow[0, 0] = columns * (1 / 0.8 - 1)  # what is shown at x comes from x / 0.8
    width = POINTS[54, 0] - POINTS[48, 0]
    assert float(read_flow(flow, hidden, POINTS).width_px_N[0]) == pytest.approx(-0.2 * width, 0.02)


@pytest.mark.parametrize(("share", "expected"), [(1.0, 1.0), (0.5, 0.5), (0.2, 0.2)])
def test_lids_that_fall_leave_so_much_of_the_eye(share: float, expected: float) -> None:
    flow, hidden = _still()
    upper, lower = POINTS[37, 1], POINTS[41, 1]
    fall = (1 - share) * (lower - upper)
    edge = int(upper + fall) + 2
    flow[0, 1, :edge] = -fall
    hidden[0, 0, edge : int(lower)] = 0.0
    assert float(read_flow(flow, hidden, POINTS).lids_N[0]) == pytest.approx(expected, abs=0.12)


def test_a_point_is_not_found_where_the_portrait_is_not_shown() -> None:
    flow, hidden = _still()
    point = np.array([128.0, 173.0])
    flow[0, 1, 160:] = -10.0
    flow[0, 1, 160:170] = 173.0 - torch.arange(160.0, 170.0)[:, None]  # filled in, shows nothing
    hidden[0, 0, 160:170] = 1.0
    found = locate(flow, hidden, point, (14, 40))
    assert found[0].tolist() == pytest.approx([128.0, 183.0], abs=0.01)
