"""Packs a history of motion latents into few tokens, coarser the older they are.

Shape legend: B = batch, C = latent channels, T = latent frames, H = height, W = width,
L = tokens, D = model channels. Source: Zhang et al., "FramePack", 2025, as in Wan2.2-S2V.
"""

import torch
import torch.nn.functional as F
from torch import nn

_BUCKETS = (16, 2, 1)
MOTION_FRAMES = sum(_BUCKETS)
"""Latent frames of history the packer takes; fewer are zero-padded on the old side."""


class FramePacker(nn.Module):
    """19 latents, oldest first, become fine (1), coarse (2) and coarsest (16) tokens."""

    def __init__(self, in_dim: int, dim: int) -> None:
        """`in_dim` latent channels to `dim` model channels."""
        super().__init__()
        self.proj = nn.Conv3d(in_dim, dim, (1, 2, 2), stride=(1, 2, 2))
        self.proj_2x = nn.Conv3d(in_dim, dim, (2, 4, 4), stride=(2, 4, 4))
        self.proj_4x = nn.Conv3d(in_dim, dim, (4, 8, 8), stride=(4, 8, 8))

    def forward(self, motion_BCTHW: torch.Tensor) -> torch.Tensor:
        """Tokens `[B, L, D]` in the order newest (fine) to oldest (coarsest).

        Raises:
            ValueError: the latents are too small to be cut into the coarsest patches.
        """
        if min(motion_BCTHW.shape[-2:]) < self.proj_4x.kernel_size[-1]:
            raise ValueError(
                f"motion latents of {tuple(motion_BCTHW.shape[-2:])} are too small: motion "
                "frames need at least 8 x 8, or switch enable_framepack off"
            )
        recent = motion_BCTHW[:, :, -MOTION_FRAMES:]
        missing = MOTION_FRAMES - recent.shape[2]
        full = F.pad(recent, (0, 0, 0, 0, missing, 0)).to(self.proj.weight.dtype)
        oldest, older, newest = torch.split(full, list(_BUCKETS), dim=2)
        parts = (self.proj(newest), self.proj_2x(older), self.proj_4x(oldest))
        return torch.cat([part.flatten(2).transpose(1, 2) for part in parts], dim=1)
