"""The pocket model's speech encoder: log-mel bands through a small causal convolution network.

Silence stands before the first mel frame and after the last one; the network sees it as frames of
the log-mel floor, so a stream that begins is the same as a stream that was silent until now.
Output t uses mel frames up to t + `lookahead_frames` and no later one: the network itself is
causal and its output is shifted.

Shape legend: B = batch, M = mel bands, C = channels, V = visemes, L = layers, T = frames at 100 Hz,
P = frames of the past that a convolution keeps.
"""

import math
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any, Self, cast

import torch
from torch import nn
from torch.nn import functional as F

from audio.chunk import AudioChunk
from audio.encoder import AudioFeatures, ChunkClock
from audio.features import LogMelConfig, StreamingLogMel

# Ten seconds: beyond what any encoder of speech waits for or looks back at once.
_MAX_FRAMES = 1000

VISEME_NAMES = ("open", "wide", "round", "tuck", "press", "tongue")


@dataclass(frozen=True, slots=True, kw_only=True)
class MelEncoderConfig:
    """Dimensions of the network; `mel_mean` and `mel_std` bring log10-mel to about unit size.

    Raises:
        ValueError: a dimension is not positive, or there is no dilation.
    """

    num_mels: int = 80
    channels: int = 128
    out_channels: int = 64
    num_visemes: int = 6
    lookahead_frames: int = 8
    dilations: tuple[int, ...] = (1, 1, 2, 4, 8)
    kernel: int = 5
    mel_mean: float = -3.5
    mel_std: float = 1.5

    def __post_init__(self) -> None:
        """Refuse dimensions that make no network."""
        object.__setattr__(self, "dilations", tuple(self.dilations))
        for name in ("num_mels", "channels", "out_channels", "num_visemes", "kernel", "mel_std"):
            if not getattr(self, name) > 0:  # NaN is not positive either
                raise ValueError(f"speech.{name} must be positive, got {getattr(self, name)}")
        if not self.dilations or not all(1 <= d <= _MAX_FRAMES for d in self.dilations):
            raise ValueError(
                f"speech.dilations must be 1..{_MAX_FRAMES} and at least one, got {self.dilations}"
            )
        if not 0 <= self.lookahead_frames <= _MAX_FRAMES:
            raise ValueError(
                f"speech.lookahead_frames must be 0..{_MAX_FRAMES}, got {self.lookahead_frames}"
            )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Build from the `speech` section of a model's config.json.

        Raises:
            ValueError: a key is unknown, or a value contradicts another.
        """
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(f"unknown keys in the mel encoder's config: {', '.join(unknown)}")
        return cls(**values)

    @property
    def log_mel(self) -> LogMelConfig:
        """The spectrogram that the network reads."""
        return LogMelConfig(num_mels=self.num_mels)

    @property
    def feature_channels(self) -> int:
        """Channels handed on: hidden features, then visemes."""
        return self.out_channels + self.num_visemes

    @property
    def silent_mel(self) -> float:
        """Log-mel of silence."""
        return math.log10(self.log_mel.floor)


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each frame on its own, so that frames stay independent."""

    def forward(self, x_BCT: torch.Tensor) -> torch.Tensor:
        """Normalise [B, C, T] over C."""
        return super().forward(x_BCT.transpose(1, 2)).transpose(1, 2)


class CausalConv(nn.Conv1d):
    """Convolution over this frame and past ones; the past is given, never padded."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, dilation: int = 1) -> None:
        """Make a convolution that keeps (kernel - 1) * dilation past frames."""
        super().__init__(in_channels, out_channels, kernel, dilation=dilation)
        self.num_past = (kernel - 1) * dilation

    def step(
        self, x_BCT: torch.Tensor, past_BCP: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the output for the new frames and the past for the next call."""
        seen_BCT = torch.cat([past_BCP, x_BCT], dim=-1)
        past_BCP = seen_BCT[..., seen_BCT.shape[-1] - self.num_past :]
        return cast(torch.Tensor, self(seen_BCT)), past_BCP


class ResidualBlock(nn.Module):
    """x + mix(gelu(conv(norm(x)))): the dilated convolution looks back, the mix is per frame."""

    def __init__(self, channels: int, kernel: int, dilation: int) -> None:
        """Make a block whose shape of output equals that of its input."""
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.conv = CausalConv(channels, channels, kernel, dilation)
        self.mix = nn.Conv1d(channels, channels, 1)

    def step(
        self, x_BCT: torch.Tensor, past_BCP: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the output for the new frames and the past for the next call."""
        y_BCT, past_BCP = self.conv.step(self.norm(x_BCT), past_BCP)
        return x_BCT + cast(torch.Tensor, self.mix(F.gelu(y_BCT))), past_BCP


class MelEncoderNet(nn.Module):
    """Log-mel [B, M, T] to hidden features [B, C, T] and visemes [B, V, T] in 0..1."""

    def __init__(self, config: MelEncoderConfig | None = None) -> None:
        """Make an untrained network."""
        super().__init__()
        self.config = config = config or MelEncoderConfig()
        self.stem = CausalConv(config.num_mels, config.channels, 3)
        self.blocks = nn.ModuleList(
            ResidualBlock(config.channels, config.kernel, dilation) for dilation in config.dilations
        )
        self.norm = ChannelNorm(config.channels)
        self.head = nn.Conv1d(config.channels, config.out_channels, 1)
        self.viseme_head = nn.Conv1d(config.out_channels, config.num_visemes, 1)

    @property
    def num_past(self) -> int:
        """Mel frames before the newest one that an output depends on."""
        return sum(conv.num_past for conv in self._convs())

    def _convs(self) -> list[CausalConv]:
        """The convolutions that look back, in the order of the stream state."""
        return [self.stem, *(cast(ResidualBlock, block).conv for block in self.blocks)]

    def _silence(self, batch: int, num_frames: int) -> torch.Tensor:
        """Mel frames of silence [B, M, T]."""
        like = self.stem.weight
        return like.new_full((batch, self.config.num_mels, num_frames), self.config.silent_mel)

    def forward(self, mel_BMT: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode whole sequences, silence standing before and after them."""
        batch, lookahead = mel_BMT.shape[0], self.config.lookahead_frames
        before, after = self._silence(batch, self.num_past), self._silence(batch, lookahead)
        padded_BMT = torch.cat([before, mel_BMT, after], dim=-1)
        features_BCT, visemes_BVT, _ = self.step(padded_BMT, self._zero_state(batch))
        skip = self.num_past + lookahead
        return features_BCT[..., skip:], visemes_BVT[..., skip:]

    def initial_state(self, batch: int = 1) -> list[torch.Tensor]:
        """The state after endless silence: the past of each convolution [B, C, P].

        Silence as long as the whole receptive field replaces every zero it started from.
        """
        return self.step(self._silence(batch, self.num_past), self._zero_state(batch))[2]

    def _zero_state(self, batch: int) -> list[torch.Tensor]:
        """Zeros in the shape of a state."""
        like = self.stem.weight
        return [like.new_zeros(batch, conv.in_channels, conv.num_past) for conv in self._convs()]

    def step(
        self, mel_BMT: torch.Tensor, state: list[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        """Encode the next mel frames; return features, visemes and the state for the next call.

        The outputs belong to the frames `lookahead_frames` before those given.
        """
        if mel_BMT.shape[-1] == 0:
            batch, config = mel_BMT.shape[0], self.config
            features_BCT = mel_BMT.new_zeros(batch, config.out_channels, 0)
            return features_BCT, mel_BMT.new_zeros(batch, config.num_visemes, 0), state
        x_BMT = (mel_BMT - self.config.mel_mean) / self.config.mel_std
        x_BCT, past = self.stem.step(x_BMT, state[0])
        pasts = [past]
        for block, block_past in zip(self.blocks, state[1:], strict=True):
            x_BCT, past = cast(ResidualBlock, block).step(x_BCT, block_past)
            pasts.append(past)
        features_BCT = cast(torch.Tensor, self.head(F.gelu(self.norm(x_BCT))))
        visemes_BVT = torch.sigmoid(self.viseme_head(features_BCT))
        return features_BCT, visemes_BVT, pasts


class MelEncoder:
    """The network as a `SpeechEncoder`: 16 kHz sound in, 100 features a second out.

    A stream of T > 0 samples makes 1 + T // 160 frames; joined, they equal
    `net(log_mel(samples))` of the whole signal (hidden features, then visemes, in one layer).
    The network runs on fixed blocks of 80 ms: small pushes cost no more than large ones, and
    every cut of a stream gives the same bits.
    """

    num_layers = 1
    block_frames = 8

    def __init__(self, net: MelEncoderNet) -> None:
        """Run `net`, its weights already loaded, on the device that it is on."""
        self.net = net
        self.channels = net.config.feature_channels
        self._mel = StreamingLogMel(net.config.log_mel, block_frames=self.block_frames)
        self._clock = ChunkClock(self.sample_rate)
        self.reset()

    @property
    def sample_rate(self) -> int:
        """Samples per second that `push` expects."""
        return self.net.config.log_mel.sample_rate

    @property
    def rate(self) -> Fraction:
        """Feature frames per second."""
        return self.net.config.log_mel.rate

    @property
    def lookahead_s(self) -> Fraction:
        """The longest wait: the network's look-ahead, the rest of a block, half a window."""
        mel = self.net.config.log_mel
        num_frames = self.net.config.lookahead_frames + self.block_frames - 1
        return Fraction(num_frames * mel.hop + mel.lookahead, mel.sample_rate)

    def reset(self) -> None:
        """Forget everything: the next push starts a stream."""
        self._mel.reset()
        self._clock.reset()
        with torch.no_grad():
            self._state = self.net.initial_state()
        self._num_mel = 0

    def push(self, chunk: AudioChunk) -> AudioFeatures:
        """Take the next sound; return every frame that became computable (maybe none).

        Raises:
            AudioError: a sample is NaN or infinite.
            ValueError: another sample rate, or a gap in the stream.
        """
        self._clock.check(chunk)
        return self._encode(self._mel.push(chunk.samples_T))

    def flush(self) -> AudioFeatures:
        """Return the remaining frames as if silence followed; the next push starts a stream."""
        config = self.net.config
        mel_MT = self._mel.flush()
        total = self._num_mel + mel_MT.shape[-1]
        if total:
            count = config.lookahead_frames
            count += -(total + count) % self.block_frames
            silence = mel_MT.new_full((config.num_mels, count), config.silent_mel)
            mel_MT = torch.cat([mel_MT, silence], dim=-1)
        features = self._encode(mel_MT)
        self.reset()
        values_LCT = features.values_LCT[..., : total - features.start]
        return AudioFeatures(values_LCT=values_LCT, rate=self.rate, start=features.start)

    def _encode(self, mel_MT: torch.Tensor) -> AudioFeatures:
        """Run the network on whole blocks and drop outputs from before the first frame."""
        start = self._num_mel - self.net.config.lookahead_frames
        like = self.net.stem.weight
        values = [like.new_zeros(1, self.channels, 0)]
        for block_BMT in torch.split(mel_MT[None].to(like), self.block_frames, dim=-1):
            with torch.no_grad():
                hidden, visemes, self._state = self.net.step(block_BMT, self._state)
            values.append(torch.cat([hidden, visemes], dim=1))
        values_LCT = torch.cat(values, dim=-1)[..., max(0, -start) :]
        self._num_mel += mel_MT.shape[-1]
        return AudioFeatures(values_LCT=values_LCT.float(), rate=self.rate, start=max(0, start))

    def export_state(self) -> dict[str, torch.Tensor]:
        """Everything needed to go on elsewhere."""
        state = {f"conv.{i}": past.clone() for i, past in enumerate(self._state)}
        state |= {f"mel.{name}": value for name, value in self._mel.export_state().items()}
        state |= {"num_mel": torch.tensor(self._num_mel), "clock": self._clock.export_state()}
        return state

    def import_state(self, state: dict[str, torch.Tensor]) -> None:
        """Go on from what `export_state` gave."""
        self._mel.import_state(
            {name[4:]: value for name, value in state.items() if name.startswith("mel.")}
        )
        like = self.net.stem.weight
        self._state = [state[f"conv.{i}"].to(like, copy=True) for i in range(len(self._state))]
        self._clock.import_state(state["clock"])
        self._num_mel = int(state["num_mel"])
