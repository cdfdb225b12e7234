"""A mouth that follows, lags, or stands still is told apart by figures."""

from fractions import Fraction

import numpy as np
import pytest

from pipeline.lip_sync import frozen_seconds, precise_lag, sync_figures

pytestmark = pytest.mark.unit
FPS = Fraction(25)


def _voice(seconds: float, late_s: float = 0.0) -> np.ndarray:
    """Syllables of changing length."""
    t = np.arange(round(seconds * FPS)) / float(FPS) - late_s
    wave: np.ndarray = np.sin(2 * np.pi * 3.1 * t) * np.cos(2 * np.pi * 0.7 * t) + np.sin(5.3 * t)
    return wave


@pytest.mark.parametrize("late_s", [0.0, 0.12, 0.05, -0.09, -0.3])
def test_a_lag_is_found_to_a_part_of_a_frame(late_s: float) -> None:
    lag_s, corr = precise_lag(_voice(10, late_s), _voice(10), FPS)
    assert lag_s == pytest.approx(late_s, abs=0.005)
    assert corr > 0.95


def test_other_frame_rates_give_the_same_milliseconds() -> None:
    fps = Fraction(30000, 1001)
    t = np.arange(300) / float(fps)
    lag_s, _ = precise_lag(
        np.sin(7 * (t - 0.1)) + np.sin(11 * (t - 0.1)), np.sin(7 * t) + np.sin(11 * t), fps
    )
    assert lag_s == pytest.approx(0.1, abs=0.005)


def test_gaps_do_not_spoil_the_figures() -> None:
    opening = _voice(10, 0.12)
    opening[50:60] = np.nan
    figures = sync_figures(opening, _voice(10), FPS)
    assert figures["sync_lag_ms"] == pytest.approx(120, abs=10)
    assert figures["sync_corr_at_lag"] > 0.9
    assert sync_figures(np.full(250, np.nan), _voice(10), FPS)["sync_corr"] == 0.0


def test_a_frozen_mouth_counts_only_while_someone_speaks() -> None:
    opening = 0.05 + 0.02 * _voice(6)
    opening[50:125] = 0.05  # seconds 2, 3 and 4
    voiced = np.ones(150, np.bool_)
    voiced[75:100] = False  # second 3 is a pause
    assert frozen_seconds(opening, voiced, FPS).tolist() == [False, False, True, True, False]
    assert not len(frozen_seconds(opening, np.zeros(150, np.bool_), FPS))
