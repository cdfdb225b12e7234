"""The streaming meter reads what pyloudnorm reads of the whole."""

import numpy as np
import pytest
from pyloudnorm import Meter

from audio.loudness import LoudnessMeter, gain_to, measure

pytestmark = pytest.mark.unit


def speech(rate: int) -> np.ndarray:
    time_T = np.arange(6 * rate) / rate
    loud = (np.sin(2 * time_T) > 0) * 0.2 + 0.001
    return (loud * np.random.default_rng(0).standard_normal(len(time_T))).astype(np.float32)


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_it_reads_the_same_as_the_whole_however_the_sound_is_cut(rate: int) -> None:
    samples_T = speech(rate)
    whole = Meter(rate).integrated_loudness(samples_T.astype(np.float64))
    for size in (997, rate, len(samples_T)):
        pieces = (samples_T[at : at + size] for at in range(0, len(samples_T), size))
        assert measure(pieces, rate).loudness_lufs() == pytest.approx(whole, abs=0.05)


def test_the_gain_brings_a_sound_there_but_never_over_the_ceiling() -> None:
    samples_T = speech(48_000)
    gain = gain_to(-30.0, measure([samples_T], 48_000))
    again = measure([samples_T * np.float32(gain)], 48_000)
    assert again.loudness_lufs() == pytest.approx(-30.0, abs=0.05)
    loud = gain_to(-5.0, measure([samples_T], 48_000))
    assert np.abs(samples_T * loud).max() <= 10 ** (-1 / 20) + 1e-6


@pytest.mark.parametrize("samples_T", [np.zeros(48_000, np.float32), np.ones(10, np.float32)])
def test_silence_and_clicks_are_left_as_they_are(samples_T: np.ndarray) -> None:
    meter = LoudnessMeter(48_000)
    meter.push(samples_T)
    assert gain_to(-16.0, meter) == 1.0
