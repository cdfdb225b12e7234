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
    spans_2 = [max(side - 1, 1) for side in reversed(image_BCHW.shape[-2:])]
    scale_2 = flow_B2HW.new_tensor([2.0 / span for span in spans_2])[:, None, None]
    first_2 = flow_B2HW.new_tensor(
        [2.0 * o / s - 1.0 for o, s in zip(origin_xy, spans_2, strict=True)]
    )
    grid = pixel_grid(height, width, flow_B2HW.device) * scale_2 + first_2[:, None, None]
    return sample(image_BCHW, torch.addcmul(grid, flow_B2HW, scale_2))


def sample(image_BCHW: torch.Tensor, position_B2HW: torch.Tensor) -> torch.Tensor:
    """Sample `image` at positions of which (-1, -1) is its first pixel's centre, (1, 1) its last's.

    Samples outside the image repeat its border.
    """
    return F.grid_sample(
        image_BCHW,
        position_B2HW.permute(0, 2, 3, 1).to(image_BCHW.dtype),
        mode="bilinear",
        padding_mode="border",
        align_corners=True,
    )


def resize(field_BCHW: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Resize a field bilinearly with pixel-centre alignment; values are unchanged in scale."""
    if field_BCHW.shape[-2:] == (height, width):
        return field_BCHW
    return F.interpolate(field_BCHW, size=(height, width), mode="bilinear", align_corners=False)
