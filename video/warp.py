"""Backward warping of pictures by pixel displacements.

Shape legend: B = batch, C = channels, H = height, W = width, 2 = (x, y).
"""

from functools import lru_cache

import torch
from torch.nn import functional as F


@lru_cache(maxsize=8)
def _pixel_grid(height: int, width: int, device: torch.device) -> torch.Tensor:
    """Pixel coordinates [1, 2, H, W] in (x, y) order."""
    y_HW, x_HW = torch.meshgrid(
        torch.arange(height, dtype=torch.float32, device=device),
        torch.arange(width, dtype=torch.float32, device=device),
        indexing="ij",
    )
    return torch.stack((x_HW, y_HW))[None]


def pixel_grid(height: int, width: int, device: torch.device) -> torch.Tensor:
    """Return the pixel coordinates [1, 2, H, W], x first; the tensor is shared, never write it."""
    with torch.inference_mode(False):
        return _pixel_grid(height, width, device)


def warp(
    image_BCHW: torch.Tensor, flow_B2HW: torch.Tensor, origin_xy: tuple[int, int] = (0, 0)
) -> torch.Tensor:
    """Sample `image` at every output pixel plus its displacement (in pixels of `image`).

    The result has the height and width of `flow`, whose first pixel lies at `origin_xy` of the
    image: a flow smaller than the image gives that window of the warped picture. Samples outside
    the image repeat its border.
    """
    height, width = flow_B2HW.shape[-2:]
    image_height, image_width = image_BCHW.shape[-2:]
    position_B2HW = pixel_grid(height, width, flow_B2HW.device) + flow_B2HW
    x_BHW = (position_B2HW[:, 0] + origin_xy[0]) * (2.0 / max(image_width - 1, 1)) - 1.0
    y_BHW = (position_B2HW[:, 1] + origin_xy[1]) * (2.0 / max(image_height - 1, 1)) - 1.0
    return F.grid_sample(
        image_BCHW,
        torch.stack((x_BHW, y_BHW), dim=-1).to(image_BCHW.dtype),
        mode="bilinear",
        padding_mode="border",
        align_corners=True,
    )


def resize(field_BCHW: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Resize a field bilinearly with pixel-centre alignment; values are unchanged in scale."""
    if field_BCHW.shape[-2:] == (height, width):
        return field_BCHW
    return F.interpolate(field_BCHW, size=(height, width), mode="bilinear", align_corners=False)
