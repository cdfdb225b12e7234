"""Learned parts of the motion codec: reading a portrait, mending the field.

Shape legend: B = batch, N = frames (batch of single frames), C = channels, H, W = picture.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

Box = tuple[int, int, int, int]  # x, y, width, height in the canonical 256-pixel picture
MOUTH_BOX: Box = (80, 136, 96, 80)
EYES_BOX: Box = (56, 72, 144, 56)


def zero(layer: nn.Conv2d) -> None:
    """Start a layer at zero, so that what it corrects is kept until training says otherwise."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


class ResidualConv(nn.Module):
    """Two 3x3 convolutions around a skip; the second starts at zero, so the block starts as one."""

    def __init__(self, channels: int) -> None:
        """Create a block that keeps the number of channels."""
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        zero(self.conv2)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Return x plus its correction."""
        correction: torch.Tensor = self.conv2(F.silu(self.conv1(F.silu(x_BCHW))))
        return x_BCHW + correction


@dataclass(frozen=True, slots=True)
class PortraitFeatures:
    """What is read from a portrait once a session.

    `map_BCHW` are features at a quarter of the canonical size (64x64); `depth_B1HW` (centimetres
    towards the camera from the neck's base) and `headness_B1HW` (0..1) are 64x64 too.
    """

    map_BCHW: torch.Tensor
    depth_B1HW: torch.Tensor
    headness_B1HW: torch.Tensor


class PortraitEncoder(nn.Module):
    """Read a portrait [B, 3, 256, 256] into `PortraitFeatures`: a small U-shaped network."""

    def __init__(self, channels: int) -> None:
        """`channels` is the width of the 64x64 feature map."""
        super().__init__()
        widths = (channels // 2, channels, channels * 3 // 2, channels * 2)
        self.stem = nn.Conv2d(3, widths[0], 4, stride=2, padding=1)
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 4, stride=2, padding=1), ResidualConv(b))
            for a, b in pairwise(widths)
        )
        self.middle = nn.Sequential(ResidualConv(widths[3]), ResidualConv(widths[3]))
        self.up1 = nn.Conv2d(widths[3] + widths[2], widths[2], 3, padding=1)
        self.up2 = nn.Conv2d(widths[2] + widths[1], channels, 3, padding=1)
        self.out = nn.Sequential(ResidualConv(channels), ResidualConv(channels))
        self.geometry = nn.Conv2d(channels, 2, 3, padding=1)

    def forward(self, image_BCHW: torch.Tensor) -> PortraitFeatures:
        """Return the portrait's features, depth and headness."""
        half = self.stem(image_BCHW)
        quarter = self.down[0](F.silu(half))
        eighth = self.down[1](F.silu(quarter))
        coarse = self.middle(self.down[2](F.silu(eighth)))
        merged = self.up1(torch.cat((F.interpolate(coarse, scale_factor=2.0), eighth), dim=1))
        merged = self.up2(torch.cat((F.interpolate(merged, scale_factor=2.0), quarter), dim=1))
        features = self.out(merged)
        geometry = self.geometry(F.silu(features))
        return PortraitFeatures(
            map_BCHW=features,
            depth_B1HW=geometry[:, :1] * 5.0 + 5.0,
            headness_B1HW=torch.sigmoid(geometry[:, 1:]),
        )


class IdentityEncoder(nn.Module):
    """Describe a portrait [B, 3, 256, 256] by one latent frame [B, channels, 8, 8].

    The speech-to-video network and the prior see the person through it: how open the mouth is held,
    where eyes and lips are. It is apart from `PortraitEncoder`, so that the codec's decoder and
    the networks that make latents can be trained side by side.
    """

    def __init__(self, channels: int) -> None:
        """`channels` is that of a latent."""
        super().__init__()
        widths = (3, 16, 32, 64, 64)
        self.layers = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(a, b, 4, stride=2, padding=1), ResidualConv(b), nn.SiLU())
                for a, b in pairwise(widths)
            ),
            nn.Conv2d(widths[-1], channels, 3, padding=1),
        )

    def forward(self, image_B3HW: torch.Tensor) -> torch.Tensor:
        """Return the latent frame; the portrait is read at 128x128."""
        small = F.avg_pool2d(image_B3HW, image_B3HW.shape[-1] // 128)
        latent: torch.Tensor = self.layers(small)
        return latent


class MixBlock(nn.Module):
    """A 3x3 convolution of each channel alone, then two 1x1 ones around a ReLU, beside a skip.

    A third of the arithmetic of a `ResidualConv` of the same width; starts as the skip alone.
    """

    def __init__(self, channels: int) -> None:
        """Create a block that keeps the number of channels."""
        super().__init__()
        self.look = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.widen = nn.Conv2d(channels, 2 * channels, 1)
        self.merge = nn.Conv2d(2 * channels, channels, 1)
        zero(self.merge)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Return x plus its correction."""
        correction: torch.Tensor = self.merge(F.relu(self.widen(self.look(x_BCHW))))
        return x_BCHW + correction


class FieldRefiner(nn.Module):
    """Mend the linear field of four frames at 64x64, knowing the portrait and where it looks.

    Works on cells folded two by two. What depends on the portrait alone is computed once by
    `read`. A learned map of position tells the convolutions which part of the face they see:
    portraits are aligned.
    """

    def __init__(self, channels: int, hidden: int, frame_features: int, num_blocks: int) -> None:
        """`channels` is the width of the portrait's map, `hidden` that of this network."""
        super().__init__()
        self.position = nn.Parameter(torch.zeros(1, 8, 32, 32))
        nn.init.normal_(self.position, std=0.3)
        self.look = nn.Sequential(
            nn.Conv2d(4 * channels + 8, hidden, 3, padding=1), MixBlock(hidden)
        )
        self.enter = nn.Conv2d(4 * 12, hidden, 3, padding=1)
        self.body = nn.Sequential(*(MixBlock(hidden) for _ in range(num_blocks)))
        self.correct = nn.Conv2d(hidden, 4 * 12, 3, padding=1)
        self.emit = nn.Conv2d(hidden, 4 * 4 * frame_features, 1)
        zero(self.correct)

    def read(self, map_BCHW: torch.Tensor) -> torch.Tensor:
        """Return what this network keeps of the portrait's map [B, channels, 64, 64]."""
        position = self.position.expand(map_BCHW.shape[0], -1, -1, -1)
        kept: torch.Tensor = self.look(torch.cat((F.pixel_unshuffle(map_BCHW, 2), position), dim=1))
        return kept

    def forward(
        self, field_BCHW: torch.Tensor, reading_BCHW: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the corrected field [B, 12, 64, 64] and features [B, 4*frame_features, 64, 64].

        Flow is in pixels, coming and going; the features are for the region painters. There may
        be several fields to each reading, one after the other.
        """
        folded = F.pixel_unshuffle(field_BCHW * 0.25, 2)
        entered = self.enter(folded.contiguous(memory_format=torch.channels_last))
        adapted = entered.unflatten(0, (len(reading_BCHW), -1)) + reading_BCHW[:, None]
        hidden = F.relu(self.body(adapted.flatten(0, 1)))
        correction = F.pixel_shuffle(self.correct(hidden), 2)
        return field_BCHW + correction * 4.0, F.pixel_shuffle(self.emit(hidden), 2)


def feather(window_11HW: torch.Tensor, margin: int) -> torch.Tensor:
    """Fade a window to zero over `margin` pixels at its borders, so that regions leave no seam."""
    height, width = window_11HW.shape[-2:]
    ramp_H = (torch.arange(height) + 0.5).minimum(height - 0.5 - torch.arange(height)) / margin
    ramp_W = (torch.arange(width) + 0.5).minimum(width - 0.5 - torch.arange(width)) / margin
    return window_11HW * ramp_H.clamp(0, 1)[:, None] * ramp_W.clamp(0, 1)[None]


def crop(image_BCHW: torch.Tensor, box: Box) -> torch.Tensor:
    """Return the part of a canonical-size picture that lies in the box."""
    x, y, width, height = box
    return image_BCHW[..., y : y + height, x : x + width]


def crop_scaled(map_BCHW: torch.Tensor, box: Box, factor: int) -> torch.Tensor:
    """Return the part of a map `factor` times coarser than the canonical picture in the box."""
    x, y, width, height = (value // factor for value in box)
    return map_BCHW[..., y : y + height, x : x + width]
