"""The Wan video autoencoder: pictures to latents and back, whole or as an endless stream.

Published module names and latent statistics (design page "live-avatar-spec", section 4), so the
public checkpoint loads unchanged. Latents are in model space: (mu - mean) / std.

Shape legend: B = batch, C = channels, T = frames (latent or picture), H = height, W = width.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import nn

from video.codec import DecoderState
from video.errors import ImageError
from video.vae_blocks import CausalConv3d, Decoder, Downsample, Encoder, FrameCache

# Statistics of the published 16-channel latents.
WAN_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)  # fmt: skip
WAN_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)  # fmt: skip
REFERENCE_RULES = ("image1", "image5_latent1")
# Spellings of the published configuration, and fields of it that are empty in every release.
_PUBLISHED_NAMES = {"temperal_downsample": "temporal_downsample"}
_UNUSED_FIELDS = ("attn_scales", "dropout")


@dataclass(frozen=True, slots=True, kw_only=True)
class VAEConfig:
    """Every dimension of the autoencoder, and how a session uses it.

    `num_prime_latents` static latents are decoded and dropped when a session starts;
    `reference` says how the sink's latent is made; `first_chunk_drop` pictures of a session's
    first chunk are dropped (Live Avatar drops 3; 0 keeps picture and sound together).
    """

    dim: int = 96
    z_dim: int = 16
    dim_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    temporal_downsample: tuple[bool, ...] = (False, True, True)
    latent_mean: tuple[float, ...] = WAN_MEAN
    latent_std: tuple[float, ...] = WAN_STD
    num_prime_latents: int = 7
    reference: str = "image1"
    first_chunk_drop: int = 0

    def __post_init__(self) -> None:
        """Raise ValueError naming the field that contradicts the others."""
        if len(self.temporal_downsample) != len(self.dim_mult) - 1:
            raise ValueError(
                f"temporal_downsample has {len(self.temporal_downsample)} entries; "
                f"give one fewer than dim_mult ({len(self.dim_mult) - 1})"
            )
        for name in ("latent_mean", "latent_std"):
            if len(getattr(self, name)) != self.z_dim:
                raise ValueError(f"{name} must have z_dim = {self.z_dim} entries")
        if self.reference not in REFERENCE_RULES:
            raise ValueError(
                f"reference {self.reference!r} is unknown; use one of {', '.join(REFERENCE_RULES)}"
            )
        if self.num_prime_latents < 1:
            raise ValueError("num_prime_latents must be at least 1")
        if self.first_chunk_drop < 0:
            raise ValueError("first_chunk_drop must not be negative")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the configuration of a model folder; raises ValueError for unknown fields.

        Accepts the published spellings; the published unused fields must be empty or zero.
        """
        renamed = {_PUBLISHED_NAMES.get(name, name): value for name, value in values.items()}
        for name in _UNUSED_FIELDS:
            if renamed.pop(name, None):
                raise ValueError(f"{name} must be empty or zero in a Wan VAE configuration")
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(renamed) - known)
        if unknown:
            raise ValueError(f"unknown VAE fields {unknown}; known are {sorted(known)}")
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in renamed.items()}
        return cls(**values)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels per level, finest first."""
        return tuple(self.dim * multiple for multiple in self.dim_mult)

    @property
    def pixels_per_latent(self) -> int:
        """Picture rows (columns) per latent row (column)."""
        return int(2 ** len(self.temporal_downsample))

    @property
    def frames_per_latent(self) -> int:
        """Pictures per latent frame after a stream's first."""
        return int(2 ** sum(self.temporal_downsample))


class WanDecoderState:
    """A session's decoder memory: each layer's last frames, and what is still to be dropped."""

    def __init__(self, names: frozenset[str], drop: int) -> None:
        """`names` are all layers that remember; `drop` counts pictures still to be dropped."""
        self._names = names
        self.cache: FrameCache = {}
        self.drop = drop

    def export_state(self) -> dict[str, torch.Tensor]:
        """Return copies of the remembered frames by layer name, and the drop count."""
        state = {name: frames.detach().clone() for name, frames in self.cache.items()}
        return {**state, "drop": torch.tensor(self.drop)}

    def import_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Continue where `state` was exported, on this state's own device and in its dtype.

        Raises ValueError, changing nothing, for the state of another network or picture size.
        """
        names = set(state) - {"drop"}
        if "drop" not in state or names not in (set(), set(self._names)):
            wrong = sorted(names ^ self._names)[:3]
            raise ValueError(f"decoder state does not fit this VAE (names such as {wrong})")
        cache: FrameCache = {}
        for name in names:
            own = self.cache.get(name, state[name])
            if own.shape != state[name].shape:
                raise ValueError(
                    f"decoder state does not fit this portrait's size: {name} is "
                    f"{list(state[name].shape)}, not {list(own.shape)}"
                )
            cache[name] = state[name].to(own).clone()
        self.cache, self.drop = cache, int(state["drop"])


class WanVAE(nn.Module):
    """Encode pictures and decode latents, whole or streaming; a `VideoCodec`."""

    def __init__(self, config: VAEConfig | None = None) -> None:
        """Build the published modules (194 tensors at the default configuration)."""
        super().__init__()
        self.config = config = config or VAEConfig()
        shape = (config.widths, config.temporal_downsample, config.num_res_blocks, config.z_dim)
        self.encoder = Encoder(*shape)
        self.conv1 = nn.Conv3d(config.z_dim * 2, config.z_dim * 2, 1)
        self.conv2 = nn.Conv3d(config.z_dim, config.z_dim, 1)
        self.decoder = Decoder(*shape)
        for name, layer in self.named_modules():
            if isinstance(layer, CausalConv3d | Downsample):
                layer.cache_name = name
        self._state_names = frozenset(
            layer.cache_name for layer in self.decoder.modules() if isinstance(layer, CausalConv3d)
        )

    @property
    def latent_channels(self) -> int:
        """Channels of a latent frame."""
        return self.config.z_dim

    @property
    def frames_per_latent(self) -> int:
        """Pictures per latent frame once a session has started."""
        return self.config.frames_per_latent

    def latent_size(self, height_px: int, width_px: int) -> tuple[int, int]:
        """Return (rows, columns) of the latent grid; raises ImageError for an unusable size."""
        step = self.config.pixels_per_latent
        if min(height_px, width_px) < step or height_px % step or width_px % step:
            raise ImageError(
                f"picture of {width_px}x{height_px} px: choose a size whose sides are "
                f"multiples of {step}"
            )
        return height_px // step, width_px // step

    def encode(self, frames_BCTHW: torch.Tensor, cache: FrameCache | None = None) -> torch.Tensor:
        """Return the latents of the frames in [-1, 1], continuing `cache` if one is given.

        A stream's first call takes 1 + n*k frames, later ones n*k (n = frames_per_latent);
        raises ImageError for another number.
        """
        cache = {} if cache is None else cache
        self.latent_size(frames_BCTHW.shape[3], frames_BCTHW.shape[4])
        groups = list(self._frame_groups(frames_BCTHW.to(self.conv1.weight.dtype), not cache))
        moments = [self.conv1(self.encoder.stream(group, cache)) for group in groups]
        mu = torch.cat(moments, dim=2)[:, : self.config.z_dim].float()
        mean, std = self._statistics(mu)
        return (mu - mean) / std

    def decode_frames(
        self, latents_BCTHW: torch.Tensor, cache: FrameCache | None = None
    ) -> torch.Tensor:
        """Return the unclamped frames_BCTHW, continuing `cache` if one is given.

        A stream's first latent makes one frame, every later one `frames_per_latent`. Latents go
        through one by one, so any cut of a stream gives the same bits.
        """
        cache = {} if cache is None else cache
        mean, std = self._statistics(latents_BCTHW)
        z = (latents_BCTHW.float() * std + mean).to(self.conv2.weight.dtype)
        frames = [
            self.decoder.stream(self.conv2(latent), cache) for latent in z.chunk(z.shape[2], dim=2)
        ]
        return torch.cat(frames, dim=2).float()

    @torch.no_grad()
    def encode_static(self, image_BCHW: torch.Tensor, num_latents: int) -> torch.Tensor:
        """Return `num_latents` latents of the portrait held still (19 make motion latents)."""
        num_frames = 1 + self.frames_per_latent * (num_latents - 1)
        cache: FrameCache = {}
        latents = [self.encode(image_BCHW.unsqueeze(2), cache)]
        still = image_BCHW.unsqueeze(2).expand(-1, -1, self.frames_per_latent, -1, -1)
        latents += [self.encode(still, cache) for _ in range(1, num_frames, self.frames_per_latent)]
        return torch.cat(latents, dim=2)

    def encode_reference(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        """Return the reference latents_BCTHW (T = 1), made as `config.reference` says."""
        num_latents = 1 if self.config.reference == "image1" else 2
        return self.encode_static(image_BCHW, num_latents)[:, :, -1:]

    def start(self, image_BCHW: torch.Tensor) -> WanDecoderState:
        """Return a session's decoder state after the static latents of the portrait."""
        return self.start_from(self.encode_static(image_BCHW, self.config.num_prime_latents))

    @torch.no_grad()
    def start_from(self, prime_latents_BCTHW: torch.Tensor) -> WanDecoderState:
        """Return a session's decoder state after the given latents, whose frames are dropped."""
        state = WanDecoderState(self._state_names, self.config.first_chunk_drop)
        self.decode_frames(prime_latents_BCTHW, state.cache)
        return state

    @torch.no_grad()
    def decode(self, latents_BCTHW: torch.Tensor, state: DecoderState) -> torch.Tensor:
        """Return the next frames_BCTHW in [-1, 1]; `state` (from `start`) moves on.

        `frames_per_latent` frames per latent, less what `config.first_chunk_drop` takes.
        """
        if not isinstance(state, WanDecoderState):
            raise TypeError(f"a WanVAE cannot continue a {type(state).__name__}")
        frames = self.decode_frames(latents_BCTHW, state.cache).clamp(-1.0, 1.0)
        dropped = min(state.drop, frames.shape[2])
        state.drop -= dropped
        return frames[:, :, dropped:]

    def _statistics(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        # Made on the spot: buffers would stay empty in a module built on the meta device.
        mean, std = (
            torch.tensor(values, device=like.device).view(1, -1, 1, 1, 1)
            for values in (self.config.latent_mean, self.config.latent_std)
        )
        return mean, std

    def _frame_groups(self, frames_BCTHW: torch.Tensor, begins: bool) -> Iterator[torch.Tensor]:
        num_frames, step = frames_BCTHW.shape[2], self.frames_per_latent
        if (num_frames - begins) % step or num_frames == 0:
            wanted = f"1 + a multiple of {step}" if begins else f"a multiple of {step}"
            raise ImageError(f"cannot encode {num_frames} frames here; give {wanted}")
        if begins:
            yield frames_BCTHW[:, :, :1]
        if num_frames > begins:
            yield from frames_BCTHW[:, :, int(begins) :].chunk(num_frames // step, dim=2)
