"""The region painters of the motion codec: mouth and eyes, where the portrait lacks pixels.

Shape legend: B = batch, F = frames per portrait, N = B*F frames, C = channels, h, w = the region,
P = colours of the palette. "Cells" are 4x4 pixels, the points of the 64x64 field.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from video.motion_nets import Box, MixBlock, ResidualConv, feather

CELL = 4
PALETTE = 6


@dataclass(frozen=True, slots=True)
class RegionReading:
    """What a painter keeps of a portrait for the session.

    `scale_BCHW` and `shift_BCHW` modulate the painter's first layer, cell by cell;
    `palette_BP3` are colours seen in the region: skin of the lids, lips, teeth, shadow.
    """

    scale_BCHW: torch.Tensor
    shift_BCHW: torch.Tensor
    palette_BP3: torch.Tensor


@dataclass(frozen=True, slots=True)
class RegionPaint:
    """What is painted in a region.

    `colour_N3HW` (about -1..1, may overshoot) and `cover_N1HW` (0..1, zero at the border) have
    the region's size; `correction_N2HW` of the flow, in pixels, has half of it.
    """

    colour_N3HW: torch.Tensor
    cover_N1HW: torch.Tensor
    correction_N2HW: torch.Tensor


class RegionPainter(nn.Module):
    """Paint one region (mouth or eyes) of single frames.

    Layers work on 4x4-pixel cells, the last on 2x2 pixels, where teeth and lashes get edges. With
    blocks there (a mouth has more to show than lids) they also see which pixels are hidden and
    where in the region they are.
    `read` does once a session what depends on the portrait alone. A pixel's colour is a mixture
    of colours that the portrait shows in this region, plus a correction: lids take the person's
    own skin, whatever its colour.
    """

    def __init__(
        self,
        box: Box,
        *,
        features: int,
        channels: int,
        hidden: int,
        num_blocks: int,
        fine: int,
        fine_blocks: int,
    ) -> None:
        """`features` are given per frame, `channels` is the width of the portrait's map.

        `hidden` and `num_blocks` are width and depth on cells, `fine` and `fine_blocks` on 2x2
        pixels.
        """
        super().__init__()
        self.box = box
        _, _, width, height = box
        self.position = nn.Parameter(torch.zeros(1, 8, height // CELL, width // CELL))
        nn.init.normal_(self.position, std=0.3)
        self.look = nn.Conv2d(3 * CELL**2 + channels + 8, hidden, 3, padding=1)
        self.choose = nn.Conv2d(hidden, PALETTE, 1)
        self.tint = nn.Linear(3 * PALETTE, hidden)
        self.study = nn.Sequential(MixBlock(hidden), MixBlock(hidden))
        self.settle = nn.Conv2d(hidden, 2 * hidden, 1)
        self.enter = nn.Conv2d(3 * CELL**2 + 3 + features, hidden, 3, padding=1)
        self.body = nn.Sequential(*(MixBlock(hidden) for _ in range(num_blocks)))
        self.out = nn.Conv2d(hidden, 2 * 4 + PALETTE, 1)
        self.grow = nn.Conv2d(hidden, 4 * fine, 1)
        place = torch.randn(1, 8, height // 2, width // 2) * 0.3
        self.register_parameter("place", nn.Parameter(place) if fine_blocks else None)
        self.refine = nn.Conv2d(fine + (24 if fine_blocks else 12), fine, 3, padding=1)
        self.fine_body = nn.Sequential(*(ResidualConv(fine) for _ in range(fine_blocks)))
        self.draw = nn.Conv2d(fine, 4 * 4, 3, padding=1)
        for layer in (self.out, self.draw):
            nn.init.normal_(layer.weight, std=1e-3)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        window = feather(torch.ones(1, 1, height, width), 8)
        half = F.avg_pool2d(window, 2)
        self.register_buffer("window_11HW", window, persistent=False)
        self.register_buffer("half_11HW", half, persistent=False)

    place: nn.Parameter | None
    window_11HW: torch.Tensor
    half_11HW: torch.Tensor

    def read(self, portrait_B3HW: torch.Tensor, map_BCHW: torch.Tensor) -> RegionReading:
        """Look at the region of a portrait [B, 3, h, w] and its map [B, channels, h/4, w/4]."""
        position = self.position.expand(portrait_B3HW.shape[0], -1, -1, -1)
        pixels = F.pixel_unshuffle(portrait_B3HW, CELL)
        seen = self.look(torch.cat((pixels, map_BCHW, position), dim=1))
        share_BPL = self.choose(F.relu(seen)).flatten(2).softmax(dim=-1)
        colours_BL3 = F.avg_pool2d(portrait_B3HW, CELL).flatten(2).transpose(1, 2)
        palette = share_BPL @ colours_BL3
        seen = self.study(seen + self.tint(palette.flatten(1))[:, :, None, None])
        scale, shift = self.settle(F.relu(seen)).chunk(2, dim=1)
        return RegionReading(scale_BCHW=scale, shift_BCHW=shift, palette_BP3=palette)

    def forward(
        self,
        warped_N3HW: torch.Tensor,
        hidden_N1HW: torch.Tensor,
        field_N3HW: torch.Tensor,
        features_NCHW: torch.Tensor,
        reading: RegionReading,
    ) -> RegionPaint:
        """Paint N = B*F frames.

        The portrait warped by the field and the share it does not show have the region's size,
        the field (flow and share) and features are by cell.
        """
        scaled = field_N3HW * field_N3HW.new_tensor([0.1, 0.1, 1.0])[:, None, None]
        pixels = F.pixel_unshuffle(warped_N3HW, CELL)
        inputs = torch.cat((pixels, scaled, features_NCHW), dim=1)
        entered = self.enter(inputs.contiguous(memory_format=torch.channels_last))
        batch = len(reading.palette_BP3)
        entered_BFCHW = entered.unflatten(0, (batch, -1))
        adapted = entered_BFCHW * (1.0 + reading.scale_BCHW[:, None]) + reading.shift_BCHW[:, None]
        understood = F.relu(self.body(adapted.flatten(0, 1)))
        correction, mixture = self.out(understood).split((2 * 4, PALETTE), dim=1)
        grown = F.pixel_shuffle(self.grow(understood), 2)
        painted = self._draw(grown, warped_N3HW, hidden_N1HW)
        shares_BFPL = mixture.unflatten(0, (batch, -1)).flatten(3).softmax(dim=2)
        base_BF3L = reading.palette_BP3.transpose(1, 2)[:, None] @ shares_BFPL
        base = base_BF3L.flatten(0, 1).unflatten(2, mixture.shape[-2:])
        base = F.interpolate(base, scale_factor=CELL, mode="bilinear")
        cover = torch.sigmoid(painted[:, 3:] * 4.0 + (hidden_N1HW - 0.5) * 6.0)
        return RegionPaint(
            colour_N3HW=base + painted[:, :3] * 2.0,
            cover_N1HW=cover * self.window_11HW,
            correction_N2HW=F.pixel_shuffle(correction, 2) * 4.0 * self.half_11HW,
        )

    def _draw(
        self, grown_NCHW: torch.Tensor, warped_N3HW: torch.Tensor, hidden_N1HW: torch.Tensor
    ) -> torch.Tensor:
        """Return colour correction and cover [N, 4, h, w] from what is known of 2x2 pixels."""
        seen = [grown_NCHW, F.pixel_unshuffle(warped_N3HW, 2)]
        if self.place is not None:
            place = self.place.expand(len(warped_N3HW), -1, -1, -1)
            seen += [F.pixel_unshuffle(hidden_N1HW, 2), place]
        detailed = torch.cat(seen, dim=1).contiguous(memory_format=torch.channels_last)
        fine = self.fine_body(self.refine(detailed))
        return F.pixel_shuffle(self.draw(F.relu(fine)), 2)
