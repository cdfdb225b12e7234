"""A resampler that can go on in another process: soxr does not give its filter memory away.

The sound it heard last is kept instead and played to a fresh filter. Kept sound starts where
input and output samples coincide, so both filters run in the same phase; what they make differs
by rounding only (about 1e-7), and not at all where no resampling is needed.

Shape legend: T = samples.
"""

from math import gcd

import numpy as np
import numpy.typing as npt
import torch

from audio.chunk import AudioChunk
from audio.resample import StreamResampler
from pipeline.session_state import SessionState

# Far longer than soxr's high-quality filter at any rate from 8 kHz up (some tens of ms).
MEMORY_S = 0.5


class ResumableResampler:
    """A `StreamResampler` whose position can be exported; the stream starts at pts 0."""

    def __init__(self, from_rate: int, to_rate: int) -> None:
        """Start before the first sample; rates in hertz."""
        self.from_rate, self.to_rate = from_rate, to_rate
        self._resampler = StreamResampler(from_rate, to_rate)
        self._period = from_rate // gcd(from_rate, to_rate)
        self._recent = _sound(np.zeros(0, np.float32), from_rate, 0)
        self._ahead_T = np.zeros(0, np.float32)
        self._next_out = 0

    def push(self, sound: AudioChunk) -> AudioChunk:
        """Take the next sound; return the samples that became computable (maybe none)."""
        self._remember(sound)
        return self._give(self._resampler.push(sound))

    def flush(self) -> AudioChunk:
        """Return the remaining samples."""
        return self._give(self._resampler.flush())

    def _give(self, made: AudioChunk) -> AudioChunk:
        """The made samples that were not given before, after those made ahead on import."""
        ahead_T, self._ahead_T = self._ahead_T, np.zeros(0, np.float32)
        fresh_T = made.samples_T[max(0, self._next_out + len(ahead_T) - made.pts) :]
        samples_T = np.concatenate([ahead_T, fresh_T])
        start, self._next_out = self._next_out, self._next_out + len(samples_T)
        return _sound(samples_T, self.to_rate, start)

    def _remember(self, sound: AudioChunk) -> None:
        """Keep the last half second or more, from a sample where both clocks coincide."""
        keep = 0 if self.from_rate == self.to_rate else int(MEMORY_S * self.from_rate)
        samples_T = np.concatenate([self._recent.samples_T, sound.samples_T])
        start = self._recent.pts
        cut = max(0, sound.end_pts - keep - start) // self._period * self._period
        self._recent = _sound(samples_T[cut:], self.from_rate, start + cut)

    def export_state(self) -> SessionState:
        """The recent sound and how far the output got."""
        return SessionState(
            tensors={
                "recent_T": torch.from_numpy(self._recent.samples_T),
                "ahead_T": torch.from_numpy(self._ahead_T),
            },
            numbers={"recent_pts": self._recent.pts, "next_out": self._next_out},
        )

    def import_state(self, state: SessionState) -> None:
        """Go on from an export between the same rates."""
        self._resampler = StreamResampler(self.from_rate, self.to_rate)
        recent_T = state.tensors["recent_T"].numpy().copy()
        self._recent = _sound(recent_T, self.from_rate, state.numbers["recent_pts"])
        self._next_out = state.numbers["next_out"]
        self._ahead_T = state.tensors["ahead_T"].numpy().copy()
        made = self._resampler.push(self._recent)
        known = self._next_out + len(self._ahead_T) - made.pts
        self._ahead_T = np.concatenate([self._ahead_T, made.samples_T[max(0, known) :]])


def _sound(samples_T: npt.NDArray[np.float32], sample_rate: int, pts: int) -> AudioChunk:
    """A chunk of float32 samples."""
    return AudioChunk(samples_T=samples_T, sample_rate=sample_rate, pts=pts)
