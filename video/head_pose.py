"""Rigid head motion: six numbers per frame, turned into a displacement by geometry.

The head's pose is not left to a field of independent cells, whose noise would make a face wobble
like jelly. Its channels are constant over the latent grid and are averaged over it when read, so
a generated head always moves as one piece. The displacement follows from the portrait's depth.

Shape legend: B = batch, T = latent frames, F = frames per latent, G = grid side, H, W = picture,
6 = (yaw, pitch, roll in radians; x, y, z in centimetres).
"""

import torch
from torch.nn import functional as F

from video.warp import pixel_grid, resize, warp

KNOTS_PER_LATENT = 2  # poses are stored at the 2nd and 4th frame of a latent; others lie between
POSE_CHANNELS = 6 * KNOTS_PER_LATENT
POSE_SCALE_6 = (0.06, 0.04, 0.03, 0.35, 0.35, 0.35)  # about one standard deviation each
PIXELS_PER_CM = 8.6  # of the canonical 256-pixel picture at the head's depth
SMOOTHING = 0.3  # share of the way to the target moved per frame, twice in cascade


def pose_to_latents(pose_BT6: torch.Tensor, grid: int) -> torch.Tensor:
    """Return pose channels [B, 12, T, G, G] of per-frame poses [B, 4*T, 6]."""
    knots = pose_BT6[:, 1::2] / pose_BT6.new_tensor(POSE_SCALE_6)
    batch, num_knots, _ = knots.shape
    channels_BTK = knots.reshape(batch, num_knots // KNOTS_PER_LATENT, POSE_CHANNELS)
    channels = channels_BTK.transpose(1, 2)[..., None, None]
    return channels.expand(-1, -1, -1, grid, grid)


def latents_to_pose(channels_BKTGG: torch.Tensor, last_B6: torch.Tensor) -> torch.Tensor:
    """Return per-frame poses [B, 4*T, 6]; `last_B6` is the pose of the frame before the first."""
    batch, _, num_latents = channels_BKTGG.shape[:3]
    knots_BK6 = channels_BKTGG.mean(dim=(-2, -1)).transpose(1, 2).reshape(batch, -1, 6)
    knots_BK6 = knots_BK6 * knots_BK6.new_tensor(POSE_SCALE_6)
    previous_BK6 = torch.cat((last_B6[:, None], knots_BK6[:, :-1]), dim=1)
    between_BK6 = 0.5 * (previous_BK6 + knots_BK6)
    poses = torch.stack((between_BK6, knots_BK6), dim=2)
    return poses.reshape(batch, num_latents * 2 * KNOTS_PER_LATENT, 6)


def smooth_pose(
    pose_BT6: torch.Tensor, state_B26: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Low-pass poses frame by frame and return them with the filter's next state [B, 2, 6].

    Two one-pole filters in cascade: heads move below about 3 Hz, what is faster is sampling noise.
    """
    first, second = state_B26[:, 0], state_B26[:, 1]
    smoothed = []
    for pose_B6 in pose_BT6.unbind(1):
        first = first + SMOOTHING * (pose_B6 - first)
        second = second + SMOOTHING * (first - second)
        smoothed.append(second)
    return torch.stack(smoothed, dim=1), torch.stack((first, second), dim=1)


def _rotations(pose_N6: torch.Tensor) -> torch.Tensor:
    """Rotation matrices [N, 3, 3] of yaw about y, then pitch about x, then roll about z."""
    yaw, pitch, roll = pose_N6[:, 0], pose_N6[:, 1], pose_N6[:, 2]
    zero, one = torch.zeros_like(yaw), torch.ones_like(yaw)
    cy, sy, cp, sp, cr, sr = yaw.cos(), yaw.sin(), pitch.cos(), pitch.sin(), roll.cos(), roll.sin()
    about_y = torch.stack((cy, zero, sy, zero, one, zero, -sy, zero, cy), dim=-1)
    about_x = torch.stack((one, zero, zero, zero, cp, -sp, zero, sp, cp), dim=-1)
    about_z = torch.stack((cr, -sr, zero, sr, cr, zero, zero, zero, one), dim=-1)
    matrices = [m.reshape(-1, 3, 3) for m in (about_z, about_x, about_y)]
    return matrices[0] @ matrices[1] @ matrices[2]


def head_flow(
    pose_N6: torch.Tensor, depth_HW: torch.Tensor, headness_HW: torch.Tensor, pivot_2: torch.Tensor
) -> torch.Tensor:
    """Return the backward flow [N, 2, H, W] of a head that takes pose `pose_N6`.

    `depth_HW` is in centimetres towards the camera from the pivot (the neck's base), `headness_HW`
    in 0..1 says how much a pixel follows the head, `pivot_2` is (x, y). Pixels are those of the
    canonical 256-pixel picture whatever H and W are. Weak perspective; the forward displacement
    at p is used negated at p, refined once at the point it came from.
    """
    height, width = depth_HW.shape
    step = 256.0 / width
    grid_2HW = (pixel_grid(height, width, depth_HW.device)[0] + 0.5) * step - 0.5
    x_HW = (grid_2HW[0] - pivot_2[0]) / PIXELS_PER_CM
    y_HW = (pivot_2[1] - grid_2HW[1]) / PIXELS_PER_CM
    points_3L = torch.stack((x_HW, y_HW, depth_HW)).reshape(3, -1)
    rotated_N3L = _rotations(pose_N6) @ points_3L
    moved_N3L = rotated_N3L + pose_N6[:, 3:, None]
    nearer_N1L = 1.0 + (moved_N3L[:, 2:] - points_3L[2:]) / 80.0  # camera at about 80 cm
    target_N2L = moved_N3L[:, :2] * nearer_N1L
    shift_N2L = (target_N2L - points_3L[:2]) * PIXELS_PER_CM
    flip_21 = shift_N2L.new_tensor([[-1.0], [1.0]])  # picture y points down
    flow_N2HW = (shift_N2L * flip_21).reshape(-1, 2, height, width) * headness_HW
    return _pull_back(flow_N2HW, step)


def _pull_back(flow_N2HW: torch.Tensor, step: float) -> torch.Tensor:
    """Re-read a displacement given at source pixels at the pixels it leads to (one iteration)."""
    return warp(flow_N2HW, flow_N2HW / step)


def smooth_depth(depth_B1HW: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Bring a coarse depth or weight map to the picture's size without steps."""
    padded = F.pad(depth_B1HW, (1, 1, 1, 1), mode="replicate")
    return resize(F.avg_pool2d(padded, 3, stride=1), height, width)
