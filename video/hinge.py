"""Takes noisy latents from one resolution to another so that their noise stays white.

Shape legend: C = latent channels, T = latent frames, H, W = latent grid.

Upsampling a noisy latent as it is would make neighbours share their noise. Either the clean
estimate is resized and noise drawn anew (the route of few-step students, `resized` and then
`renoise_step`), or the latent is resized together with its noise and what is missing is added
(`carried_over`), which moves it to another level. Source: design page "algorithms", section 3.2.
"""

import torch
from torch.nn import functional as F


def level_after(sigma: float, ratio: float) -> float:
    """The level of a latent at `sigma` once its sides are `ratio` times as long.

    The same as the shift of a schedule for another resolution. A ratio of 1 changes nothing.
    """
    return ratio * sigma / (1.0 + (ratio - 1.0) * sigma)


def level_before(sigma: float, ratio: float) -> float:
    """The level that becomes `sigma` when the sides grow `ratio` times: `level_after` undone."""
    return level_after(sigma, 1.0 / ratio)


def factor(ratio: float) -> tuple[int, bool]:
    """A ratio as a whole number and whether it enlarges.

    Raises:
        ValueError: neither the ratio nor its inverse is a whole number.
    """
    enlarges = ratio >= 1.0
    exact = ratio if enlarges else 1.0 / ratio
    whole = round(exact)
    if whole < 1 or abs(exact - whole) > 1e-6:
        raise ValueError(f"resolutions {ratio:g} apart: one must be a whole number of the other")
    return whole, enlarges


def size_at(side: int, resolution: float) -> int:
    """Rows or columns of a latent grid of `side` at a step's resolution.

    Raises:
        ValueError: the grid has no such part.
    """
    times, _ = factor(resolution)
    if side % times:
        raise ValueError(f"a latent grid of {side} has no {resolution:g}: choose another size")
    return side // times


def resized(x_CTHW: torch.Tensor, ratio: float) -> torch.Tensor:
    """Latents without noise at another resolution: bilinear to a finer grid, means to a coarser.

    Raises:
        ValueError: the ratio is no whole number, or the grid has no such part.
    """
    times, enlarges = factor(ratio)
    if times == 1:
        return x_CTHW
    x_TCHW = x_CTHW.transpose(0, 1)
    if enlarges:
        made_TCHW = F.interpolate(x_TCHW, scale_factor=times, mode="bilinear", align_corners=False)
    else:
        made_TCHW = _block_means(x_TCHW, times)
    return made_TCHW.transpose(0, 1).contiguous()


def carried_over(
    x_CTHW: torch.Tensor, sigma: float, ratio: float, noise_CTHW: torch.Tensor
) -> torch.Tensor:
    """A latent at `sigma` at another resolution, then at `level_after(sigma, ratio)`.

    `noise_CTHW` is white, of the new shape; to a coarser grid none of it is needed.

    Raises:
        ValueError: the ratio is no whole number, or the noise has another shape.
    """
    times, enlarges = factor(ratio)
    if times == 1:
        return x_CTHW
    x_TCHW, to_sigma = x_CTHW.transpose(0, 1), level_after(sigma, ratio)
    if not enlarges:
        # Means of white noise are white, and 1/times as strong.
        shrunk_TCHW = _block_means(x_TCHW, times) / (1.0 - sigma + sigma / times)
        return shrunk_TCHW.transpose(0, 1).contiguous()
    noise_TCHW = noise_CTHW.transpose(0, 1)
    copied_TCHW = _repeated(x_TCHW, times)
    if noise_TCHW.shape != copied_TCHW.shape:
        raise ValueError(
            f"noise of {tuple(noise_CTHW.shape)} for latents that become "
            f"{tuple(copied_TCHW.transpose(0, 1).shape)}: draw it in their shape"
        )
    # The copies bring the blocks' mean noise along; what is added has no mean in any block.
    missing_TCHW = noise_TCHW - _repeated(_block_means(noise_TCHW, times), times)
    made_TCHW = copied_TCHW / (1.0 + (times - 1.0) * sigma) + to_sigma * missing_TCHW
    return made_TCHW.transpose(0, 1).contiguous()


def _block_means(x_TCHW: torch.Tensor, times: int) -> torch.Tensor:
    if x_TCHW.shape[-2] % times or x_TCHW.shape[-1] % times:
        raise ValueError(f"latents of {tuple(x_TCHW.shape[-2:])} have no blocks of {times}")
    return F.avg_pool2d(x_TCHW, times)


def _repeated(x_TCHW: torch.Tensor, times: int) -> torch.Tensor:
    return x_TCHW.repeat_interleave(times, dim=-2).repeat_interleave(times, dim=-1)
