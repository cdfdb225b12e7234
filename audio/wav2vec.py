"""The 14B model's speech features: all hidden states of wav2vec 2.0, on the video's grid.

Two uses:
- a whole file as the reference program does it (`hidden_states`, `to_video_rate`, `to_clips`);
- a stream (`Wav2Vec2Encoder`): overlapping windows on a fixed grid, features at 30 Hz on the true
  time axis, which `audio.align.Aligner` then puts on the video's frames.

transformers is an extra and is imported only when a network is loaded.

Shape legend: L = layers (hidden states), T = frames, C = channels, J = video frames, N = samples.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from audio.chunk import AudioChunk
from audio.encoder import AudioFeatures, ChunkClock
from audio.errors import AudioError

SAMPLE_RATE = 16_000
STRIDE = 320
RECEPTIVE = 400
HIDDEN_RATE = SAMPLE_RATE // STRIDE
VIDEO_RATE = 30
_NORM_EPS = 1e-7
_GRID = SAMPLE_RATE // 10  # both 50 Hz and 30 Hz frames begin on it


def normalise(samples_N: torch.Tensor) -> torch.Tensor:
    """Zero mean and unit variance over the whole array, as the published processor does."""
    centred_N = samples_N - samples_N.mean()
    return centred_N / torch.sqrt(samples_N.var(correction=0) + _NORM_EPS)


def load_wav2vec2(config: Mapping[str, Any], weights: Mapping[str, torch.Tensor]) -> nn.Module:
    """Build a transformers Wav2Vec2Model from published weights, in eval mode.

    Takes weight norm under either name (`weight_g`, `weight_v` or the parametrized ones), keys with
    or without the prefix `wav2vec2.`, and ignores the unused LM head.

    Raises:
        AudioError: transformers is not installed, or weights are missing or mis-shaped.
    """
    try:
        from transformers import Wav2Vec2Config, Wav2Vec2Model
    except ImportError:
        raise AudioError(
            "wav2vec2 features need transformers: pip install 'viva-voce[wav2vec]'"
        ) from None
    make_config: Any = Wav2Vec2Config  # untyped in some releases
    model = cast(nn.Module, Wav2Vec2Model(make_config(**config)))
    try:
        model.load_state_dict(_renamed(weights, set(model.state_dict())))
    except RuntimeError as error:
        problem = " ".join(str(error).split())
        raise AudioError(f"wav2vec2 weights do not fit their config: {problem}") from None
    return model.eval()


def load_wav2vec2_folder(folder: str | Path) -> nn.Module:
    """Build the network from a folder with config.json and model.safetensors.

    Raises:
        AudioError: a file is missing or damaged, or as `load_wav2vec2`.
    """
    import json

    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        weights = load_file(folder / "model.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise AudioError(
            f"{folder} holds no readable wav2vec2 ({error}): "
            "put its config.json and model.safetensors there"
        ) from None
    return load_wav2vec2(config, weights)


def _renamed(weights: Mapping[str, torch.Tensor], wanted: set[str]) -> dict[str, torch.Tensor]:
    """Published names turned into those of the installed transformers."""
    names = {
        "weight_g": "parametrizations.weight.original0",
        "weight_v": "parametrizations.weight.original1",
    }
    renamed = {}
    for key, value in weights.items():
        key = key.removeprefix("wav2vec2.")
        if key.startswith("lm_head."):
            continue
        stem, _, last = key.rpartition(".")
        parametrized = f"{stem}.{names.get(last, last)}"
        renamed[parametrized if parametrized in wanted else key] = value
    return renamed


@torch.no_grad()
def hidden_states(model: nn.Module, samples_N: torch.Tensor) -> torch.Tensor:
    """All hidden states [L, T, C] of 16 kHz samples, the last after the final layer norm."""
    parameter = next(model.parameters())
    inputs = normalise(samples_N.to(parameter.device, torch.float32)).to(parameter.dtype)
    states = model(inputs[None], output_hidden_states=True).hidden_states
    return torch.cat(list(states), dim=0).float()


def video_rate_length(num_hidden: int) -> int:
    """Frames at 30 Hz that the reference program makes of a whole array at 50 Hz.

    In float on purpose: 205 frames make 122, where exact arithmetic would give 123.
    """
    return int(num_hidden / HIDDEN_RATE * VIDEO_RATE)


def to_video_rate(hidden_LTC: torch.Tensor) -> torch.Tensor:
    """A whole array from 50 to 30 Hz: linear, the first and last frames meeting."""
    num_out = video_rate_length(hidden_LTC.shape[1])
    out_LCT = F.interpolate(
        hidden_LTC.transpose(1, 2), size=num_out, mode="linear", align_corners=True
    )
    return out_LCT.transpose(1, 2)


def to_clips(features_LTC: torch.Tensor, clip_frames: int) -> torch.Tensor:
    """30 Hz features on 25 fps video frames [L, C, J], J filling whole clips.

    Video frame j takes feature round(1.2 j); there is always one clip more than fits, and frames
    past the last feature are zero.
    """
    num_layers, num_features, channels = features_LTC.shape
    num_clips = 5 * num_features // (6 * clip_frames) + 1
    index_J = (12 * torch.arange(num_clips * clip_frames) + 5) // 10
    index_J = index_J[index_J < num_features].to(features_LTC.device)
    out_LCJ = features_LTC.new_zeros(num_layers, channels, num_clips * clip_frames)
    out_LCJ[..., : len(index_J)] = features_LTC[:, index_J].transpose(1, 2)
    return out_LCJ


@dataclass(frozen=True, slots=True, kw_only=True)
class Wav2Vec2Window:
    """How a stream is cut for the bidirectional network, in tenths of a second.

    Every `step` new tenths are encoded together with `before` tenths of their past and `after` of
    their future, which are then dropped. `step + after` is the delay of the stream.

    Raises:
        ValueError: the step is not positive, or a context is negative.
    """

    step: int = 5
    before: int = 40
    after: int = 1

    def __post_init__(self) -> None:
        """Refuse a window that makes no progress."""
        if self.step < 1 or self.before < 0 or self.after < 0:
            raise ValueError(f"window needs step >= 1 and contexts >= 0, got {self}")


class Wav2Vec2Encoder:
    """wav2vec 2.0 as a `SpeechEncoder`: windows on a fixed grid, so the cut does not matter.

    Feature i stands at the time i / 30 and is interpolated between the 50 Hz frames around it. A
    stream of N samples makes ceil(N * 30 / 16000) features; silence follows its end.
    """

    sample_rate = SAMPLE_RATE
    rate = Fraction(VIDEO_RATE)

    def __init__(self, model: nn.Module, window: Wav2Vec2Window | None = None) -> None:
        """Run a model of `load_wav2vec2` on the device that it is on."""
        self.model = model
        self.window = window or Wav2Vec2Window()
        config = cast(Any, model).config
        self.num_layers = int(config.num_hidden_layers) + 1
        self.channels = int(config.hidden_size)
        self._clock = ChunkClock(SAMPLE_RATE)
        self.reset()

    @property
    def lookahead_s(self) -> Fraction:
        """The longest wait: from the first frame of a step to the end of its window."""
        return Fraction(self.window.step + self.window.after, 10)

    def reset(self) -> None:
        """Forget everything: the next push starts a stream."""
        self._clock.reset()
        self._pending_N = np.zeros(0, np.float32)
        self._pending_start = 0  # stream position of the first sample held
        self._step = 0  # index of the next window

    def push(self, chunk: AudioChunk) -> AudioFeatures:
        """Take the next sound; return every feature whose window is complete (maybe none).

        Raises:
            AudioError: a sample is NaN or infinite.
            ValueError: another sample rate, or a gap in the stream.
        """
        self._clock.check(chunk)
        self._pending_N = np.concatenate([self._pending_N, chunk.samples_T])
        return self._encode(self._end)

    def flush(self) -> AudioFeatures:
        """Return the remaining features as if silence followed; the next push starts a stream."""
        num_samples = self._end
        total = -(-num_samples * VIDEO_RATE // SAMPLE_RATE)
        window = self.window
        last_step = -(-num_samples // (window.step * _GRID))
        wanted_end = (last_step * window.step + window.after) * _GRID
        silence_N = np.zeros(max(0, wanted_end - num_samples), np.float32)
        self._pending_N = np.concatenate([self._pending_N, silence_N])
        features = self._encode(wanted_end)
        self.reset()
        keep = max(0, total - features.start)
        return AudioFeatures(
            values_LCT=features.values_LCT[..., :keep], rate=self.rate, start=features.start
        )

    @property
    def _end(self) -> int:
        """Stream position after the last sample held."""
        return self._pending_start + len(self._pending_N)

    def _encode(self, end: int) -> AudioFeatures:
        """Encode every window that ends by `end` and let go of samples no longer needed."""
        window, start = self.window, self._step * self.window.step * VIDEO_RATE // 10
        pieces = [torch.zeros(self.num_layers, self.channels, 0)]
        while ((self._step + 1) * window.step + window.after) * _GRID <= end:
            pieces.append(self._encode_window())
            self._step += 1
        keep_from = max(0, self._step * window.step - window.before) * _GRID
        self._pending_N = self._pending_N[keep_from - self._pending_start :].copy()
        self._pending_start = keep_from
        device = pieces[-1].device
        values_LCT = torch.cat([piece.to(device) for piece in pieces], dim=-1)
        return AudioFeatures(values_LCT=values_LCT, rate=self.rate, start=start)

    def _encode_window(self) -> torch.Tensor:
        """The features [L, C, T] of the next step, from the samples of its window."""
        window = self.window
        first = max(0, self._step * window.step - window.before) * _GRID
        last = ((self._step + 1) * window.step + window.after) * _GRID
        samples_N = self._pending_N[first - self._pending_start : last - self._pending_start]
        hidden_LTC = hidden_states(self.model, torch.from_numpy(samples_N))
        num_out = window.step * VIDEO_RATE // 10
        frames = torch.arange(self._step * num_out, (self._step + 1) * num_out)
        # 50 Hz position of 30 Hz frame i is 5 i / 3, counted from the window's first frame.
        thirds = (5 * frames - 3 * (first // STRIDE)).to(hidden_LTC.device)
        return _between(hidden_LTC, thirds)

    def export_state(self) -> dict[str, torch.Tensor]:
        """Everything needed to go on elsewhere."""
        return {
            "pending_N": torch.from_numpy(self._pending_N.copy()),
            "position": torch.tensor([self._pending_start, self._step]),
            "clock": self._clock.export_state(),
        }

    def import_state(self, state: dict[str, torch.Tensor]) -> None:
        """Go on from what `export_state` gave."""
        self._pending_N = state["pending_N"].cpu().numpy().copy()
        self._pending_start, self._step = (int(value) for value in state["position"])
        self._clock.import_state(state["clock"])


def _between(hidden_LTC: torch.Tensor, thirds: torch.Tensor) -> torch.Tensor:
    """Hidden states at positions given in thirds of a frame, held at the last one: [L, C, T]."""
    last = hidden_LTC.shape[1] - 1
    below, above = (thirds // 3).clamp(max=last), (thirds // 3 + 1).clamp(max=last)
    share = (thirds % 3).to(hidden_LTC.dtype)[:, None] / 3
    out_LTC = torch.lerp(hidden_LTC[:, below], hidden_LTC[:, above], share)
    return out_LTC.transpose(1, 2)
