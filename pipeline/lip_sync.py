"""Whether a mouth follows a voice: how closely, how late, and whether it moves at all.

Shape legend: T = video frames.
"""

from fractions import Fraction

import numpy as np
import numpy.typing as npt

from pipeline.curves import Curve, correlation, lagged_correlation

MAX_LAG_S = 0.48
CONTROL_SHIFT_S = 1.3  # the same curve this much late must not follow the voice
# A second of speech in which the opening (a share of the skin's brightness) varies less than this
# has a frozen mouth. Pocket renders: .006 to .039; the same behind a silent voice: under .002.
FROZEN = 0.003
VOICED_SHARE = 0.5
Figures = dict[str, float]


def sync_figures(opening_T: Curve, sound_T: Curve, fps: Fraction) -> Figures:
    """Return how a mouth's opening follows a curve of the sound, or of the true opening.

    `sync_lag_ms` is positive where the picture is late. Frames in which no face was seen, which
    are NaN, count as the mean.
    """
    opening_T = _finite(opening_T)
    lag_s, corr = precise_lag(opening_T, sound_T, fps)
    shifted_T = np.roll(opening_T, int(CONTROL_SHIFT_S * fps))
    return {
        "sync_corr": correlation(opening_T, sound_T),
        "sync_lag_ms": 1000.0 * lag_s,
        "sync_corr_at_lag": corr,
        "sync_shifted_corr": correlation(shifted_T, sound_T),
    }


def precise_lag(measured_T: Curve, truth_T: Curve, fps: Fraction) -> tuple[float, float]:
    """Return by how many seconds the measured curve is late, to a part of a frame, and how alike.

    The vertex of the parabola through the best whole lag and its neighbours.
    """
    reach = min(round(MAX_LAG_S * fps), len(measured_T) // 4)
    corrs = [lagged_correlation(measured_T, truth_T, lag) for lag in range(-reach, reach + 1)]
    best = int(np.argmax(corrs))
    lag = float(best - reach)
    if 0 < best < len(corrs) - 1:
        before, at, after = corrs[best - 1 : best + 2]
        curve = before - 2 * at + after
        lag += 0.5 * (before - after) / curve if curve < 0 else 0.0
    return lag / float(fps), corrs[best]


def frozen_seconds(
    opening_T: Curve, voiced_T: npt.NDArray[np.bool_], fps: Fraction
) -> npt.NDArray[np.bool_]:
    """Return of each second that is mostly voiced whether the mouth stands still in it."""
    length = max(2, round(fps))
    starts = range(0, len(opening_T) - length + 1, length)
    spoken = [s for s in starts if voiced_T[s : s + length].mean() >= VOICED_SHARE]
    seen = [opening_T[s : s + length] for s in spoken]
    moved = [
        float(second[np.isfinite(second)].std()) for second in seen if np.isfinite(second).any()
    ]
    return np.array(moved) < FROZEN


def _finite(curve_T: Curve) -> Curve:
    """The curve with its gaps at its mean."""
    seen = np.isfinite(curve_T)
    filled: Curve = np.where(seen, curve_T, curve_T[seen].mean() if seen.any() else 0.0)
    return filled
