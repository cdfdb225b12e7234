"""Readings of pixels: closed eyes and dark mouths are seen, other changes are not."""

import pytest
import torch

from video.face_pixels import eye_pattern, mouth_darkness
from video.face_points import mean_points

pytestmark = pytest.mark.unit
POINTS = mean_points()


def _portrait() -> torch.Tensor:
    """Skin with two eyes: white with a dark iris."""
    picture = torch.full((1, 3, 256, 256), 0.3)
    picture += 0.02 * torch.randn(picture.shape, generator=torch.Generator().manual_seed(0))
    for middle in (103, 153):
        picture[..., 104:110, middle - 9 : middle + 9] = 0.9
        picture[..., 104:110, middle - 3 : middle + 3] = -0.8
    return picture


def test_open_eyes_read_one_and_painted_lids_near_zero() -> None:
    portrait = _portrait()
    shut = portrait.clone()
    shut[..., 100:114, 90:166] = 0.25
    frames = torch.cat((portrait, portrait * 0.9 + 0.05, shut))
    pattern = eye_pattern(frames, portrait, POINTS).tolist()
    assert pattern[0] == pytest.approx(1.0)
    assert pattern[1] == pytest.approx(0.9, abs=0.01)  # a change of light is no blink
    assert abs(pattern[2]) < 0.05


def test_a_dark_interior_counts_by_its_area() -> None:
    portrait = _portrait()
    little, much = portrait.clone(), portrait.clone()
    little[..., 164:168, 112:144] = -0.9
    much[..., 164:182, 112:144] = -0.9
    none, some, more = mouth_darkness(torch.cat((portrait, little, much)), portrait, POINTS)
    assert float(none) == pytest.approx(0.0, abs=1e-6)
    assert 0.08 < float(some) < float(more) < 1.0
    assert float(more) > 3 * float(some)
