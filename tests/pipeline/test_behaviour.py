"""Blinks and glances: at a human rate, the same however they are asked for."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.behaviour import BEHAVIOUR_CHANNELS, behaviour, glances, lids

pytestmark = pytest.mark.unit

FPS = Fraction(25)
MINUTE = 60 * 25


def count_blinks(closed_T: np.ndarray) -> int:
    """Times the lids go from open to shut."""
    return int(np.sum((closed_T[1:] > 0.9) & (closed_T[:-1] <= 0.9)))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**63 - 1), start=st.integers(0, 2_000), cut=st.integers(1, 47))
def test_any_cut_draws_the_same(seed: int, start: int, cut: int) -> None:
    whole = behaviour(seed, start, 48, FPS)
    parts = [behaviour(seed, start, cut, FPS), behaviour(seed, start + cut, 48 - cut, FPS)]
    assert torch.equal(torch.cat(parts, dim=1), whole)
    assert whole.shape == (BEHAVIOUR_CHANNELS, 48)
    assert whole.dtype == torch.float32


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("fps", [Fraction(25), Fraction(30000, 1001)])
def test_people_blink_8_to_25_times_a_minute(seed: int, fps: Fraction) -> None:
    time_s = np.arange(10 * MINUTE) / float(fps)
    rate = count_blinks(lids(seed, time_s)) / (time_s[-1] / 60)
    assert 8 <= rate <= 25


def test_every_blink_shuts_the_lids_and_opens_them_again() -> None:
    closed_T = lids(3, np.arange(10 * MINUTE) / 25)
    starts = np.flatnonzero((closed_T[1:] > 0) & (closed_T[:-1] == 0))
    peaks = [closed_T[s : s + 14].max() for s in starts if s + 14 < len(closed_T)]
    assert len(peaks) > 100
    assert min(peaks) == 1.0
    assert np.mean(closed_T > 0.5) < 0.12


def test_eyes_rest_on_the_camera_and_leave_it() -> None:
    looked_2T = glances(1, np.arange(10 * MINUTE) / 25)
    away_T = np.hypot(*looked_2T)
    assert 0.3 < np.mean(away_T < 0.025) < 0.8
    assert 0.1 < away_T.max() < 0.5
    still = np.abs(np.diff(looked_2T, axis=1)).max(axis=0) == 0
    assert np.mean(still) > 0.85


def test_other_seeds_do_other_things() -> None:
    assert not torch.equal(behaviour(1, 0, 250, FPS), behaviour(2, 0, 250, FPS))


def test_no_frames_are_no_frames() -> None:
    assert behaviour(0, 10, 0, FPS).shape == (BEHAVIOUR_CHANNELS, 0)
