"""Backward warping: identity, whole-pixel shifts, and borders."""

import pytest
import torch

from video.warp import resize, warp

pytestmark = pytest.mark.unit


def test_zero_flow_returns_the_image() -> None:
    image = torch.rand(2, 3, 9, 7)
    torch.testing.assert_close(warp(image, torch.zeros(2, 2, 9, 7)), image)


def test_whole_pixel_flow_shifts_and_repeats_the_border() -> None:
    image = torch.arange(12.0).reshape(1, 1, 3, 4)
    flow = torch.zeros(1, 2, 3, 4)
    flow[:, 0] = 1.0
    expected = torch.cat((image[..., 1:], image[..., -1:]), dim=-1)
    torch.testing.assert_close(warp(image, flow), expected)


def test_a_window_is_part_of_the_whole() -> None:
    image, flow = torch.rand(1, 3, 16, 20), torch.randn(1, 2, 16, 20)
    whole = warp(image, flow)[..., 4:9, 6:16]
    window = warp(image, flow[..., 4:9, 6:16], (6, 4))
    torch.testing.assert_close(window, whole, atol=1e-5, rtol=1e-5)


def test_resize_keeps_values() -> None:
    field = torch.full((1, 2, 4, 4), 3.5)
    torch.testing.assert_close(resize(field, 16, 8), torch.full((1, 2, 16, 8), 3.5))
