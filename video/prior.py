"""From speech to facial motion without chance: what a mouth does for a sound, on this portrait.

The network denoises around this prior: it arrives as the conditioning latents that the
speech-to-video network otherwise takes from a pose video. Lips follow the sound already here,
and eyes the blinks and glances that the session has drawn; brows, head motion and all that goes
with them are left to the diffusion.

Shape legend: B = batch, C = channels of speech features, then behaviour, T = video frames, L =
latent frames, K = latent channels, G = grid side, H = hidden channels, P = past latent frames.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from video.head_pose import POSE_CHANNELS
from video.section import Section


@dataclass(frozen=True, kw_only=True, slots=True)
class MotionPriorConfig(Section):
    """Sizes of the prior; `past_latents` is how far back it hears beside the current latent.

    `behaviour_channels` are tracks that follow the speech features in its input: what a session
    decides ahead of the network, such as blinks and glances (none if zero).
    """

    may_be_zero: ClassVar[frozenset[str]] = frozenset({"behaviour_channels"})

    audio_channels: int = 70
    behaviour_channels: int = 0
    latent_channels: int = 32
    frames_per_latent: int = 4
    grid: int = 8
    hidden: int = 96
    audio_hidden: int = 192
    past_latents: int = 2
    num_blocks: int = 2


class ModulatedBlock(nn.Module):
    """A residual convolution over the grid whose channels the sound scales and shifts."""

    def __init__(self, hidden: int, audio_hidden: int) -> None:
        """Create a block of `hidden` channels driven by `audio_hidden` numbers."""
        super().__init__()
        self.drive = nn.Linear(audio_hidden, 2 * hidden)
        self.mix = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.out = nn.Conv2d(hidden, hidden, 1)

    def forward(self, x_NHGG: torch.Tensor, audio_NH: torch.Tensor) -> torch.Tensor:
        """Return x plus what the sound adds."""
        scale, shift = self.drive(audio_NH)[..., None, None].chunk(2, dim=1)
        hidden = F.silu(self.mix(x_NHGG) * (1.0 + scale) + shift)
        added: torch.Tensor = self.out(hidden)
        return x_NHGG + added


class MotionPrior(nn.Module):
    """Map speech features and a portrait's latent frame to conditioning latents."""

    def __init__(self, config: MotionPriorConfig) -> None:
        """Create the network of `config` with fresh weights."""
        super().__init__()
        self.config = config
        window_frames = config.frames_per_latent * (1 + config.past_latents)
        self.listen = nn.Linear(config.audio_channels * window_frames, config.audio_hidden)
        # Apart, or a few tracks would start faint among many features and never be heard.
        self.act: nn.Linear | None = None
        if config.behaviour_channels:
            self.act = nn.Linear(config.behaviour_channels * window_frames, config.audio_hidden)
        self.think = nn.Linear(config.audio_hidden, config.audio_hidden)
        self.place = nn.Parameter(torch.randn(1, config.hidden, config.grid, config.grid) * 0.3)
        self.look = nn.Conv2d(config.latent_channels, config.hidden, 3, padding=1)
        self.blocks = nn.ModuleList(
            ModulatedBlock(config.hidden, config.audio_hidden) for _ in range(config.num_blocks)
        )
        self.out = nn.Conv2d(config.hidden, config.latent_channels - POSE_CHANNELS, 1)

    @property
    def drive_channels(self) -> int:
        """Channels of its input: speech features, then behaviour."""
        return self.config.audio_channels + self.config.behaviour_channels

    def initial_past(self, batch: int, like: torch.Tensor) -> torch.Tensor:
        """Return what drove the face before a session began: zeros [B, C, 4 * P]."""
        past_frames = self.config.past_latents * self.config.frames_per_latent
        return like.new_zeros(batch, self.drive_channels, past_frames)

    def forward(
        self, drive_BCT: torch.Tensor, reference_BK1GG: torch.Tensor, past_BCP: torch.Tensor
    ) -> torch.Tensor:
        """Return conditioning latents [B, K, L, G, G], pose channels zero.

        `drive_BCT` holds 4 frames per latent frame, `past_BCP` the frames before them; pass the
        last `4 * past_latents` frames of their concatenation to the next call.
        """
        config = self.config
        heard = torch.cat((past_BCP, drive_BCT), dim=-1)
        width = config.frames_per_latent * (1 + config.past_latents)
        windows_BLCW = heard.unfold(-1, width, config.frames_per_latent).permute(0, 2, 1, 3)
        num_latents = windows_BLCW.shape[1]
        drive = self._understand(windows_BLCW).flatten(0, 1)
        seen = self.look(reference_BK1GG[:, :, 0]) + self.place
        x = seen.repeat_interleave(num_latents, dim=0)
        for block in self.blocks:
            x = block(x, drive)
        local = self.out(F.silu(x)).unflatten(0, (-1, num_latents)).transpose(1, 2)
        return F.pad(local, (0, 0, 0, 0, 0, 0, POSE_CHANNELS, 0))

    def _understand(self, windows_BLCW: torch.Tensor) -> torch.Tensor:
        """Return what drives the blocks [B, L, audio_hidden], from windows of W frames."""
        features = self.config.audio_channels
        speech, tracks = windows_BLCW[:, :, :features], windows_BLCW[:, :, features:]
        heard = F.silu(self.think(F.silu(self.listen(speech.flatten(2)))))
        return heard if self.act is None else heard + self.act(tracks.flatten(2))

    def next_past(self, drive_BCT: torch.Tensor, past_BCP: torch.Tensor) -> torch.Tensor:
        """Return the past for the next call."""
        heard = torch.cat((past_BCP, drive_BCT), dim=-1)
        return heard[..., heard.shape[-1] - past_BCP.shape[-1] :]
