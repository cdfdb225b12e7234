"""Attention: one entry point, and the two modules built on it under their published names.

Shape legend: B = batch, L = query tokens, K = key tokens, N = heads, E = channels of a head,
D = N * E model channels.
"""

import torch
import torch.nn.functional as F
from torch import nn


def attend(
    q_BLNE: torch.Tensor,
    k_BKNE: torch.Tensor,
    v_BKNE: torch.Tensor,
    mask_LK: torch.Tensor | None = None,
) -> torch.Tensor:
    """Softmax attention of `q` over `k`, `v`; returns `[B, L, N * E]`.

    `mask_LK` is boolean, true where a query may look. Every attention of the network comes
    through here, so a faster kernel has one place to go.
    """
    out_BNLE = F.scaled_dot_product_attention(
        q_BLNE.transpose(1, 2), k_BKNE.transpose(1, 2), v_BKNE.transpose(1, 2), attn_mask=mask_LK
    )
    return out_BNLE.transpose(1, 2).flatten(2)


def modulated(
    x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor, eps: float
) -> torch.Tensor:
    """Layer norm without weights, then scale and shift."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=eps), scale + 1)


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last dimension with a learned gain, computed in float32."""

    def __init__(self, dim: int, eps: float) -> None:
        """`dim` channels; `eps` is added to the mean square."""
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise `[..., D]`; keeps shape and dtype."""
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)


class Attention(nn.Module):
    """Projections of multi-head attention; q and k are normalised over all channels, then split.

    Published names: q, k, v, o, norm_q, norm_k.
    """

    def __init__(self, dim: int, num_heads: int, eps: float) -> None:
        """`dim` must be a multiple of `num_heads`."""
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.o = nn.Linear(dim, dim)
        self.norm_q = RMSNorm(dim, eps)
        self.norm_k = RMSNorm(dim, eps)

    def queries(self, x_BLD: torch.Tensor) -> torch.Tensor:
        """Normalised queries `[B, L, N, E]`."""
        q_BLD: torch.Tensor = self.norm_q(self.q(x_BLD))
        return q_BLD.view(*q_BLD.shape[:-1], self.num_heads, -1)

    def keys_values(self, x_BKD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised keys and values, each `[B, K, N, E]`."""
        k_BKD: torch.Tensor = self.norm_k(self.k(x_BKD))
        v_BKD: torch.Tensor = self.v(x_BKD)
        heads = (*k_BKD.shape[:-1], self.num_heads, -1)
        return k_BKD.view(heads), v_BKD.view(heads)

    def cross(self, x_BLD: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Attend from `x_BLD` to given keys and values `[B, K, N, E]`; returns `[B, L, D]`."""
        out: torch.Tensor = self.o(attend(self.queries(x_BLD), keys, values))
        return out
