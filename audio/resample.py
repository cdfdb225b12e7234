"""Changes the sample rate of a stream: any cut of the input gives the same output.

Length rule: N input samples make exactly round(N * to_rate / from_rate) samples (halves up).
Output sample k stands at the time k / to_rate after the first input sample (the filter's delay is
taken out), and the output's pts carries the input's: first_pts * to_rate / from_rate, rounded.

Shape legend: T = samples.
"""

import numpy as np
import numpy.typing as npt
import soxr

from audio.chunk import AudioChunk
from audio.encoder import ChunkClock


def resampled_length(num_samples: int, from_rate: int, to_rate: int) -> int:
    """Samples that a whole signal of `num_samples` makes at `to_rate`."""
    return (2 * num_samples * to_rate + from_rate) // (2 * from_rate)


class StreamResampler:
    """Resamples the chunks of a stream; equal rates pass through untouched.

    The band is limited by soxr's high-quality filter, so `push` lags by its delay (tens of
    milliseconds) and `flush` brings the rest. soxr's state cannot be exported: whoever resumes a
    stream elsewhere feeds it again from its start.
    """

    def __init__(self, from_rate: int, to_rate: int) -> None:
        """Start before the first sample; rates in hertz.

        Raises:
            ValueError: a rate is not positive.
        """
        if min(from_rate, to_rate) <= 0:
            raise ValueError(f"rates must be positive, got {from_rate} and {to_rate}")
        self.from_rate = from_rate
        self.to_rate = to_rate
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next chunk starts a stream."""
        self._clock = ChunkClock(self.from_rate)
        self._num_in = 0
        self._num_out = 0
        self._first_pts = 0
        self._soxr = (
            None
            if self.from_rate == self.to_rate
            else soxr.ResampleStream(self.from_rate, self.to_rate, 1, dtype="float32", quality="HQ")
        )

    def push(self, chunk: AudioChunk) -> AudioChunk:
        """Take the next chunk; return the samples that became computable (maybe none).

        Raises:
            AudioError: a sample is NaN or infinite.
            ValueError: another sample rate, or a gap in the stream.
        """
        self._clock.check(chunk)
        if self._num_in == 0:
            self._first_pts = resampled_length(chunk.pts, self.from_rate, self.to_rate)
        self._num_in += chunk.num_samples
        if self._soxr is None:
            return self._emit(chunk.samples_T)
        return self._emit(self._soxr.resample_chunk(chunk.samples_T))

    def flush(self) -> AudioChunk:
        """Return the remaining samples; the next push starts a stream."""
        if self._soxr is None:
            rest = self._emit(np.zeros(0, np.float32))
        else:
            total = resampled_length(self._num_in, self.from_rate, self.to_rate)
            missing = total - self._num_out
            tail_T = self._soxr.resample_chunk(np.zeros(0, np.float32), last=True)
            # Where a soxr rounds otherwise, the length rule holds all the same.
            rest = self._emit(np.pad(tail_T[:missing], (0, max(0, missing - len(tail_T)))))
        self.reset()
        return rest

    def _emit(self, samples_T: npt.NDArray[np.float32]) -> AudioChunk:
        """Give samples their place in the output stream."""
        pts = self._first_pts + self._num_out
        self._num_out += len(samples_T)
        return AudioChunk(samples_T=samples_T, sample_rate=self.to_rate, pts=pts)
