"""How loud the voice is at each video frame, and where it pauses.

The voiced band, 80 to 1000 Hz, holds the first formant, which rises as a mouth opens, and leaves
out the hiss of s and f, for which lips hardly part.

Shape legend: S = samples, T = video frames.
"""

from array import array
from collections.abc import Iterable
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from audio.chunk import AudioChunk

BAND_HZ = (80.0, 1000.0)
WINDOW_S = 0.06
LOUDNESS_EXPONENT = 0.3  # of power: Stevens' law
PAUSE_BELOW_DB = 25.0  # under the level that the loudest twentieth of frames exceeds
PAUSE_S = 0.2
FLOOR = 1e-10

Envelope = npt.NDArray[np.float64]


class _Band:
    """The instants of video frames in sound, and the voiced band's power around them."""

    def __init__(self, sample_rate: int, fps: Fraction) -> None:
        self._rate, self._fps = sample_rate, fps
        self.length = int(WINDOW_S * sample_rate)
        self._window = np.hanning(self.length)
        hertz = np.fft.rfftfreq(self.length, 1.0 / sample_rate)
        self._band = (hertz >= BAND_HZ[0]) & (hertz <= BAND_HZ[1])
        self._scale = 2.0 / (self.length * (self._window**2).sum())

    def first_sample(self, frame: int) -> int:
        """Index of the first sample of a frame's window, below 0 for the first frames."""
        return int(frame / self._fps * self._rate) - self.length // 2

    def power(self, piece_S: npt.NDArray[np.float64]) -> float:
        """Power of one window; 0 where the sound ended before it."""
        if len(piece_S) < self.length:
            return 0.0
        spectrum = np.abs(np.fft.rfft(piece_S * self._window)[self._band]) ** 2
        return float(spectrum.sum() * self._scale)


def band_power(
    samples_S: npt.NDArray[np.float32], sample_rate: int, fps: Fraction, num_frames: int
) -> Envelope:
    """Return mean power [T] of the voiced band around the instant of each video frame."""
    band = _Band(sample_rate, fps)
    padded = np.pad(samples_S.astype(np.float64), band.length)
    power = np.zeros(num_frames)
    for frame in range(num_frames):
        first = band.length + band.first_sample(frame)
        power[frame] = band.power(padded[first : first + band.length])
    return power


def streamed_band_power(sound: Iterable[AudioChunk], sample_rate: int, fps: Fraction) -> Envelope:
    """Return `band_power` of every video frame that begins in the sound, in constant memory."""
    band = _Band(sample_rate, fps)
    held, start, end = np.zeros(band.length), -band.length, 0
    power = array("d")

    def take(last: int) -> None:
        """Take the frames whose windows end before sample `last`."""
        while (first := band.first_sample(len(power))) + band.length <= last:
            power.append(band.power(held[first - start : first - start + band.length]))

    for chunk in sound:
        held, end = np.concatenate((held, chunk.samples_T)), end + chunk.num_samples
        take(end)
        kept = max(0, band.first_sample(len(power)) - start)
        held, start = held[kept:], start + kept
    held = np.concatenate((held, np.zeros(band.length)))
    while int(len(power) / fps * sample_rate) < end:
        take(band.first_sample(len(power)) + band.length)
    return np.frombuffer(power, np.float64)


def voiced_envelope(power_T: Envelope) -> Envelope:
    """Return loudness [T], about 1 where speech is loud, smoothed over three frames."""
    loud = (power_T + FLOOR) ** LOUDNESS_EXPONENT
    padded = np.pad(loud, 1, mode="edge")
    smooth: Envelope = 0.25 * padded[:-2] + 0.5 * padded[1:-1] + 0.25 * padded[2:]
    return smooth / float(np.percentile(smooth, 95))


def quiet_frames(power_T: Envelope) -> npt.NDArray[np.bool_]:
    """Return [T] where the voice is far below its own loud level."""
    level_db = 10.0 * np.log10(power_T + FLOOR)
    quiet: npt.NDArray[np.bool_] = level_db < np.percentile(level_db, 95) - PAUSE_BELOW_DB
    return quiet
