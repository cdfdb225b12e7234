"""Lets a portrait's motion die out towards its border, so that the picture around it fits on.

A head that turns takes hair and neck with it, and those run on beyond the cut. Mixing moved and
unmoved pixels there would show hair twice; a displacement that fades stretches it a little instead.

Shape legend: B = batch, H, W = rows and columns.
"""

import torch

from video.codec import DecoderState
from video.motion_codec import MotionDecoderState

# Share of the side over which the head's motion grows from nothing to all of it.
REACH = 0.16


def hold_border(state: DecoderState) -> None:
    """Fade the head's motion of a fresh decoder at the border; others than motion's stay."""
    if isinstance(state, MotionDecoderState):
        fade_HW = border_fade(*state.headness_B1HW.shape[-2:]).to(state.headness_B1HW)
        state.headness_B1HW = state.headness_B1HW * fade_HW


def border_fade(height: int, width: int) -> torch.Tensor:
    """Factors [H, W]: 0 at the border, a smooth step to 1 over `REACH` of the side."""
    y_H, x_W = (_line_fade(length) for length in (height, width))
    return y_H[:, None] * x_W[None]


def _line_fade(length: int) -> torch.Tensor:
    """One line's factors."""
    at_L = torch.arange(length, dtype=torch.float32)
    edge_L = torch.minimum(at_L, length - 1 - at_L) / (length - 1)
    ramp_L = (edge_L / REACH).clamp(0, 1)
    return ramp_L * ramp_L * (3 - 2 * ramp_L)
