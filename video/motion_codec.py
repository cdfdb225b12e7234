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
from typing import ClassVar

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F

from video.codec import DecoderState
from video.errors import WeightsError
from video.face_motion import CANONICAL, FaceMotion, paint_over
from video.head_pose import (
    POSE_CHANNELS,
    head_flow,
    latents_to_pose,
    smooth_depth,
    smooth_pose,
)
from video.motion_field import MotionField, ease
from video.motion_nets import (
    EYES_BOX,
    MOUTH_BOX,
    Box,
    FieldRefiner,
    IdentityEncoder,
    PortraitEncoder,
    PortraitFeatures,
    crop,
    crop_scaled,
)
from video.motion_painter import RegionPaint, RegionPainter, RegionReading
from video.section import Section
from video.warp import pixel_grid, resize, sample, warp

LAYOUT = (8, 64, 4)  # cells a side, field points a side, frames per latent
FINE = 128  # side of the flow that frames are drawn with
PIVOT_XY = (128.0, 215.0)  # the neck's base in an aligned portrait


@dataclass(frozen=True, kw_only=True, slots=True)
class MotionCodecConfig(Section):
    """Sizes of the motion codec; the published pocket values are the defaults.

    `grid`, `field_side` and `frames_per_latent` are the layout that the networks, the painted
    regions and the pose's knots are drawn for; they stand in the config so that it says all.

    Raises:
        WeightsError: the layout is another one.
    """

    may_be_zero: ClassVar[frozenset[str]] = frozenset({"mouth_fine_blocks"})
    grid: int = 8
    field_side: int = 64
    frames_per_latent: int = 4
    local_channels: int = 20
    portrait_channels: int = 32
    refiner_channels: int = 64
    refiner_blocks: int = 3
    frame_features: int = 12
    painter_channels: int = 64
    painter_blocks: int = 4
    painter_fine: int = 32
    mouth_fine_blocks: int = 1

    def __post_init__(self) -> None:
        """Refuse a layout that the networks do not have, before weights seem not to fit."""
        layout = (self.grid, self.field_side, self.frames_per_latent)
        if layout != LAYOUT:
            raise WeightsError(
                f"codec grid, field_side, frames_per_latent are {layout}: use {LAYOUT}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class PortraitReading:
    """All that the networks see of a portrait, computed once a session."""

    features: PortraitFeatures
    refiner_BCHW: torch.Tensor
    eyes: RegionReading
    mouth: RegionReading


@dataclass(slots=True, kw_only=True)
class MotionDecoderState:
    """All that decoding carries from chunk to chunk: the portrait as read, and the head's pose."""

    portrait_BCHW: torch.Tensor
    canonical_BCHW: torch.Tensor
    reading: PortraitReading
    headness_B1HW: torch.Tensor
    depth_B1HW: torch.Tensor
    pose_B6: torch.Tensor
    smooth_B26: torch.Tensor
    field_B3SS: torch.Tensor

    def export_state(self) -> dict[str, torch.Tensor]:
        """Return what changes while decoding; the portrait itself is the session's input."""
        return {
            "pose": self.pose_B6.clone(),
            "smooth": self.smooth_B26.clone(),
            "field": self.field_B3SS.clone(),
        }

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
        self.field_B3SS = state["field"].to(self.field_B3SS)


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
            config.portrait_channels,
            config.refiner_channels,
            config.frame_features,
            config.refiner_blocks,
        )
        self.mouth = self._painter(MOUTH_BOX, config.mouth_fine_blocks)
        self.eyes = self._painter(EYES_BOX, 0)

    def _painter(self, box: Box, fine_blocks: int) -> RegionPainter:
        config = self.config
        return RegionPainter(
            box,
            features=config.frame_features,
            channels=config.portrait_channels,
            hidden=config.painter_channels,
            num_blocks=config.painter_blocks,
            fine=config.painter_fine,
            fine_blocks=fine_blocks,
        )

    def latent_size(self, height_px: int, width_px: int) -> tuple[int, int]:
        """Return the latent grid, the same whatever the output size."""
        del height_px, width_px
        return self.config.grid, self.config.grid

    def encode_reference(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        """Return a portrait in [-1, 1], read at 256x256, as the sink's latent [B, C, 1, G, G]."""
        latent: torch.Tensor = self.identity(resize_antialiased(image_BCHW))
        return latent[:, :, None]

    reference_of = encode_reference  # latents of the stream are motion: pictures are read again

    def start(self, image_BCHW: torch.Tensor) -> MotionDecoderState:
        """Begin a session with a portrait in [-1, 1]; frames will have its size."""
        canonical = resize_antialiased(image_BCHW)
        reading = self.read(canonical)
        headness, depth = soft_head(reading.features)
        batch = image_BCHW.shape[0]
        return MotionDecoderState(
            portrait_BCHW=image_BCHW,
            canonical_BCHW=canonical,
            reading=reading,
            headness_B1HW=headness,
            depth_B1HW=depth,
            pose_B6=image_BCHW.new_zeros(batch, 6),
            smooth_B26=image_BCHW.new_zeros(batch, 2, 6),
            field_B3SS=self.still_field(canonical),
        )

    def decode(self, latents_BCTHW: torch.Tensor, state: DecoderState) -> torch.Tensor:
        """Return frames [B, 3, 4*T, H, W] in [-1, 1] and advance `state`.

        Any T gives the same but for rounding: the latents of a call are worked on together.
        """
        if not isinstance(state, MotionDecoderState):
            raise TypeError(f"state is {type(state).__name__}: use the one that start() returned")
        pose = latents_to_pose(latents_BCTHW[:, :POSE_CHANNELS], state.pose_B6)
        state.pose_B6 = pose[:, -1]
        smoothed, state.smooth_B26 = smooth_pose(pose, state.smooth_B26)
        motion, state.field_B3SS = self.streamed_motion(
            latents_BCTHW[:, POSE_CHANNELS:], state.canonical_BCHW, state.reading, state.field_B3SS
        )
        frames = self.frames_per_latent
        return torch.cat(
            [
                self.render(
                    motion.part(len(smoothed), first, first + frames),
                    state.portrait_BCHW,
                    rigid_flow(smoothed[:, first : first + frames], state),
                )
                for first in range(0, smoothed.shape[1], frames)
            ],
            dim=2,
        )

    def read(self, canonical_B3HW: torch.Tensor) -> PortraitReading:
        """Look at portraits of the canonical size; nothing else of them reaches the networks."""
        features = self.portrait(canonical_B3HW)
        return PortraitReading(
            features=features,
            refiner_BCHW=self.refiner.read(features.map_BCHW),
            eyes=self.read_region(self.eyes, canonical_B3HW, features.map_BCHW),
            mouth=self.read_region(self.mouth, canonical_B3HW, features.map_BCHW),
        )

    def read_region(
        self, painter: RegionPainter, canonical_B3HW: torch.Tensor, map_BCSS: torch.Tensor
    ) -> RegionReading:
        """Have a painter look at its region of portraits and of their maps."""
        step = CANONICAL // self.config.field_side
        seen: RegionReading = painter.read(
            crop(canonical_B3HW, painter.box), crop_scaled(map_BCSS, painter.box, step)
        )
        return seen

    def face_motion(
        self,
        local_BKTGG: torch.Tensor,
        canonical_B3HW: torch.Tensor,
        reading: PortraitReading,
        frames: slice = slice(None),
    ) -> FaceMotion:
        """Return how the N = 4*B*T frames of T latents differ from the portrait.

        This is what training supervises; the head keeps the portrait's own pose. `frames` are
        those of each latent that are wanted, all four by default.
        """
        field_N3SS, emitted_NCSS = self.fields(local_BKTGG, reading, frames)
        return self.painted(field_N3SS, emitted_NCSS, canonical_B3HW, reading)

    def streamed_motion(
        self,
        local_BKTGG: torch.Tensor,
        canonical_B3HW: torch.Tensor,
        reading: PortraitReading,
        last_B3SS: torch.Tensor,
    ) -> tuple[FaceMotion, torch.Tensor]:
        """Return `face_motion` with latents eased into each other, and the last frame's field.

        `last_B3SS` is the field of the frame before, `still_field` at the start.
        """
        field_N3SS, emitted_NCSS = self.fields(local_BKTGG, reading)
        shape = (len(local_BKTGG), -1, self.frames_per_latent)
        eased, last_B3SS = ease(torch.unflatten(field_N3SS, 0, shape), last_B3SS)
        field_N3SS = eased.flatten(0, 2)
        return self.painted(field_N3SS, emitted_NCSS, canonical_B3HW, reading), last_B3SS

    def still_field(self, canonical_B3HW: torch.Tensor) -> torch.Tensor:
        """Return the field of a face that does not differ from its portrait."""
        side = self.config.field_side
        return canonical_B3HW.new_zeros(len(canonical_B3HW), 3, side, side)

    def painted(
        self,
        field_N3SS: torch.Tensor,
        emitted_NCSS: torch.Tensor,
        canonical_B3HW: torch.Tensor,
        reading: PortraitReading,
    ) -> FaceMotion:
        """Return the motion of frames whose fields are known."""
        fine_N3FF = resize(field_N3SS, FINE, FINE)
        flow = fine_N3FF[:, :2].clone()
        paints = []
        for painter, seen in ((self.eyes, reading.eyes), (self.mouth, reading.mouth)):
            paint = self.paint(painter, canonical_B3HW, (field_N3SS, fine_N3FF), emitted_NCSS, seen)
            crop_scaled(flow, painter.box, CANONICAL // FINE).add_(paint.correction_N2HW)
            paints.append(paint)
        return FaceMotion(flow_N2FF=flow, eyes=paints[0], mouth=paints[1])

    def fields(
        self, local_BKTGG: torch.Tensor, reading: PortraitReading, frames: slice = slice(None)
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what painters are given of frames: mended field and features, both 64x64."""
        flat = rearrange(self.motion.decode(local_BKTGG), "b t f q h w -> (b t) (f q) h w")
        mended, emitted = self.refiner(flat, reading.refiner_BCHW)
        field_N3SS = mended.unflatten(1, (-1, 3))[:, frames].flatten(0, 1)
        count = self.frames_per_latent
        return field_N3SS, emitted.unflatten(1, (count, -1))[:, frames].flatten(0, 1)

    def paint(
        self,
        painter: RegionPainter,
        canonical_B3HW: torch.Tensor,
        field_and_fine: tuple[torch.Tensor, torch.Tensor],
        emitted_NCSS: torch.Tensor,
        seen: RegionReading,
    ) -> RegionPaint:
        """Have a painter paint its region of N frames, given their field at 64x64 and 128x128."""
        x, y, width, height = painter.box
        step = CANONICAL // self.config.field_side
        field_N3SS, fine_N3FF = field_and_fine
        inside = resize(crop_scaled(fine_N3FF, painter.box, CANONICAL // FINE), height, width)
        painted: RegionPaint = painter(
            warp_frames(canonical_B3HW, inside[:, :2], (x, y)),
            inside[:, 2:],
            crop_scaled(field_N3SS, painter.box, step),
            crop_scaled(emitted_NCSS, painter.box, step),
            seen,
        )
        return painted

    def render(
        self, motion: FaceMotion, portrait_B3HW: torch.Tensor, head_N2SS: torch.Tensor
    ) -> torch.Tensor:
        """Return frames [B, 3, F, H, W] of the portrait's size, the head moved by a rigid flow.

        Flows are put together at 128x128, where they are smooth; only pictures are sampled at
        full size, paint only where the moved regions can be.
        """
        batch, _, height, width = portrait_B3HW.shape
        head = resize(head_N2SS, FINE, FINE)
        flow = warp(motion.flow_N2FF, head * (FINE / CANONICAL)) + head
        flows_B4HW = rearrange(
            torch.cat((flow, head), dim=1), "(b f) c h w -> b (c f) h w", b=batch
        )
        flows = resize(flows_B4HW, height, width).reshape(batch, 4, -1, height, width)
        unit = flow.new_tensor([width / CANONICAL, height / CANONICAL])[:, None, None]
        span = flow.new_tensor([max(width - 1, 1) / 2, max(height - 1, 1) / 2])[:, None, None]
        grid = pixel_grid(height, width, flow.device) / span - 1.0
        position = torch.addcmul(grid[:, :, None], flows[:, :2], (unit / span)[:, None])
        moved = sample(portrait_B3HW, position.flatten(2, 3))
        moved = moved.reshape(batch, 3, -1, height, width)
        # On the meta device, where work is counted, nobody knows how far the head moves.
        furthest = CANONICAL if head_N2SS.is_meta else float(head_N2SS.abs().max())
        paint_over(moved, motion, flows[:, 2:], furthest)
        return moved


def warp_frames(
    portrait_B3HW: torch.Tensor, flow_N2HW: torch.Tensor, origin_xy: tuple[int, int] = (0, 0)
) -> torch.Tensor:
    """Warp each portrait by the flows of its N/B frames, without copies of the portrait."""
    batch, frames = len(portrait_B3HW), len(flow_N2HW) // len(portrait_B3HW)
    if batch == 1:
        return warp(portrait_B3HW.expand(frames, -1, -1, -1), flow_N2HW, origin_xy)
    return warp(portrait_B3HW.repeat_interleave(frames, dim=0), flow_N2HW, origin_xy)


def rigid_flow(poses_BF6: torch.Tensor, state: MotionDecoderState) -> torch.Tensor:
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
