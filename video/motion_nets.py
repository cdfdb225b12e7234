"""The learned parts of the motion codec: reading a portrait, mending the field, painting regions.

Shape legend: B = batch, N = frames (batch of single frames), C = channels, H, W = picture.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from video.warp import resize

Box = tuple[int, int, int, int]  # x, y, width, height in the canonical 256-pixel picture
MOUTH_BOX: Box = (64, 128, 128, 96)
EYES_BOX: Box = (48, 76, 160, 64)


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


class FieldRefiner(nn.Module):
    """Mend the linear field of four frames at 64x64, knowing the portrait and where it looks.

    Returns the corrected field [B, 12, 64, 64] and features [B, 4 * frame_features, 64, 64] for
    the region painters. A learned map of position tells the convolutions which part of the face
    they see: portraits are aligned.
    """

    def __init__(self, channels: int, hidden: int, frame_features: int) -> None:
        """`channels` is the width of the portrait's map, `hidden` that of this network."""
        super().__init__()
        self.position = nn.Parameter(torch.zeros(1, 8, 64, 64))
        nn.init.normal_(self.position, std=0.3)
        self.enter = nn.Conv2d(12 + channels + 8, hidden, 3, padding=1)
        self.body = nn.Sequential(ResidualConv(hidden), ResidualConv(hidden))
        self.correct = nn.Conv2d(hidden, 12, 3, padding=1)
        self.emit = nn.Conv2d(hidden, 4 * frame_features, 1)
        zero(self.correct)

    def forward(
        self, field_BCHW: torch.Tensor, map_BCHW: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the field [B, 12, 64, 64] and per-frame features; input flow is in pixels."""
        position = self.position.expand(field_BCHW.shape[0], -1, -1, -1)
        hidden = self.body(self.enter(torch.cat((field_BCHW * 0.25, map_BCHW, position), dim=1)))
        hidden = F.silu(hidden)
        return field_BCHW + self.correct(hidden) * 4.0, self.emit(hidden)


class RegionPainter(nn.Module):
    """Paint one region (mouth or eyes) of single frames at full resolution.

    Works at half resolution inside on pixels folded two by two. From the portrait's pixels, the
    same warped by the field, the field and features it returns `paint` [N, 3, h, w] in [-1, 1],
    the paint's opacity in 0..1 [N, 1, h, w] and a correction of the flow in pixels [N, 2, h, w].
    """

    def __init__(self, box: Box, features: int, hidden: int, num_blocks: int) -> None:
        """`box` is the region in the canonical picture; `features` the channels given per frame."""
        super().__init__()
        self.box = box
        _, _, width, height = box
        self.position = nn.Parameter(torch.zeros(1, 8, height // 2, width // 2))
        nn.init.normal_(self.position, std=0.3)
        self.enter = nn.Conv2d(9 * 4 + features + 8, hidden, 3, padding=1)
        self.fine = ResidualConv(hidden)
        self.shrink = nn.Conv2d(hidden, hidden * 3 // 2, 4, stride=2, padding=1)
        self.deep = nn.Sequential(*(ResidualConv(hidden * 3 // 2) for _ in range(num_blocks)))
        self.grow = nn.Conv2d(hidden * 3 // 2, hidden, 1)
        self.finish = ResidualConv(hidden)
        self.out = nn.Conv2d(hidden, 6 * 4, 3, padding=1)
        nn.init.normal_(self.out.weight, std=1e-3)
        window = torch.ones(1, 1, height, width)
        self.register_buffer("window_11HW", feather(window, 8), persistent=False)

    window_11HW: torch.Tensor

    def forward(
        self,
        portrait_N3HW: torch.Tensor,
        warped_N3HW: torch.Tensor,
        field_N3HW: torch.Tensor,
        features_NCHW: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return (paint, opacity, flow correction); all inputs but features have the box's size."""
        scaled = field_N3HW * field_N3HW.new_tensor([0.1, 0.1, 1.0])[:, None, None]
        pixels = F.pixel_unshuffle(torch.cat((portrait_N3HW, warped_N3HW, scaled), dim=1), 2)
        height, width = pixels.shape[-2:]
        position = self.position.expand(pixels.shape[0], -1, -1, -1)
        inputs = torch.cat((pixels, resize(features_NCHW, height, width), position), dim=1)
        fine = self.fine(self.enter(inputs))
        deep = self.deep(self.shrink(F.silu(fine)))
        fine = fine + F.interpolate(self.grow(F.silu(deep)), scale_factor=2.0)
        result = F.pixel_shuffle(self.out(F.silu(self.finish(fine))), 2)
        opacity = torch.sigmoid(result[:, 3:4] * 4.0 + (field_N3HW[:, 2:] - 0.5) * 6.0)
        paint = torch.tanh(result[:, :3] * 2.0 + warped_N3HW.mean(dim=(-2, -1), keepdim=True))
        return paint, opacity * self.window_11HW, result[:, 4:] * 4.0 * self.window_11HW


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
