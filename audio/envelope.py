"""How loud the voice is at each video frame, and where it pauses.

The voiced band, 80 to 1000 Hz, holds the first formant, which rises as a mouth opens, and leaves
out the hiss of s and f, for which lips hardly part.

Shape legend: S = samples, T = video frames.
"""

from fractions import Fraction

import numpy as np
import numpy.typing as npt

BAND_HZ = (80.0, 1000.0)
WINDOW_S = 0.06
LOUDNESS_EXPONENT = 0.3  # of power: Stevens' law
PAUSE_BELOW_DB = 25.0  # under the level that the loudest twentieth of frames exceeds
PAUSE_S = 0.2
FLOOR = 1e-10

Envelope = npt.NDArray[np.float64]


def band_power(
    samples_S: npt.NDArray[np.float32], sample_rate: int, fps: Fraction, num_frames: int
) -> Envelope:
    """Return mean power [T] of the voiced band around the instant of each video frame."""
    length = int(WINDOW_S * sample_rate)
    window = np.hanning(length)
    hertz = np.fft.rfftfreq(length, 1.0 / sample_rate)
    band = (hertz >= BAND_HZ[0]) & (hertz <= BAND_HZ[1])
    padded = np.pad(samples_S.astype(np.float64), length)
    power = np.zeros(num_frames)
    for frame in range(num_frames):
        middle = length + int(frame / fps * sample_rate)
        piece = padded[middle - length // 2 : middle - length // 2 + length]
        if len(piece) == length:
            spectrum = np.abs(np.fft.rfft(piece * window)[band]) ** 2
            power[frame] = 2.0 * spectrum.sum() / (length * (window**2).sum())
    return power


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
