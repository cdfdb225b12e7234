"""Head pose: packing into latents, smoothing across calls, and the geometry's directions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from video.head_pose import (
    POSE_CHANNELS,
    head_flow,
    latents_to_pose,
    pose_to_latents,
    smooth_pose,
)

pytestmark = pytest.mark.unit


def test_knots_survive_the_round_trip_and_others_lie_between() -> None:
    pose = torch.randn(2, 12, 6) * 0.1
    latents = pose_to_latents(pose, grid=8)
    assert latents.shape == (2, POSE_CHANNELS, 3, 8, 8)
    again = latents_to_pose(latents, pose.new_zeros(2, 6))
    torch.testing.assert_close(again[:, 1::2], pose[:, 1::2])
    torch.testing.assert_close(again[:, 2], 0.5 * (pose[:, 1] + pose[:, 3]))
    torch.testing.assert_close(again[:, 0], 0.5 * pose[:, 1])


def test_noise_on_single_cells_averages_out() -> None:
    latents = torch.zeros(1, POSE_CHANNELS, 1, 8, 8)
    noisy = latents + torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    still = latents_to_pose(latents, torch.zeros(1, 6))
    moved = latents_to_pose(noisy, torch.zeros(1, 6))
    assert float((moved - still)[..., :3].abs().max()) < 0.06 * 0.5


@settings(max_examples=25, deadline=None)
@given(cut=st.integers(1, 11))
def test_smoothing_is_the_same_however_it_is_cut(cut: int) -> None:
    pose = torch.randn(1, 12, 6, generator=torch.Generator().manual_seed(1))
    whole, end = smooth_pose(pose, torch.zeros(1, 2, 6))
    first, state = smooth_pose(pose[:, :cut], torch.zeros(1, 2, 6))
    second, last = smooth_pose(pose[:, cut:], state)
    assert torch.equal(torch.cat((first, second), dim=1), whole)
    assert torch.equal(last, end)


@pytest.mark.parametrize(
    ("pose", "axis", "sign"),
    [
        ([0, 0, 0, 1.0, 0, 0], 0, -1),  # head to the right: pixels come from the left
        ([0, 0, 0, 0, 1.0, 0], 1, 1),  # head up: pixels come from below
        ([0.1, 0, 0, 0, 0, 0], 0, -1),  # nearer points go right when the head turns right
    ],
)
def test_a_moving_head_pulls_its_pixels(pose: list[float], axis: int, sign: int) -> None:
    depth, headness = torch.full((64, 64), 8.0), torch.ones(64, 64)
    flow = head_flow(torch.tensor([pose]), depth, headness, torch.tensor([128.0, 215.0]))
    centre = flow[0, axis, 30:34, 30:34].mean()
    assert float(centre) * sign > 1.0


def test_the_background_stays() -> None:
    pose = torch.tensor([[0.2, 0.1, 0.1, 1.0, 1.0, 1.0]])
    still = torch.zeros(64, 64)
    flow = head_flow(pose, torch.full((64, 64), 8.0), still, torch.tensor([128.0, 215.0]))
    assert torch.count_nonzero(flow) == 0
