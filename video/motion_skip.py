"""Leaves out pictures of a motion codec's stream without losing its place.

Shape legend: B = batch, C = channels, T = latent frames, H, W = grid.
"""

import torch

from video.head_pose import POSE_CHANNELS, latents_to_pose, smooth_pose
from video.motion_codec import MotionCodec, MotionDecoderState
from video.motion_field import ease


@torch.inference_mode()
def skip_pictures(latents_BCTHW: torch.Tensor, state: MotionDecoderState) -> None:
    """Take the head through latents whose pictures nobody wants, at next to no cost.

    The face's field stays behind: see `catch_up`.
    """
    pose = latents_to_pose(latents_BCTHW[:, :POSE_CHANNELS], state.pose_B6)
    state.pose_B6 = pose[:, -1]
    _, state.smooth_B26 = smooth_pose(pose, state.smooth_B26)


@torch.inference_mode()
def catch_up(codec: MotionCodec, latents_BCTHW: torch.Tensor, state: MotionDecoderState) -> None:
    """Bring the face's field to the end of the latents that were skipped last.

    What is older has eased away: after three latents less than 1e-4 of a jump is left.
    """
    field_N3SS, _ = codec.fields(latents_BCTHW[:, POSE_CHANNELS:], state.reading)
    shape = (len(latents_BCTHW), -1, codec.frames_per_latent)
    _, state.field_B3SS = ease(torch.unflatten(field_N3SS, 0, shape), state.field_B3SS)
