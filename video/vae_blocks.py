"""Layers of the Wan video autoencoder: causal in time, so any cut of the stream is the same.

Every layer that looks back takes a `FrameCache` and leaves there the frames its next call needs;
an empty cache means the stream begins. Module names are those of the published checkpoints
(design page "live-avatar-spec", section 4).

Shape legend: B = batch, C = channels, T = frames, H = height, W = width; N = B*T pictures.
"""

import math
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

FrameCache = dict[str, torch.Tensor]


class CausalConv3d(nn.Conv3d):
    """Convolve in space and in past time; the missing past of a stream's begin is zero.

    The last `kernel_size[0] - 1` (at least 1) input frames stay in the cache as `cache_name`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int, int] = (3, 3, 3),
    ) -> None:
        """Pad space symmetrically so that height and width are kept."""
        _, rows, columns = kernel_size
        padding = (0, rows // 2, columns // 2)
        super().__init__(in_channels, out_channels, kernel_size, padding=padding)
        self.num_history = kernel_size[0] - 1
        self.cache_name = ""

    def blank_history(self, x_BCTHW: torch.Tensor) -> torch.Tensor:
        """Return the zero frames that precede a stream shaped like `x_BCTHW`."""
        batch, channels, _, height, width = x_BCTHW.shape
        return x_BCTHW.new_zeros(batch, channels, self.num_history, height, width)

    def stream(self, x_BCTHW: torch.Tensor, cache: FrameCache) -> torch.Tensor:
        """Return one output frame per input frame, continuing the stream in `cache`."""
        history = cache.get(self.cache_name)
        if history is None:
            history = self.blank_history(x_BCTHW)
        joined = torch.cat([history, x_BCTHW], dim=2)
        # A copy, so that the cache does not keep the whole chunk's storage alive.
        cache[self.cache_name] = joined[:, :, -self.num_history :].clone()
        y: torch.Tensor = self._conv_forward(joined, self.weight, self.bias)
        return y


class ChannelNorm(nn.Module):
    """Scale each position's channel vector to length sqrt(C), then by a learned gamma."""

    def __init__(self, channels: int, num_axes: int) -> None:
        """`num_axes` counts the axes after the channels: 3 for video, 2 for pictures."""
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, *(1,) * num_axes))
        self.length = math.sqrt(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the normalised tensor; channels are axis 1."""
        unit: torch.Tensor = F.normalize(x, dim=1)
        return unit * self.length * self.gamma


def run_layers(
    layers: Iterable[nn.Module], x_BCTHW: torch.Tensor, cache: FrameCache
) -> torch.Tensor:
    """Return `x` after the layers in order, handing the cache to those that look back."""
    for layer in layers:
        if isinstance(layer, CausalConv3d | ResidualBlock | Downsample | Upsample):
            x_BCTHW = layer.stream(x_BCTHW, cache)
        else:
            x_BCTHW = layer(x_BCTHW)
    return x_BCTHW


class ResidualBlock(nn.Module):
    """Add two normalised causal convolutions to the (projected) input."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        """Project the shortcut only where the channels change."""
        super().__init__()
        self.residual = nn.Sequential(
            ChannelNorm(in_channels, 3),
            nn.SiLU(),
            CausalConv3d(in_channels, out_channels),
            ChannelNorm(out_channels, 3),
            nn.SiLU(),
            nn.Identity(),  # the training dropout: holds the published index of the last layer
            CausalConv3d(out_channels, out_channels),
        )
        self.shortcut = (
            nn.Identity()
            if in_channels == out_channels
            else nn.Conv3d(in_channels, out_channels, 1)
        )

    def stream(self, x_BCTHW: torch.Tensor, cache: FrameCache) -> torch.Tensor:
        """Return as many frames as came in."""
        shortcut: torch.Tensor = self.shortcut(x_BCTHW)
        return run_layers(self.residual, x_BCTHW, cache) + shortcut


class FrameAttention(nn.Module):
    """Attend between the positions of each picture by itself, with one head."""

    def __init__(self, channels: int) -> None:
        """Project to queries, keys and values in one convolution, in this order."""
        super().__init__()
        self.norm = ChannelNorm(channels, 2)
        self.to_qkv = nn.Conv2d(channels, channels * 3, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x_BCTHW: torch.Tensor) -> torch.Tensor:
        """Return the input plus what each position gathered from its picture."""
        batch, channels, frames, height, width = x_BCTHW.shape
        x_NCHW = pictures(x_BCTHW)
        qkv_NDS = self.to_qkv(self.norm(x_NCHW)).flatten(2)
        q, k, v = qkv_NDS.transpose(1, 2).unsqueeze(1).chunk(3, dim=-1)
        mixed_NSC = F.scaled_dot_product_attention(q, k, v).squeeze(1)
        mixed_NCHW = mixed_NSC.transpose(1, 2).reshape(batch * frames, channels, height, width)
        return x_BCTHW + video(self.proj(mixed_NCHW), batch)


def pictures(x_BCTHW: torch.Tensor) -> torch.Tensor:
    """Return the frames as a batch of pictures, [B*T, C, H, W]."""
    return x_BCTHW.transpose(1, 2).flatten(0, 1)


def video(x_NCHW: torch.Tensor, batch: int) -> torch.Tensor:
    """Return a batch of pictures as `batch` videos, the inverse of `pictures`."""
    return x_NCHW.reshape(batch, -1, *x_NCHW.shape[1:]).transpose(1, 2)


class Downsample(nn.Module):
    """Halve height and width, and the frame rate too where `temporal`.

    A stream's first frame is kept as it is; each later output sees two new frames and the one
    before them, so chunks must hold an even number of frames.
    """

    def __init__(self, channels: int, temporal: bool) -> None:
        """Keep the number of channels."""
        super().__init__()
        self.resample = nn.Sequential(
            nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(channels, channels, 3, stride=2)
        )
        self.time_conv = (
            nn.Conv3d(channels, channels, (3, 1, 1), stride=(2, 1, 1)) if temporal else None
        )
        self.cache_name = ""

    def stream(self, x_BCTHW: torch.Tensor, cache: FrameCache) -> torch.Tensor:
        """Return the smaller frames, continuing the stream in `cache`."""
        x_BCTHW = video(self.resample(pictures(x_BCTHW)), x_BCTHW.shape[0])
        if self.time_conv is None:
            return x_BCTHW
        previous = cache.get(self.cache_name)
        cache[self.cache_name] = x_BCTHW[:, :, -1:].clone()
        if previous is None:
            return x_BCTHW
        halved: torch.Tensor = self.time_conv(torch.cat([previous, x_BCTHW], dim=2))
        return halved


class Upsample(nn.Module):
    """Double height and width, halve the channels; double the frame rate where `temporal`.

    A stream's first frame is neither doubled nor seen by the time convolution, whose own stream
    begins with the second.
    """

    def __init__(self, channels: int, temporal: bool) -> None:
        """Give the time convolution twice the channels: two consecutive frames."""
        super().__init__()
        self.resample = nn.Sequential(
            nn.Upsample(scale_factor=2.0, mode="nearest-exact"),
            nn.Conv2d(channels, channels // 2, 3, padding=1),
        )
        self.time_conv = CausalConv3d(channels, channels * 2, (3, 1, 1)) if temporal else None

    def stream(self, x_BCTHW: torch.Tensor, cache: FrameCache) -> torch.Tensor:
        """Return the larger frames, continuing the stream in `cache`."""
        if self.time_conv is not None:
            x_BCTHW = self._double_rate(x_BCTHW, self.time_conv, cache)
        return video(self.resample(pictures(x_BCTHW)), x_BCTHW.shape[0])

    def _double_rate(
        self, x_BCTHW: torch.Tensor, time_conv: CausalConv3d, cache: FrameCache
    ) -> torch.Tensor:
        if time_conv.cache_name not in cache:
            cache[time_conv.cache_name] = time_conv.blank_history(x_BCTHW)
            return x_BCTHW
        earlier, later = time_conv.stream(x_BCTHW, cache).chunk(2, dim=1)
        return torch.stack([earlier, later], dim=3).flatten(2, 3)


def middle(channels: int) -> nn.Sequential:
    """Return the stack at the lowest resolution: residual, attention, residual."""
    return nn.Sequential(
        ResidualBlock(channels, channels),
        FrameAttention(channels),
        ResidualBlock(channels, channels),
    )


def head(channels: int, out_channels: int) -> nn.Sequential:
    """Return the last normalised convolution."""
    return nn.Sequential(ChannelNorm(channels, 3), nn.SiLU(), CausalConv3d(channels, out_channels))


class Encoder(nn.Module):
    """Turn pictures into latent statistics; `widths` has one channel count per level."""

    def __init__(
        self, widths: Sequence[int], temporal: Sequence[bool], num_res_blocks: int, z_dim: int
    ) -> None:
        """`temporal[i]` says whether the step below level i halves the frame rate."""
        super().__init__()
        self.conv1 = CausalConv3d(3, widths[0])
        layers: list[nn.Module] = []
        channels = widths[0]
        for level, width in enumerate(widths):
            for _ in range(num_res_blocks):
                layers.append(ResidualBlock(channels, width))
                channels = width
            if level < len(temporal):
                layers.append(Downsample(channels, temporal[level]))
        self.downsamples = nn.Sequential(*layers)
        self.middle = middle(channels)
        self.head = head(channels, z_dim * 2)

    def stream(self, frames_BCTHW: torch.Tensor, cache: FrameCache) -> torch.Tensor:
        """Return [B, 2*z_dim, t, h, w]: first frame alone, then groups that end on a latent."""
        x = self.conv1.stream(frames_BCTHW, cache)
        for part in (self.downsamples, self.middle, self.head):
            x = run_layers(part, x, cache)
        return x


class Decoder(nn.Module):
    """Turn latents into pictures; `widths` and `temporal` as in the encoder (read backwards)."""

    def __init__(
        self, widths: Sequence[int], temporal: Sequence[bool], num_res_blocks: int, z_dim: int
    ) -> None:
        """Use one residual block more per level than the encoder."""
        super().__init__()
        channels = widths[-1]
        self.conv1 = CausalConv3d(z_dim, channels)
        self.middle = middle(channels)
        layers: list[nn.Module] = []
        for level, width in enumerate(reversed(widths)):
            for _ in range(num_res_blocks + 1):
                layers.append(ResidualBlock(channels, width))
                channels = width
            if level < len(temporal):
                layers.append(Upsample(channels, temporal[-1 - level]))
                channels //= 2
        self.upsamples = nn.Sequential(*layers)
        self.head = head(channels, 3)

    def stream(self, latents_BCTHW: torch.Tensor, cache: FrameCache) -> torch.Tensor:
        """Return frames_BCTHW of ONE latent: 1 for a stream's first, else all of its frames."""
        x = self.conv1.stream(latents_BCTHW, cache)
        for part in (self.middle, self.upsamples, self.head):
            x = run_layers(part, x, cache)
        return x
