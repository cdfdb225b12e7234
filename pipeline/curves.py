"""Compares what was measured over time with what should be: correlation, lag, amplitude.

Shape legend: T = frames, K = curves.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Curve = npt.NDArray[np.float64]
TINY = 1e-9


def correlation(measured_T: Curve, truth_T: Curve) -> float:
    """Return Pearson's correlation; 0 where one of the curves does not move at all."""
    a, b = measured_T - measured_T.mean(), truth_T - truth_T.mean()
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / norm if norm > TINY else 0.0


def lagged_correlation(measured_T: Curve, truth_T: Curve, lag: int) -> float:
    """Return the correlation if the measured curve is `lag` frames late."""
    if lag == 0:
        return correlation(measured_T, truth_T)
    if lag > 0:
        return correlation(measured_T[lag:], truth_T[:-lag])
    return correlation(measured_T[:lag], truth_T[-lag:])


def best_lag(
    measured: Sequence[Curve], truth: Sequence[Curve], max_lag: int = 8
) -> tuple[int, float]:
    """Return the lag with the highest mean correlation over curves, and that correlation.

    Positive: what was measured comes late.
    """
    lags = sorted(range(-max_lag, max_lag + 1), key=abs)  # of equals the smallest shift counts
    means = [
        float(
            np.mean([lagged_correlation(m, t, lag) for m, t in zip(measured, truth, strict=True)])
        )
        for lag in lags
    ]
    best = int(np.argmax(means))
    return lags[best], means[best]


def amplitude_ratio(measured_T: Curve, truth_T: Curve) -> float:
    """Return the ratio of standard deviations."""
    return float(measured_T.std() / max(float(truth_T.std()), TINY))


def runs(mask_T: npt.NDArray[np.bool_], shortest: int) -> list[slice]:
    """Return the runs of True of at least `shortest` frames."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask_T, [False])).astype(np.int8)))
    pairs = edges.reshape(-1, 2)
    return [slice(int(a), int(b)) for a, b in pairs if b - a >= shortest]
