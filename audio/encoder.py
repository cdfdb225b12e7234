"""What a speech encoder promises: sound in, features on a fixed grid out.

Shape legend: L = layers, C = channels, T = feature frames.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np
import torch

from audio.chunk import AudioChunk
from audio.errors import AudioError


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioFeatures:
    """A run of feature frames with its place on the feature grid.

    `values_LCT` is float32, `rate` in frames per second, `start` the index of the first frame:
    frame i belongs to the time i / rate after the first sample.

    Raises:
        ValueError: the values are not three-dimensional, or the rate is not positive.
    """

    values_LCT: torch.Tensor
    rate: Fraction
    start: int

    def __post_init__(self) -> None:
        """Refuse what alignment could not interpret."""
        if self.values_LCT.ndim != 3:
            raise ValueError(f"values_LCT must be 3-D, got shape {tuple(self.values_LCT.shape)}")
        if self.rate <= 0:
            raise ValueError(f"rate must be positive, got {self.rate}")

    @property
    def num_frames(self) -> int:
        """Number of feature frames held."""
        return int(self.values_LCT.shape[-1])

    @property
    def end(self) -> int:
        """The index just after the last frame."""
        return self.start + self.num_frames


class SpeechEncoder(Protocol):
    """Turns a stream of sound into features; the cut of the stream must not matter.

    `sample_rate` is the only rate that `push` takes; `lookahead_s` is how much sound after a
    frame's time the frame needs. The features of one stream start at index 0.
    """

    @property
    def sample_rate(self) -> int:
        """Samples per second that `push` expects."""
        ...

    @property
    def num_layers(self) -> int:
        """Feature layers (L)."""
        ...

    @property
    def channels(self) -> int:
        """Channels of one layer (C)."""
        ...

    @property
    def rate(self) -> Fraction:
        """Feature frames per second."""
        ...

    @property
    def lookahead_s(self) -> Fraction:
        """Seconds of sound after a frame's time that the frame needs."""
        ...

    def push(self, chunk: AudioChunk) -> AudioFeatures:
        """Take the next sound; return every frame that became computable (maybe none)."""
        ...

    def flush(self) -> AudioFeatures:
        """Return the remaining frames as if silence followed; the next push starts a stream."""
        ...

    def reset(self) -> None:
        """Forget everything: the next push starts a stream."""
        ...

    def export_state(self) -> dict[str, torch.Tensor]:
        """Everything needed to go on elsewhere."""
        ...

    def import_state(self, state: dict[str, torch.Tensor]) -> None:
        """Go on from what `export_state` gave."""
        ...


class ChunkClock:
    """Checks that the chunks of a stream hold sound and follow each other without gap."""

    def __init__(self, sample_rate: int) -> None:
        """Expect chunks of this rate; the first may start at any pts."""
        self._sample_rate = sample_rate
        self._next_pts: int | None = None

    def check(self, chunk: AudioChunk) -> None:
        """Take note of the next chunk; a refused one is not taken.

        Raises:
            AudioError: a sample is NaN or infinite: it would spoil all that follows it.
            ValueError: another rate, or not the pts at which the last chunk ended.
        """
        if not np.isfinite(chunk.samples_T).all():
            raise AudioError(
                f"sound at pts {chunk.pts} holds NaN or infinite samples: send it again, decoded"
            )
        if chunk.sample_rate != self._sample_rate:
            raise ValueError(
                f"chunk has {chunk.sample_rate} Hz, the stream has {self._sample_rate}: resample it"
            )
        if self._next_pts is not None and chunk.pts != self._next_pts:
            raise ValueError(
                f"chunk starts at pts {chunk.pts}, the last one ended at {self._next_pts}: "
                "push chunks in order, or reset"
            )
        self._next_pts = chunk.end_pts

    def reset(self) -> None:
        """Let the next chunk start anywhere."""
        self._next_pts = None

    def export_state(self) -> torch.Tensor:
        """The pts expected next, empty before the first chunk."""
        return torch.tensor([] if self._next_pts is None else [self._next_pts], dtype=torch.int64)

    def import_state(self, state: torch.Tensor) -> None:
        """Go on from what `export_state` gave."""
        self._next_pts = int(state[0]) if len(state) else None
