"""The umT5 text encoder: token ids to the states that the network's text attention reads.

Published parameter names (design page "live-avatar-spec", end of section 4): 242 tensors at the
XXL size. Tokenising is left to the caller.

Shape legend: B = batch, S = tokens, D = width, N = heads, H = channels per head.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import nn

_PUBLISHED_NAMES = {"vocab": "vocab_size", "dim_ffn": "ffn_dim", "dim_attn": "attention_dim"}
_UNUSED_FIELDS = ("shared_pos", "dropout")


@dataclass(frozen=True, slots=True, kw_only=True)
class TextEncoderConfig:
    """Every dimension of the encoder; the defaults are umT5-XXL."""

    vocab_size: int = 256384
    dim: int = 4096
    attention_dim: int = 4096
    ffn_dim: int = 10240
    num_heads: int = 64
    num_layers: int = 24
    num_buckets: int = 32
    max_distance: int = 128
    eps: float = 1e-6

    def __post_init__(self) -> None:
        """Raise ValueError naming the field that contradicts the others."""
        if self.attention_dim % self.num_heads:
            raise ValueError(
                f"attention_dim {self.attention_dim} must be a multiple of num_heads "
                f"{self.num_heads}"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the configuration; accepts published spellings, raises ValueError for others."""
        renamed = {_PUBLISHED_NAMES.get(name, name): value for name, value in values.items()}
        for name in _UNUSED_FIELDS:
            renamed.pop(name, None)
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(renamed) - known)
        if unknown:
            raise ValueError(f"unknown text encoder fields {unknown}; known are {sorted(known)}")
        return cls(**renamed)


class ScaleNorm(nn.Module):
    """Divide by the root mean square, without centring."""

    def __init__(self, dim: int, eps: float) -> None:
        """Start from unit weights."""
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x_BSD: torch.Tensor) -> torch.Tensor:
        """Return the normalised tensor in the weight's dtype; statistics in float32."""
        x = x_BSD.float()
        x = x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + self.eps)
        scaled: torch.Tensor = x.to(self.weight.dtype) * self.weight
        return scaled


class RelativePositions(nn.Module):
    """Learned attention biases per head for buckets of signed token distance."""

    def __init__(self, config: TextEncoderConfig) -> None:
        """Use half of the buckets for each direction."""
        super().__init__()
        self.embedding = nn.Embedding(config.num_buckets, config.num_heads)
        self.num_buckets, self.max_distance = config.num_buckets, config.max_distance

    def forward(self, num_tokens: int) -> torch.Tensor:
        """Return biases [1, N, S queries, S keys]."""
        positions = torch.arange(num_tokens, device=self.embedding.weight.device)
        bias: torch.Tensor = self.embedding(self.buckets(positions[None] - positions[:, None]))
        return bias.permute(2, 0, 1).unsqueeze(0)

    def buckets(self, distance: torch.Tensor) -> torch.Tensor:
        """Return the bucket of each distance (key minus query): exact near, logarithmic far."""
        half = self.num_buckets // 2
        num_exact = half // 2
        magnitude = distance.abs()
        growth = (magnitude.clamp(min=1).float() / num_exact).log() / math.log(
            self.max_distance / num_exact
        )
        far = (num_exact + (growth * (half - num_exact)).long()).clamp(max=half - 1)
        return torch.where(magnitude < num_exact, magnitude, far) + (distance > 0).long() * half


class TextAttention(nn.Module):
    """Unscaled multi-head attention with additive position biases."""

    def __init__(self, config: TextEncoderConfig) -> None:
        """Use no biases in the projections."""
        super().__init__()
        self.num_heads = config.num_heads
        self.q = nn.Linear(config.dim, config.attention_dim, bias=False)
        self.k = nn.Linear(config.dim, config.attention_dim, bias=False)
        self.v = nn.Linear(config.dim, config.attention_dim, bias=False)
        self.o = nn.Linear(config.attention_dim, config.dim, bias=False)

    def forward(self, x_BSD: torch.Tensor, bias_BNSS: torch.Tensor) -> torch.Tensor:
        """Return the attended states."""
        q, k, v = (
            linear(x_BSD).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for linear in (self.q, self.k, self.v)
        )
        mixed_BNSH = F.scaled_dot_product_attention(
            q, k, v, attn_mask=bias_BNSS.to(q.dtype), scale=1.0
        )
        mixed: torch.Tensor = self.o(mixed_BNSH.transpose(1, 2).flatten(2))
        return mixed


class GatedFeedForward(nn.Module):
    """Multiply one projection by the GELU of another, then project back."""

    def __init__(self, config: TextEncoderConfig) -> None:
        """Use no biases."""
        super().__init__()
        self.gate = nn.Sequential(
            nn.Linear(config.dim, config.ffn_dim, bias=False), nn.GELU(approximate="tanh")
        )
        self.fc1 = nn.Linear(config.dim, config.ffn_dim, bias=False)
        self.fc2 = nn.Linear(config.ffn_dim, config.dim, bias=False)

    def forward(self, x_BSD: torch.Tensor) -> torch.Tensor:
        """Return the transformed states."""
        projected: torch.Tensor = self.fc2(self.fc1(x_BSD) * self.gate(x_BSD))
        return projected


class TextBlock(nn.Module):
    """Pre-normalised attention and feed-forward with this layer's own position biases."""

    def __init__(self, config: TextEncoderConfig) -> None:
        """Build the published submodules."""
        super().__init__()
        self.norm1 = ScaleNorm(config.dim, config.eps)
        self.attn = TextAttention(config)
        self.norm2 = ScaleNorm(config.dim, config.eps)
        self.ffn = GatedFeedForward(config)
        self.pos_embedding = RelativePositions(config)

    def forward(self, x_BSD: torch.Tensor, mask_BNSS: torch.Tensor) -> torch.Tensor:
        """Return the states after this layer; the mask is added to the biases."""
        bias = self.pos_embedding(x_BSD.shape[1]) + mask_BNSS
        x_BSD = x_BSD + self.attn(self.norm1(x_BSD), bias)
        states: torch.Tensor = x_BSD + self.ffn(self.norm2(x_BSD))
        return states


class TextEncoder(nn.Module):
    """Encode token ids."""

    def __init__(self, config: TextEncoderConfig | None = None) -> None:
        """Build the published modules."""
        super().__init__()
        self.config = config = config or TextEncoderConfig()
        self.token_embedding = nn.Embedding(config.vocab_size, config.dim)
        self.blocks = nn.ModuleList(TextBlock(config) for _ in range(config.num_layers))
        self.norm = ScaleNorm(config.dim, config.eps)

    def forward(self, ids_BS: torch.Tensor, mask_BS: torch.Tensor) -> torch.Tensor:
        """Return states_BSD; tokens where the mask is 0 are seen by nobody."""
        x_BSD = self.token_embedding(ids_BS)
        lowest = torch.finfo(x_BSD.dtype).min
        mask_BNSS = torch.zeros(mask_BS.shape, dtype=x_BSD.dtype, device=x_BSD.device)
        mask_BNSS = mask_BNSS.masked_fill(mask_BS == 0, lowest)[:, None, None]
        for block in self.blocks:
            x_BSD = block(x_BSD, mask_BNSS)
        states: torch.Tensor = self.norm(x_BSD)
        return states

    @torch.no_grad()
    def encode(self, ids_BS: torch.Tensor, mask_BS: torch.Tensor) -> list[torch.Tensor]:
        """Return each prompt's states_SD without its padding (the network pads with zeros)."""
        states_BSD = self(ids_BS, mask_BS)
        lengths = mask_BS.sum(dim=1).tolist()
        return [states[:length] for states, length in zip(states_BSD, lengths, strict=True)]
