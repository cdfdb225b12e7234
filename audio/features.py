"""Log-mel spectrogram: of a whole batch of signals, and of a stream, with the same numbers.

The grid is librosa's `feature.melspectrogram(center=True, pad_mode="constant", power=2)`: frame t
is centred on sample t * hop, samples before the first and after the last count as zero, and T > 0
samples make 1 + T // hop frames. Zero padding, not reflection, because a reflection at the end
needs samples that a stream has already let go. Values are log10(max(mel, floor)).

The transform runs in float64: near the floor, float32 rounding of a loud neighbour would already
cost more than 1e-4 in the logarithm.

Shape legend: B = batch, T = samples or frames, M = mel bands, K = frequency bins, W = window.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F


@dataclass(frozen=True, slots=True, kw_only=True)
class LogMelConfig:
    """Dimensions of a log-mel spectrogram; lengths in samples.

    Raises:
        ValueError: a dimension is not positive, or the hop is longer than the window.
    """

    sample_rate: int = 16_000
    num_mels: int = 80
    hop: int = 160
    window: int = 400
    floor: float = 1e-5

    def __post_init__(self) -> None:
        """Refuse dimensions that make no spectrogram."""
        for name in ("sample_rate", "num_mels", "hop", "window", "floor"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.hop > self.window or self.window % 2:
            raise ValueError(
                f"window must be even and at least hop, got window {self.window}, hop {self.hop}"
            )

    @property
    def rate(self) -> Fraction:
        """Frames per second."""
        return Fraction(self.sample_rate, self.hop)

    @property
    def lookahead(self) -> int:
        """Samples after a frame's centre that the frame needs."""
        return self.window // 2

    def num_frames(self, num_samples: int) -> int:
        """Frames that a whole signal of `num_samples` makes."""
        return 1 + num_samples // self.hop if num_samples else 0


DEFAULT_LOG_MEL = LogMelConfig()


@lru_cache(maxsize=8)
def mel_filters(config: LogMelConfig) -> torch.Tensor:
    """Slaney-normalised triangular filters, float64 [K, M]: librosa's `filters.mel`, transposed.

    librosa is imported here because its import takes a second that few commands need.
    """
    from librosa.filters import mel

    filters_MK = mel(
        sr=config.sample_rate, n_fft=config.window, n_mels=config.num_mels, dtype=np.float64
    )
    return torch.from_numpy(np.ascontiguousarray(filters_MK.T))


@lru_cache(maxsize=8)
def _hann_window(size: int) -> torch.Tensor:
    """Periodic Hann window, float64."""
    return torch.hann_window(size, periodic=True, dtype=torch.float64)


def _log_mel_of_frames(frames_BTW: torch.Tensor, config: LogMelConfig) -> torch.Tensor:
    """Log-mel of already cut windows, float32 [B, M, T]."""
    device = frames_BTW.device
    spectrum_BTK = torch.fft.rfft(frames_BTW.double() * _hann_window(config.window).to(device))
    power_BTK = spectrum_BTK.real.square() + spectrum_BTK.imag.square()
    mel_BTM: torch.Tensor = power_BTK @ mel_filters(config).to(device)
    return mel_BTM.clamp_min(config.floor).log10().float().transpose(1, 2)


def log_mel(samples_BT: torch.Tensor, config: LogMelConfig = DEFAULT_LOG_MEL) -> torch.Tensor:
    """Log-mel of whole signals at `config.sample_rate`: float32 [B, M, 1 + T // hop].

    An empty signal makes no frames.
    """
    if samples_BT.shape[-1] == 0:
        return samples_BT.new_zeros(samples_BT.shape[0], config.num_mels, 0, dtype=torch.float32)
    padded_BT = F.pad(samples_BT, (config.lookahead, config.lookahead))
    return _log_mel_of_frames(padded_BT.unfold(-1, config.window, config.hop), config)


class StreamingLogMel:
    """Log-mel of a stream: the pieces joined equal `log_mel` of the whole signal, however cut.

    Frames are computed, and come out, in blocks of `block_frames` as soon as `config.lookahead`
    samples after the centre of a block's last frame are in; fixed blocks make the result the same
    to the last bit for every cut. Holds less than a block of samples and a window.
    """

    def __init__(self, config: LogMelConfig = DEFAULT_LOG_MEL, *, block_frames: int = 8) -> None:
        """Start before the first sample."""
        self.config = config
        self.block_frames = block_frames
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next sample is the first."""
        # The zeros before the first sample are the left half of frame 0's window.
        self._pending_T = np.zeros(self.config.lookahead, np.float32)
        self._num_samples = 0

    def push(self, samples_T: npt.NDArray[np.float32]) -> torch.Tensor:
        """Take the next samples; return the frames [M, T] that they complete (maybe none)."""
        self._num_samples += len(samples_T)
        self._pending_T = np.concatenate([self._pending_T, samples_T])
        num_frames = self._num_ready()
        return self._take(num_frames - num_frames % self.block_frames)

    def flush(self) -> torch.Tensor:
        """Return the last frames [M, T], zeros standing after the last sample, and reset."""
        if self._num_samples == 0:
            return torch.zeros(self.config.num_mels, 0)
        self._pending_T = np.pad(self._pending_T, (0, self.config.lookahead))
        mel_MT = self._take(self._num_ready())
        self.reset()
        return mel_MT

    def _num_ready(self) -> int:
        """Frames whose window is complete."""
        return max(0, (len(self._pending_T) - self.config.window) // self.config.hop + 1)

    def _take(self, num_frames: int) -> torch.Tensor:
        """Compute frames and cut them off the front."""
        config = self.config
        if num_frames == 0:
            return torch.zeros(config.num_mels, 0)
        frames_TW = torch.from_numpy(self._pending_T).unfold(0, config.window, config.hop)
        blocks = torch.split(frames_TW[:num_frames], self.block_frames)
        mel_MT = torch.cat([_log_mel_of_frames(block[None], config)[0] for block in blocks], dim=-1)
        self._pending_T = self._pending_T[num_frames * config.hop :].copy()
        return mel_MT

    def export_state(self) -> dict[str, torch.Tensor]:
        """Everything needed to go on elsewhere."""
        return {
            "pending_T": torch.from_numpy(self._pending_T.copy()),
            "num_samples": torch.tensor(self._num_samples),
        }

    def import_state(self, state: dict[str, torch.Tensor]) -> None:
        """Go on from what `export_state` gave."""
        self._pending_T = state["pending_T"].cpu().numpy().astype(np.float32, copy=True)
        self._num_samples = int(state["num_samples"])
