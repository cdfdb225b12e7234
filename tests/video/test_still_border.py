"""The head's motion ends before the border of the cut."""

from collections.abc import Mapping

import pytest
import torch

from video.head_pose import head_flow
from video.motion_codec import MotionCodec, MotionCodecConfig
from video.still_border import REACH, border_fade, hold_border

pytestmark = pytest.mark.unit


def test_the_fade_is_nothing_at_the_border_and_all_inside() -> None:
    fade = border_fade(64, 64)
    for edge in (fade[0], fade[-1], fade[:, 0], fade[:, -1]):
        assert not edge.any()
    inner = int(REACH * 64) + 1
    assert (fade[inner:-inner, inner:-inner] == 1).all()
    assert (fade[32].diff()[:31] >= 0).all()
    assert fade.diff(dim=0).abs().max() < 0.2


def test_a_turned_head_leaves_the_border_where_it_was() -> None:
    torch.manual_seed(0)
    codec = MotionCodec(MotionCodecConfig()).eval()
    with torch.inference_mode():
        state = codec.start(torch.rand(1, 3, 96, 96) * 2 - 1)
        state.headness_B1HW = torch.ones_like(state.headness_B1HW)
        hold_border(state)
        pose = torch.tensor([[0.1, 0.1, 0.1, 1.0, 1.0, 0.0]])
        flow = head_flow(
            pose, state.depth_B1HW[0, 0], state.headness_B1HW[0, 0], torch.tensor([128.0, 215.0])
        )
    for edge in (flow[..., 0, :], flow[..., -1, :], flow[..., 0], flow[..., -1]):
        assert edge.abs().max() < 2.5  # read back once through the field, so not nothing
    assert flow[0, :, 24, 32].norm() > 4


class OtherState:
    """A decoder state without a head."""

    def export_state(self) -> dict[str, torch.Tensor]:
        return {}

    def import_state(self, state: Mapping[str, torch.Tensor]) -> None:
        del state


def test_other_decoders_are_left_alone() -> None:
    state = OtherState()
    hold_border(state)
    assert vars(state) == {}
