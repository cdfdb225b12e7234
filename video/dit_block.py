"""The transformer layer, its time embedding and its head, under published parameter names.

Shape legend: B = batch, G = groups of tokens sharing one time (a latent frame), T = tokens of a
group, D = model channels, L = G * T tokens, K = key tokens, N = heads, E = channels of a head.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from video.attention import Attention, modulated
from video.rope import LatentGrid

SelfAttend = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(layer, q, k, v), each `[B, L, N, E]` before rotation, to `[B, L, D]`."""


def timestep_sinusoid(t: torch.Tensor, freq_dim: int) -> torch.Tensor:
    """Sinusoid `[..., freq_dim]` of times in 0..1000, cosines first; float64 inside, float32 out.

    Source: Vaswani et al., 2017, in the order of Wan2.2.
    """
    half = freq_dim // 2
    steps = torch.arange(half, dtype=torch.float64, device=t.device)
    angles = t.to(torch.float64).unsqueeze(-1) * torch.pow(10_000.0, -steps / half)
    return torch.cat([angles.cos(), angles.sin()], dim=-1).float()


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention to the prompt (if the model has one), feed-forward.

    Published names: modulation, self_attn, norm3, cross_attn, ffn.0, ffn.2.
    """

    def __init__(
        self, layer: int, dim: int, ffn_dim: int, num_heads: int, *, has_text: bool, eps: float
    ) -> None:
        """Layer number `layer` of the stack."""
        super().__init__()
        self.layer = layer
        self.eps = eps
        self.self_attn = Attention(dim, num_heads, eps)
        self.norm3 = nn.LayerNorm(dim, eps=eps) if has_text else None
        self.cross_attn = Attention(dim, num_heads, eps) if has_text else None
        self.ffn = nn.Sequential(
            nn.Linear(dim, ffn_dim), nn.GELU(approximate="tanh"), nn.Linear(ffn_dim, dim)
        )
        self.modulation = _modulation(6, dim)

    def forward(
        self,
        x_BGTD: torch.Tensor,
        times_BG6D: torch.Tensor,
        attend_self: SelfAttend,
        text: tuple[torch.Tensor, torch.Tensor] | None,
    ) -> torch.Tensor:
        """One layer; `text` holds the prompt's keys and values `[B, K, N, E]`."""
        rows = self.rows(times_BG6D, x_BGTD.dtype)
        return self.fed(self.mixed(x_BGTD, rows, attend_self, text), rows)

    def rows(self, times_BG6D: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
        """Shift, scale and gate of either half, `[B, G, 1, D]`: one row per group of tokens."""
        return (self.modulation + times_BG6D).to(dtype).unsqueeze(-2).unbind(2)

    def mixed(
        self,
        x_BGTD: torch.Tensor,
        rows: tuple[torch.Tensor, ...],
        attend_self: SelfAttend,
        text: tuple[torch.Tensor, torch.Tensor] | None,
    ) -> torch.Tensor:
        """The first half of the layer: tokens look at each other and at the prompt."""
        shift, scale, gate = rows[:3]
        y = modulated(x_BGTD, shift, scale, self.eps)
        x_BGTD = torch.addcmul(x_BGTD, gate, self._attend(y, attend_self).to(x_BGTD.dtype))
        return x_BGTD if text is None else x_BGTD + self.read_text(x_BGTD, *text)

    def fed(self, x_BGTD: torch.Tensor, rows: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """The second half of the layer: the feed-forward, for each token by itself."""
        shift, scale, gate = rows[3:]
        y = modulated(x_BGTD, shift, scale, self.eps).to(self.self_attn.q.weight.dtype)
        return torch.addcmul(x_BGTD, gate, self.ffn(y).to(x_BGTD.dtype))

    def text_keys_values(self, text_BKD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of prompt tokens for this layer, each `[B, K, N, E]`.

        Raises:
            ValueError: the network has no text.
        """
        if self.cross_attn is None:
            raise ValueError("a prompt was given to a network without text (text_dim 0)")
        return self.cross_attn.keys_values(text_BKD)

    def _attend(self, y_BGTD: torch.Tensor, attend_self: SelfAttend) -> torch.Tensor:
        attention = self.self_attn
        y_BLD = y_BGTD.flatten(1, 2).to(attention.q.weight.dtype)
        keys, values = attention.keys_values(y_BLD)
        out = attention.o(attend_self(self.layer, attention.queries(y_BLD), keys, values))
        grouped: torch.Tensor = out.view(y_BGTD.shape)
        return grouped

    def read_text(
        self, x_BGTD: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> torch.Tensor:
        """What tokens take from the prompt's keys and values.

        Raises:
            ValueError: the network has no text.
        """
        if self.norm3 is None or self.cross_attn is None:
            raise ValueError("a prompt was given to a network without text (text_dim 0)")
        norm = self.norm3
        y = F.layer_norm(
            x_BGTD, norm.normalized_shape, norm.weight.to(x_BGTD.dtype),
            norm.bias.to(x_BGTD.dtype), norm.eps,
        )  # fmt: skip
        y_BLD = y.flatten(1, 2).to(self.cross_attn.q.weight.dtype)
        return self.cross_attn.cross(y_BLD, keys, values).view(x_BGTD.shape)


def _modulation(num_rows: int, dim: int) -> nn.Parameter:
    """Rows [1, num_rows, D] of small random values; on the meta device nothing is drawn.

    A draw there would load torch's compiler, a second and a half of every start.
    """
    rows = torch.empty(1, num_rows, dim)
    return nn.Parameter(rows if rows.is_meta else rows.normal_() / dim**0.5)


def unpatchify(values_BGTV: torch.Tensor, grid: LatentGrid, channels: int) -> torch.Tensor:
    """Latents `[B, channels, G, H, W]` from the values V of each patch, channel fastest."""
    patch = (grid.patch_height, grid.patch_width, channels)
    x = torch.unflatten(values_BGTV, 2, (grid.rows, grid.cols))
    x = torch.unflatten(x, -1, patch)
    return x.permute(0, 6, 1, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)


class Head(nn.Module):
    """Last norm and projection of each token to the latent values of its patch.

    Published names: modulation, head.
    """

    def __init__(self, dim: int, patch_values: int, eps: float) -> None:
        """`patch_values` = patch volume times output channels."""
        super().__init__()
        self.eps = eps
        self.head = nn.Linear(dim, patch_values)
        self.modulation = _modulation(2, dim)

    def forward(self, x_BGTD: torch.Tensor, time_BGD: torch.Tensor) -> torch.Tensor:
        """Patch values `[B, G, T, patch_values]`, channel fastest."""
        rows = (self.modulation + time_BGD.unsqueeze(2)).to(x_BGTD.dtype).unsqueeze(-2)
        shift, scale = rows.unbind(2)
        y = modulated(x_BGTD, shift, scale, self.eps)
        out: torch.Tensor = self.head(y.to(self.head.weight.dtype))
        return out
