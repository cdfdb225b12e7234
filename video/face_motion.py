"""How frames differ from a portrait, and the paint laid over them.

Shape legend: B = batch, F = frames of each portrait, N = B*F frames, C = channels, H, W = picture,
S = 128, the side of flows.
"""

from dataclasses import dataclass, fields

import torch
from einops import rearrange

from video.motion_nets import EYES_BOX, MOUTH_BOX, Box, crop
from video.motion_painter import RegionPaint
from video.warp import pixel_grid, sample

CANONICAL = 256  # side of the picture all networks see; displacements are in its pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceMotion:
    """How N frames differ from the portrait at its own head pose.

    `flow_N2FF` (128x128, in canonical pixels) is the backward displacement of everything;
    `eyes` and `mouth` are painted over their regions after it.
    """

    flow_N2FF: torch.Tensor
    eyes: RegionPaint
    mouth: RegionPaint

    def part(self, batch: int, first: int, last: int) -> "FaceMotion":
        """Return frames `first` to `last` (not included) of each of the `batch` portraits."""

        def cut(frames_NCHW: torch.Tensor) -> torch.Tensor:
            return torch.unflatten(frames_NCHW, 0, (batch, -1))[:, first:last].flatten(0, 1)

        return FaceMotion(
            flow_N2FF=cut(self.flow_N2FF),
            eyes=RegionPaint(*(cut(getattr(self.eyes, f.name)) for f in fields(RegionPaint))),
            mouth=RegionPaint(*(cut(getattr(self.mouth, f.name)) for f in fields(RegionPaint))),
        )


def paint_over(
    frames_B3FHW: torch.Tensor, motion: FaceMotion, head_B2FHW: torch.Tensor, furthest: float
) -> None:
    """Paint the regions over frames in place, moved by the head's flow.

    The flow is in canonical pixels, none of it longer than `furthest`.
    """
    height, width = frames_B3FHW.shape[-2:]
    left, top, across, down = joint_box()
    canvas_N4HW = _canvas(motion)
    reach = int(furthest) + 2 if furthest < CANONICAL else CANONICAL
    rows = _part(top - reach, top + down + reach, height)
    columns = _part(left - reach, left + across + reach, width)
    head = head_B2FHW[..., rows, columns].transpose(1, 2).flatten(0, 1)
    size = head.new_tensor([CANONICAL / width, CANONICAL / height])[:, None, None]
    first = head.new_tensor([left - 1.0, top - 1.0])[:, None, None]
    span = head.new_tensor([(across + 1) / 2, (down + 1) / 2])[:, None, None]
    grid = pixel_grid(height, width, head.device)[..., rows, columns]
    canonical = (grid + 0.5) * size - 0.5 - first
    paint_N4HW = sample(canvas_N4HW, torch.addcdiv(canonical / span - 1.0, head, span))
    paint = rearrange(paint_N4HW, "(b f) c h w -> b c f h w", b=len(frames_B3FHW))
    part = frames_B3FHW[..., rows, columns]
    part.mul_(1.0 - paint[:, 3:]).add_(paint[:, :3]).clamp_(-1.0, 1.0)


def joint_box() -> Box:
    """Return the box around both painted regions."""
    boxes = (EYES_BOX, MOUTH_BOX)
    left, top = min(x for x, _, _, _ in boxes), min(y for _, y, _, _ in boxes)
    right = max(x + width for x, _, width, _ in boxes)
    return left, top, right - left, max(y + height for _, y, _, height in boxes) - top


def _canvas(motion: FaceMotion) -> torch.Tensor:
    """Return covered colour and cover [N, 4, h+2, w+2] of both regions, ringed by zeros."""
    left, top, across, down = joint_box()
    count = len(motion.flow_N2FF)
    canvas = motion.flow_N2FF.new_zeros(count, 4, down + 2, across + 2)
    for box, paint in ((EYES_BOX, motion.eyes), (MOUTH_BOX, motion.mouth)):
        part = crop(canvas, (box[0] - left + 1, box[1] - top + 1, box[2], box[3]))
        torch.mul(paint.colour_N3HW, paint.cover_N1HW, out=part[:, :3])
        part[:, 3:] = paint.cover_N1HW
    return canvas


def full_cover(motion: FaceMotion) -> torch.Tensor:
    """Return the share of paint [N, 1, 256, 256] at the portrait's own pose."""
    cover = motion.flow_N2FF.new_zeros(len(motion.flow_N2FF), 1, CANONICAL, CANONICAL)
    for box, paint in ((EYES_BOX, motion.eyes), (MOUTH_BOX, motion.mouth)):
        crop(cover, box).copy_(paint.cover_N1HW)
    return cover


def _part(first: int, last: int, side: int) -> slice:
    """Return the pixels of a picture `side` wide between two canonical coordinates."""
    scale = side / CANONICAL
    return slice(max(0, int(first * scale)), min(side, int(last * scale) + 1))
