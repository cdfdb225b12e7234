"""Curve comparisons: each must see the fault it is there for."""

import numpy as np
import pytest

from pipeline.curves import amplitude_ratio, best_lag, correlation, runs

pytestmark = pytest.mark.unit


def _mouth(seed: int, length: int = 200) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(length + 8)
    return np.convolve(noise, np.hanning(9), mode="valid")


@pytest.mark.parametrize("late", [-3, 0, 1, 4])
def test_a_shifted_curve_shows_its_lag(late: int) -> None:
    truth = [_mouth(seed) for seed in range(4)]
    measured = [np.roll(curve, late) for curve in truth]
    lag, corr = best_lag(measured, truth)
    assert lag == late
    assert corr > 0.99


def test_unrelated_curves_do_not_correlate() -> None:
    pairs = [correlation(_mouth(seed), _mouth(seed + 100)) for seed in range(20)]
    assert abs(float(np.mean(pairs))) < 0.1


def test_a_frozen_mouth_correlates_with_nothing() -> None:
    assert correlation(np.full(50, 3.0), _mouth(1, 50)) == 0.0
    assert amplitude_ratio(np.full(50, 3.0), _mouth(1, 50)) == 0.0


def test_amplitude_is_a_ratio_of_spreads() -> None:
    assert amplitude_ratio(0.5 * _mouth(1) + 7, _mouth(1)) == pytest.approx(0.5)


def test_runs_of_at_least_so_many_frames() -> None:
    mask = np.array([1, 1, 0, 1, 0, 1, 1, 1], np.bool_)
    assert runs(mask, 2) == [slice(0, 2), slice(5, 8)]
    assert runs(mask, 4) == []
    assert runs(~mask, 1) == [slice(2, 3), slice(4, 5)]
