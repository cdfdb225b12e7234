"""A video codec whose latents say how a portrait moves, not what it looks like.

A latent of the 8x8 grid covers four frames: 12 channels of rigid head pose (constant over the
grid) and `local_channels` of facial motion relative to the portrait. The decoder displaces the
portrait's own pixels and paints only what the portrait does not show (mouth interior, closed
lids), so identity and sharpness come from the photograph and the output size is free. It stands
behind the same interface as the Wan VAE: the chain cannot tell them apart. The encoder of videos
is a linear projection of exact displacements and exists only in training.

Shape legend: B = batch, C = channels, T = latent frames, N = video frames, H, W = picture,
K = facial channels, G = grid side (8), S = field side (64).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F

from video.codec import DecoderState
from video.errors import WeightsError
from video.head_pose import (
    POSE_CHANNELS,
    head_flow,
    latents_to_pose,
    smooth_depth,
    smooth_pose,
)
from video.motion_field import MotionField
from video.motion_nets import (
    EYES_BOX,
    MOUTH_BOX,
    FieldRefiner,
    IdentityEncoder,
    PortraitEncoder,
    PortraitFeatures,
    RegionPainter,
    crop_scaled,
)
from video.section import Section
from video.warp import resize, warp

CANONICAL = 256  # side of the picture all networks see; displacements are in its pixels
LAYOUT = (8, 64, 4)  # cells a side, field points a side, frames per latent
PIVOT_XY = (128.0, 215.0)  # the neck's base in an aligned portrait


@dataclass(frozen=True, kw_only=True, slots=True)
class MotionCodecConfig(Section):
    """Sizes of the motion codec; the published pocket values are the defaults.

    `grid`, `field_side` and `frames_per_latent` are the layout that the networks, the painted
    regions and the pose's knots are drawn for; they stand in the config so that it says all.

    Raises:
        WeightsError: the layout is another one.
    """

    grid: int = 8
    field_side: int = 64
    frames_per_latent: int = 4
    local_channels: int = 20
    portrait_channels: int = 32
    refiner_channels: int = 40
    frame_features: int = 12
    painter_channels: int = 32
    painter_blocks: int = 2

    def __post_init__(self) -> None:
        """Refuse a layout that the networks do not have, before weights seem not to fit."""
        layout = (self.grid, self.field_side, self.frames_per_latent)
        if layout != LAYOUT:
            raise WeightsError(
                f"codec grid, field_side, frames_per_latent are {layout}: use {LAYOUT}"
            )


@dataclass(slots=True, kw_only=True)
class MotionDecoderState:
    """All that decoding carries from chunk to chunk: the portrait as read, and the head's pose."""

    portrait_BCHW: torch.Tensor
    canonical_BCHW: torch.Tensor
    features: PortraitFeatures
    headness_B1HW: torch.Tensor
    depth_B1HW: torch.Tensor
    pose_B6: torch.Tensor
    smooth_B26: torch.Tensor

    def export_state(self) -> dict[str, torch.Tensor]:
        """Return what changes while decoding; the portrait itself is the session's input."""
        return {"pose": self.pose_B6.clone(), "smooth": self.smooth_B26.clone()}

    def import_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Continue from an exported state of the same portrait.

        Raises:
            ValueError: the names or shapes are not those of `export_state`.
        """
        shapes = {name: value.shape for name, value in self.export_state().items()}
        if {name: value.shape for name, value in state.items()} != shapes:
            raise ValueError(f"state {sorted(state)} is not one of a motion decoder")
        self.pose_B6 = state["pose"].to(self.pose_B6)
        self.smooth_B26 = state["smooth"].to(self.smooth_B26)


class MotionCodec(nn.Module):
    """The pocket model's video codec; implements `VideoCodec`."""

    def __init__(self, config: MotionCodecConfig) -> None:
        """Create the networks of `config` with fresh weights."""
        super().__init__()
        self.config = config
        self.frames_per_latent = config.frames_per_latent
        self.latent_channels = POSE_CHANNELS + config.local_channels
        self.motion = MotionField(
            grid=config.grid,
            side=config.field_side,
            components=config.local_channels,
            frames_per_latent=config.frames_per_latent,
        )
        self.portrait = PortraitEncoder(config.portrait_channels)
        self.identity = IdentityEncoder(self.latent_channels)
        self.refiner = FieldRefiner(
            config.portrait_channels, config.refiner_channels, config.frame_features
        )
        self.mouth = self._painter(MOUTH_BOX)
        self.eyes = self._painter(EYES_BOX)

    def _painter(self, box: tuple[int, int, int, int]) -> RegionPainter:
        config = self.config
        return RegionPainter(
            box,
            config.frame_features + config.portrait_channels,
            config.painter_channels,
            config.painter_blocks,
        )

    def latent_size(self, height_px: int, width_px: int) -> tuple[int, int]:
        """Return the latent grid, the same whatever the output size."""
        del height_px, width_px
        return self.config.grid, self.config.grid

    def encode_reference(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        """Return the portrait as one latent frame [B, C, 1, G, G] for the network's sink.

        `image_BCHW` is in [-1, 1] at any square-ish size; it is read at 256x256.
        """
        latent: torch.Tensor = self.identity(resize_antialiased(image_BCHW))
        return latent[:, :, None]

    def start(self, image_BCHW: torch.Tensor) -> MotionDecoderState:
        """Begin a session with a portrait in [-1, 1]; frames will have its size."""
        canonical = resize_antialiased(image_BCHW)
        features = self.portrait(canonical)
        headness, depth = soft_head(features)
        batch = image_BCHW.shape[0]
        return MotionDecoderState(
            portrait_BCHW=image_BCHW,
            canonical_BCHW=canonical,
            features=features,
            headness_B1HW=headness,
            depth_B1HW=depth,
            pose_B6=image_BCHW.new_zeros(batch, 6),
            smooth_B26=image_BCHW.new_zeros(batch, 2, 6),
        )

    def decode(self, latents_BCTHW: torch.Tensor, state: DecoderState) -> torch.Tensor:
        """Return frames [B, 3, 4*T, H, W] in [-1, 1] and advance `state`; any T gives the same."""
        if not isinstance(state, MotionDecoderState):
            raise TypeError(f"state is {type(state).__name__}: use the one that start() returned")
        pose = latents_to_pose(latents_BCTHW[:, :POSE_CHANNELS], state.pose_B6)
        state.pose_B6 = pose[:, -1]
        smoothed, state.smooth_B26 = smooth_pose(pose, state.smooth_B26)
        frames = []
        for index in range(latents_BCTHW.shape[2]):
            local = latents_BCTHW[:, POSE_CHANNELS:, index : index + 1]
            first = index * self.frames_per_latent
            poses_BF6 = smoothed[:, first : first + self.frames_per_latent]
            frames.append(self._decode_latent(local, poses_BF6, state))
        return torch.cat(frames, dim=2)

    def face_motion(
        self, local_BKTGG: torch.Tensor, canonical_BCHW: torch.Tensor, features: PortraitFeatures
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return flow [N, 2, 256, 256], paint [N, 3, ...] and opacity [N, 1, ...] of one latent.

        N = 4*B frames at the portrait's own head pose. This is what training supervises.
        """
        linear = self.motion.decode(local_BKTGG)[:, 0]
        flat = rearrange(linear, "b f q h w -> b (f q) h w")
        mended, emitted = self.refiner(flat, features.map_BCHW)
        frames = self.frames_per_latent
        field_NQSS = rearrange(mended, "b (f q) h w -> (b f) q h w", q=3)
        emitted_NCSS = rearrange(emitted, "b (f c) h w -> (b f) c h w", f=frames)
        map_NCSS = features.map_BCHW.repeat_interleave(frames, dim=0)
        portrait = canonical_BCHW.repeat_interleave(frames, dim=0)
        field = resize(field_NQSS, CANONICAL, CANONICAL)
        features_NCSS = torch.cat((emitted_NCSS, map_NCSS), dim=1)
        flow = field[:, :2].clone()
        painted = portrait.new_zeros(len(portrait), 4, CANONICAL, CANONICAL)
        for painter in (self.eyes, self.mouth):
            x, y, width, height = painter.box
            window = (..., slice(y, y + height), slice(x, x + width))
            inside = flow[window]
            colour, cover, correction = painter(
                portrait[window],
                warp(portrait, inside, (x, y)),
                field[window],
                crop_scaled(features_NCSS, painter.box, CANONICAL // self.config.field_side),
            )
            painted[window] += torch.cat((colour * cover, cover), dim=1)
            flow[window] = inside + correction
        paint, opacity = painted[:, :3], painted[:, 3:]
        return flow, paint, opacity

    def _decode_latent(
        self, local_BK1GG: torch.Tensor, poses_BF6: torch.Tensor, state: MotionDecoderState
    ) -> torch.Tensor:
        """Return the four frames [B, 3, 4, H, W] of one latent."""
        flow, paint, opacity = self.face_motion(local_BK1GG, state.canonical_BCHW, state.features)
        head = _head_flow(poses_BF6, state)
        height, width = state.portrait_BCHW.shape[-2:]
        scale = flow.new_tensor([width / CANONICAL, height / CANONICAL])[:, None, None]
        head = resize(head, height, width) * scale
        combined = warp(resize(flow, height, width) * scale, head) + head
        portrait = state.portrait_BCHW.repeat_interleave(self.frames_per_latent, dim=0)
        moved = warp(portrait, combined)
        painted = warp(resize(torch.cat((paint, opacity), dim=1), height, width), head)
        frames = moved * (1.0 - painted[:, 3:]) + painted[:, :3]
        return rearrange(frames.clamp(-1, 1), "(b f) c h w -> b c f h w", f=self.frames_per_latent)


def _head_flow(poses_BF6: torch.Tensor, state: MotionDecoderState) -> torch.Tensor:
    """Return the rigid part of the flow [N, 2, 64, 64] in canonical pixels."""
    pivot = poses_BF6.new_tensor(PIVOT_XY)
    maps = zip(poses_BF6, state.depth_B1HW[:, 0], state.headness_B1HW[:, 0], strict=True)
    return torch.cat([head_flow(poses, depth, headness, pivot) for poses, depth, headness in maps])


def resize_antialiased(image_BCHW: torch.Tensor) -> torch.Tensor:
    """Bring a picture to the canonical 256x256 with area averaging when it shrinks."""
    if image_BCHW.shape[-2:] == (CANONICAL, CANONICAL):
        return image_BCHW
    return F.interpolate(image_BCHW, size=(CANONICAL, CANONICAL), mode="bilinear", antialias=True)


def soft_head(features: PortraitFeatures) -> tuple[torch.Tensor, torch.Tensor]:
    """Return headness and depth [B, 1, 64, 64] widened and smoothed beyond the head's outline.

    A backward flow must already move outside the outline, or the moving head loses its edge there
    and leaves a copy of it behind; the background near the head stretches a little instead.
    """
    weight = features.headness_B1HW
    spread = smooth_depth(weight, *weight.shape[-2:]).clamp_min(1e-3)
    depth = features.depth_B1HW
    for _ in range(4):
        mass = F.avg_pool2d(spread, 5, stride=1, padding=2)
        depth = F.avg_pool2d(depth * spread, 5, stride=1, padding=2) / mass.clamp_min(1e-4)
        spread = mass.clamp_min(1e-3)
    wide = F.max_pool2d(weight, 5, stride=1, padding=2)
    for _ in range(2):
        wide = F.avg_pool2d(wide, 5, stride=1, padding=2)
    return wide, depth
