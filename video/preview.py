"""Small pictures of latents, made without a codec's networks: enough to see what is coming.

Shape legend: B = batch (1), C = channels, T = latent frames, F = frames of a latent, N = pictures,
H, W = rows and columns, S = field side (64).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F

from video.codec import DecoderState, VideoCodec
from video.face_motion import CANONICAL
from video.head_pose import POSE_CHANNELS, head_flow, latents_to_pose, smooth_pose
from video.motion_codec import PIVOT_XY, MotionCodec, resize_antialiased, soft_head
from video.motion_field import ease
from video.motion_nets import MOUTH_BOX
from video.warp import pixel_grid, resize, sample, warp

LONGEST_SIDE_PX = 160
MOUTH_RGB = (-0.62, -0.82, -0.8)  # what is between the lips and in no portrait
RIDGE = 1e-3  # keeps the linear map small where a portrait says nothing of a channel


def preview_size(width: int, height: int) -> tuple[int, int]:
    """Width and height of previews of pictures of a size: a whole part of it, both even."""
    times = -(-max(width, height) // LONGEST_SIDE_PX)
    return max(2, width // times // 2 * 2), max(2, height // times // 2 * 2)


def preview_of(codec: VideoCodec) -> "MotionPreview | LinearPreview":
    """What makes previews of a codec's latents, behind the codec's own interface."""
    return MotionPreview(codec) if isinstance(codec, MotionCodec) else LinearPreview(codec)


class _PlainState:
    """A decoder state that is a dataclass of tensors; the changing ones are exported."""

    changing: tuple[str, ...] = ()

    def export_state(self) -> dict[str, torch.Tensor]:
        """What changes while decoding."""
        return {name: getattr(self, name).clone() for name in self.changing}

    def import_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go on from an export of the same portrait.

        Raises:
            ValueError: the names are not those of `export_state`.
        """
        if set(state) != set(self.changing):
            raise ValueError(f"state {sorted(state)} is not one of a preview")
        for name, value in state.items():
            setattr(self, name, value.to(getattr(self, name)))


@dataclass(slots=True, kw_only=True)
class MotionPreviewState(_PlainState):
    """The shrunken portrait, its head, and where motion stands."""

    changing = ("pose_B6", "smooth_B26", "field_BQSS")

    portrait_B3HW: torch.Tensor
    headness_HW: torch.Tensor
    depth_HW: torch.Tensor
    mouth_1HW: torch.Tensor
    pose_B6: torch.Tensor
    smooth_B26: torch.Tensor
    field_BQSS: torch.Tensor


class MotionPreview(nn.Module):
    """Moves a shrunken portrait by what the motion codec's latents say, and paints nothing.

    The linear part of the codec gives the displacement; refiner and painters, where its time goes,
    are left out. Open mouths are filled with one colour. Source of the idea: DiffusionBrowser.
    """

    def __init__(self, codec: MotionCodec) -> None:
        """Use the codec's own components of motion and its reading of portraits."""
        super().__init__()
        self.codec = codec
        self.frames_per_latent = codec.frames_per_latent
        self.latent_channels = codec.latent_channels

    def latent_size(self, height_px: int, width_px: int) -> tuple[int, int]:
        """The codec's grid."""
        return self.codec.latent_size(height_px, width_px)

    def encode_reference(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        """The codec's latent of a portrait."""
        return self.codec.encode_reference(image_BCHW)

    def start(self, image_BCHW: torch.Tensor) -> MotionPreviewState:
        """Begin a session; the portrait is read once as the codec reads it."""
        canonical = resize_antialiased(image_BCHW)
        headness, depth = soft_head(self.codec.portrait(canonical))
        width, height = preview_size(image_BCHW.shape[-1], image_BCHW.shape[-2])
        return MotionPreviewState(
            portrait_B3HW=shrunk(image_BCHW, height, width),
            headness_HW=headness[0, 0],
            depth_HW=depth[0, 0],
            mouth_1HW=_mouth_weight(height, width).to(image_BCHW),
            pose_B6=image_BCHW.new_zeros(1, 6),
            smooth_B26=image_BCHW.new_zeros(1, 2, 6),
            field_BQSS=self.codec.still_field(canonical),
        )

    def decode(self, latents_BCTHW: torch.Tensor, state: DecoderState) -> torch.Tensor:
        """Small frames [1, 3, 4*T, H, W] in [-1, 1]; advances `state`."""
        if not isinstance(state, MotionPreviewState):
            raise TypeError(f"state is {type(state).__name__}: use the one that start() returned")
        pose = latents_to_pose(latents_BCTHW[:, :POSE_CHANNELS], state.pose_B6)
        state.pose_B6 = pose[:, -1]
        smoothed, state.smooth_B26 = smooth_pose(pose, state.smooth_B26)
        fields_BTFQSS = self.codec.motion.decode(latents_BCTHW[:, POSE_CHANNELS:])
        eased, state.field_BQSS = ease(fields_BTFQSS, state.field_BQSS)
        head_N2SS = head_flow(
            smoothed[0], state.depth_HW, state.headness_HW, pose.new_tensor(PIVOT_XY)
        )
        return _moved(eased[0].flatten(0, 1), head_N2SS, state)


def _moved(
    field_NQSS: torch.Tensor, head_N2SS: torch.Tensor, state: MotionPreviewState
) -> torch.Tensor:
    """The shrunken portrait moved by face and head, open mouths filled; [1, 3, N, H, W]."""
    count, (height, width) = len(field_NQSS), state.portrait_B3HW.shape[-2:]
    hidden_N1SS = field_NQSS[:, 2:].clamp(0.0, 1.0)
    step = CANONICAL / head_N2SS.shape[-1]
    both = torch.cat([field_NQSS[:, :2], hidden_N1SS], dim=1)
    turned = warp(both, head_N2SS / step)
    flow = resize(turned[:, :2] + head_N2SS, height, width)
    unit = flow.new_tensor([width / CANONICAL, height / CANONICAL])[:, None, None]
    span = flow.new_tensor([max(width - 1, 1) / 2, max(height - 1, 1) / 2])[:, None, None]
    position = torch.addcmul(pixel_grid(height, width, flow.device) / span - 1.0, flow, unit / span)
    moved = sample(state.portrait_B3HW.expand(count, -1, -1, -1), position)
    open_N1HW = resize(turned[:, 2:], height, width) * state.mouth_1HW
    dark = moved.new_tensor(MOUTH_RGB)[:, None, None]
    return rearrange(torch.lerp(moved, dark, open_N1HW), "n c h w -> 1 c n h w")


def _mouth_weight(height: int, width: int) -> torch.Tensor:
    """Where what is hidden is a mouth's inside, [1, H, W]; elsewhere it is a lid."""
    x, y, across, down = MOUTH_BOX
    weight_1HW = torch.zeros(1, height, width)
    rows = slice(y * height // CANONICAL, (y + down) * height // CANONICAL)
    columns = slice(x * width // CANONICAL, (x + across) * width // CANONICAL)
    weight_1HW[:, rows, columns] = 1.0
    return weight_1HW


@dataclass(slots=True, kw_only=True)
class LinearPreviewState(_PlainState):
    """The map from a latent's channels and 1 to red, green and blue, and the size to show."""

    map_KC: torch.Tensor
    size_2: torch.Tensor


class LinearPreview:
    """Shows the latents of a codec of pixels by a linear map, pixel by pixel of the latent grid.

    The map is fitted to the session's portrait, of which latents and colours are both known, so it
    needs no training and no file. All frames of a latent are shown alike.
    """

    def __init__(self, codec: VideoCodec) -> None:
        """Read portraits with the codec; its decoder is never used."""
        self._codec = codec
        self.frames_per_latent = codec.frames_per_latent
        self.latent_channels = codec.latent_channels

    def latent_size(self, height_px: int, width_px: int) -> tuple[int, int]:
        """The codec's grid."""
        return self._codec.latent_size(height_px, width_px)

    def encode_reference(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        """The codec's latent of a portrait."""
        return self._codec.encode_reference(image_BCHW)

    def start(self, image_BCHW: torch.Tensor) -> LinearPreviewState:
        """Fit the map to a portrait."""
        latent_CHW = self._codec.encode_reference(image_BCHW)[0, :, 0].float()
        colour_3HW = shrunk(image_BCHW, *latent_CHW.shape[-2:])[0].float()
        width, height = preview_size(image_BCHW.shape[-1], image_BCHW.shape[-2])
        return LinearPreviewState(
            map_KC=fit_colours(latent_CHW, colour_3HW), size_2=torch.tensor([height, width])
        )

    def decode(self, latents_BCTHW: torch.Tensor, state: DecoderState) -> torch.Tensor:
        """Small frames [1, 3, frames_per_latent * T, H, W] in [-1, 1]."""
        if not isinstance(state, LinearPreviewState):
            raise TypeError(f"state is {type(state).__name__}: use the one that start() returned")
        latents_TCHW = latents_BCTHW[0].transpose(0, 1).float()
        colours_T3HW = torch.einsum("tchw,ck->tkhw", _with_one(latents_TCHW), state.map_KC)
        height, width = (int(side) for side in state.size_2)
        shown = resize(colours_T3HW.clamp(-1.0, 1.0), height, width)
        return shown.repeat_interleave(self.frames_per_latent, dim=0).transpose(0, 1)[None]


def fit_colours(latent_CHW: torch.Tensor, colour_3HW: torch.Tensor) -> torch.Tensor:
    """The map [C + 1, 3] with which latents, and 1, come nearest to these colours."""
    seen_PC = _with_one(latent_CHW[None])[0].flatten(1).T.double()
    wanted_P3 = colour_3HW.flatten(1).T.double()
    square_CC = seen_PC.T @ seen_PC
    weight = RIDGE * square_CC.diagonal().mean()
    identity_CC = torch.eye(len(square_CC), dtype=torch.float64, device=square_CC.device)
    map_C3: torch.Tensor = torch.linalg.solve(
        square_CC + weight * identity_CC, seen_PC.T @ wanted_P3
    )
    return map_C3.float()


def _with_one(latents_TCHW: torch.Tensor) -> torch.Tensor:
    """The latents with a channel of ones behind them."""
    return F.pad(latents_TCHW, (0, 0, 0, 0, 0, 1), value=1.0)


def shrunk(image_BCHW: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """A picture at a smaller size, its pixels means of those it had."""
    return F.interpolate(image_BCHW, size=(height, width), mode="bilinear", antialias=True)
