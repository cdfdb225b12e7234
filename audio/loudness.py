"""How loud a long sound is, in constant memory: ITU-R BS.1770-4, gated, with pyloudnorm's filters.

Shape legend: T = samples, B = blocks.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from audio.errors import AudioError

BLOCK_S, STEP_S = 0.4, 0.1
ABSOLUTE_GATE_LUFS, RELATIVE_GATE_LU = -70.0, -10.0
_OFFSET_DB = -0.691
# No sample goes beyond this after a gain, in dB of full scale.
CEILING_DB = -1.0


class LoudnessMeter:
    """Measures mono sound as it comes; keeps one number for each tenth of a second."""

    def __init__(self, sample_rate: int) -> None:
        """Start in silence.

        Raises:
            AudioError: the package that holds the filters is not installed.
        """
        try:
            from pyloudnorm import Meter
            from scipy.signal import lfilter
        except ImportError as error:
            raise AudioError(
                f"loudness needs the package {error.name}: pip install 'viva-voce[jobs]'"
            ) from error
        self._filters = list(Meter(sample_rate)._filters.values())
        self._lfilter: Any = lfilter
        self._memory = [np.zeros(max(len(f.a), len(f.b)) - 1) for f in self._filters]
        self._step = round(STEP_S * sample_rate)
        self._rest_T: npt.NDArray[np.float64] = np.zeros(0)
        self._energies: list[float] = []
        self.peak = 0.0

    def push(self, samples_T: npt.NDArray[np.float32]) -> None:
        """Hear the next sound."""
        if len(samples_T) == 0:
            return
        self.peak = max(self.peak, float(np.abs(samples_T).max()))
        heard_T = samples_T.astype(np.float64)
        for index, stage in enumerate(self._filters):
            heard_T, self._memory[index] = self._lfilter(
                stage.b, stage.a, heard_T, zi=self._memory[index]
            )
            heard_T = heard_T * stage.passband_gain
        heard_T = np.concatenate([self._rest_T, heard_T])
        whole = len(heard_T) // self._step * self._step
        steps = heard_T[:whole].reshape(-1, self._step)
        self._energies += (steps**2).sum(axis=1).tolist()
        self._rest_T = heard_T[whole:]

    def loudness_lufs(self) -> float:
        """The integrated loudness so far; minus infinity for silence or less than 0.4 s."""
        per_block = round(BLOCK_S / STEP_S)
        energies = np.array(self._energies)
        if len(energies) < per_block:
            return -math.inf
        power_B = np.convolve(energies, np.ones(per_block), "valid") / (per_block * self._step)
        level_B = _OFFSET_DB + 10 * np.log10(np.maximum(power_B, 1e-30))
        loud_B = level_B >= ABSOLUTE_GATE_LUFS
        if not loud_B.any():
            return -math.inf
        gate = _OFFSET_DB + 10 * math.log10(power_B[loud_B].mean()) + RELATIVE_GATE_LU
        kept_B = loud_B & (level_B > gate)
        return _OFFSET_DB + 10 * math.log10(power_B[kept_B].mean())


def measure(sound: Iterable[npt.NDArray[np.float32]], sample_rate: int) -> LoudnessMeter:
    """A meter that has heard all of a sound."""
    meter = LoudnessMeter(sample_rate)
    for samples_T in sound:
        meter.push(samples_T)
    return meter


def gain_to(target_lufs: float, meter: LoudnessMeter) -> float:
    """The factor that brings a sound to a loudness, or as near as the ceiling lets; else 1."""
    loudness = meter.loudness_lufs()
    if not math.isfinite(loudness) or meter.peak == 0.0:
        return 1.0
    wanted = 10.0 ** ((target_lufs - loudness) / 20)
    return float(min(wanted, 10.0 ** (CEILING_DB / 20) / meter.peak))
