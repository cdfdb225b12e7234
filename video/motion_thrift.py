"""Decodes a motion codec's latents for less: every second picture, or pictures of half the sides.

The decoder's state moves on exactly as with all pictures, so the next chunk may be whole again.

Shape legend: B = batch, C = channels, T = latent frames, N = video frames, H, W = picture.
"""

import torch
from torch.nn import functional as F

from video.head_pose import POSE_CHANNELS, latents_to_pose, smooth_pose
from video.motion_codec import MotionCodec, MotionDecoderState, rigid_flow
from video.motion_field import ease


def decode_thriftily(
    codec: MotionCodec,
    latents_BCTHW: torch.Tensor,
    state: MotionDecoderState,
    *,
    halves_rate: bool,
    halves_size: bool,
    last_B3HW: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return as many frames [B, 3, N, H, W] as `decode`, of the same size.

    With `halves_rate` the second and fourth of each latent are made and those between are mixed
    from their neighbours, the first one with `last_B3HW`, the frame before. With `halves_size`
    frames are made at half the sides and enlarged.
    """
    stride = 2 if halves_rate else 1
    height, width = state.portrait_BCHW.shape[-2:]
    portrait_BCHW = state.portrait_BCHW
    if halves_size:
        half = (max(1, height // 2), max(1, width // 2))
        portrait_BCHW = F.interpolate(portrait_BCHW, half, mode="bilinear", antialias=True)
    frames_BCNHW = _made(codec, latents_BCTHW, state, portrait_BCHW, stride)
    if halves_size:
        count = frames_BCNHW.shape[2]
        flat_NCHW = frames_BCNHW.transpose(1, 2).flatten(0, 1)
        whole_NCHW = F.interpolate(flat_NCHW, (height, width), mode="bilinear")
        frames_BCNHW = torch.unflatten(whole_NCHW, 0, (-1, count)).transpose(1, 2)
    return _mixed(frames_BCNHW, last_B3HW) if halves_rate else frames_BCNHW


def _made(
    codec: MotionCodec,
    latents_BCTHW: torch.Tensor,
    state: MotionDecoderState,
    portrait_BCHW: torch.Tensor,
    stride: int,
) -> torch.Tensor:
    """Every `stride`-th frame, the last of each latent among them."""
    pose = latents_to_pose(latents_BCTHW[:, :POSE_CHANNELS], state.pose_B6)
    state.pose_B6 = pose[:, -1]
    smoothed_BN6, state.smooth_B26 = smooth_pose(pose, state.smooth_B26)
    field_N3SS, emitted_NCSS = codec.fields(latents_BCTHW[:, POSE_CHANNELS:], state.reading)
    shape = (len(latents_BCTHW), -1, codec.frames_per_latent)
    eased, state.field_B3SS = ease(torch.unflatten(field_N3SS, 0, shape), state.field_B3SS)
    chosen = slice(stride - 1, None, stride)
    emitted = torch.unflatten(emitted_NCSS, 0, shape)[:, :, chosen].flatten(0, 2)
    motion = codec.painted(
        eased[:, :, chosen].flatten(0, 2), emitted, state.canonical_BCHW, state.reading
    )
    poses_BN6 = smoothed_BN6[:, chosen]
    count = codec.frames_per_latent // stride
    parts = [
        codec.render(
            motion.part(len(poses_BN6), first, first + count),
            portrait_BCHW,
            rigid_flow(poses_BN6[:, first : first + count], state),
        )
        for first in range(0, poses_BN6.shape[1], count)
    ]
    return torch.cat(parts, dim=2)


def _mixed(frames_BCNHW: torch.Tensor, last_B3HW: torch.Tensor | None) -> torch.Tensor:
    """The frames with the mean of its neighbours before each."""
    last = frames_BCNHW[:, :, 0] if last_B3HW is None else last_B3HW
    before = torch.cat([last[:, :, None], frames_BCNHW[:, :, :-1]], dim=2)
    return torch.stack([(before + frames_BCNHW) / 2, frames_BCNHW], dim=3).flatten(2, 3)
