"""A resampled stream equals the resampled whole, sample for sample, and has the promised length."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from audio.chunk import AudioChunk
from audio.resample import StreamResampler, resampled_length
from tests.support.sound import noise, sine

pytestmark = pytest.mark.stream

RATES = [8_000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000, 96_000]


def resample(
    samples: np.ndarray, from_rate: int, to_rate: int, cuts: Sequence[int] = (), first_pts: int = 0
) -> tuple[int, np.ndarray]:
    """Feed the samples in pieces; return everything and check that the pts leave no gap."""
    resampler = StreamResampler(from_rate, to_rate)
    pieces, start = [], 0
    for size in [*cuts, len(samples)]:
        chunk = samples[start : start + size]
        pieces.append(
            resampler.push(
                AudioChunk(samples_T=chunk, sample_rate=from_rate, pts=first_pts + start)
            )
        )
        start += len(chunk)
    pieces.append(resampler.flush())
    for before, after in pairwise(pieces):
        assert after.pts == before.end_pts
    return pieces[0].pts, np.concatenate([p.samples_T for p in pieces])


@settings(max_examples=60, deadline=None)
@given(
    from_rate=st.sampled_from(RATES),
    to_rate=st.sampled_from([16_000, 24_000, 48_000]),
    num_samples=st.integers(0, 30_000),
    cuts=st.lists(st.integers(0, 5000), max_size=15),
)
def test_any_cut_equals_the_whole(
    from_rate: int, to_rate: int, num_samples: int, cuts: Sequence[int]
) -> None:
    samples = noise(num_samples)
    _, got = resample(samples, from_rate, to_rate, cuts)
    assert len(got) == resampled_length(num_samples, from_rate, to_rate)
    if from_rate == to_rate:
        assert np.array_equal(got, samples)
    elif num_samples:
        assert np.array_equal(got, soxr.resample(samples, from_rate, to_rate, quality="HQ"))


@given(st.integers(0, 10**9), st.sampled_from(RATES), st.sampled_from(RATES))
def test_length_is_the_nearest_integer(num_samples: int, from_rate: int, to_rate: int) -> None:
    error = resampled_length(num_samples, from_rate, to_rate) * from_rate - num_samples * to_rate
    assert -from_rate < 2 * error <= from_rate


@pytest.mark.parametrize("from_rate", RATES)
def test_a_tone_stays_in_place(from_rate: int) -> None:
    """No delay is left: the tone at 16 kHz is the tone made at 16 kHz."""
    _, got = resample(sine(from_rate, 1.0), from_rate, 16_000)
    want = sine(16_000, 1.0)
    assert len(got) == len(want)
    assert np.abs(got[2000:-2000] - want[2000:-2000]).max() < 1e-3


def test_pts_are_carried() -> None:
    first_pts, _ = resample(noise(44_100), 44_100, 16_000, first_pts=441_000)
    assert first_pts == 160_000


def test_flush_starts_a_stream() -> None:
    resampler = StreamResampler(48_000, 16_000)
    chunk = AudioChunk(samples_T=noise(4800), sample_rate=48_000, pts=0)
    first = np.concatenate([resampler.push(chunk).samples_T, resampler.flush().samples_T])
    second = np.concatenate([resampler.push(chunk).samples_T, resampler.flush().samples_T])
    assert np.array_equal(first, second)
    assert len(first) == 1600


def test_gaps_and_other_rates_are_refused() -> None:
    resampler = StreamResampler(48_000, 16_000)
    resampler.push(AudioChunk(samples_T=noise(100), sample_rate=48_000, pts=0))
    with pytest.raises(ValueError, match="starts at pts 120, the last one ended at 100"):
        resampler.push(AudioChunk(samples_T=noise(100), sample_rate=48_000, pts=120))
    with pytest.raises(ValueError, match="resample it"):
        resampler.push(AudioChunk(samples_T=noise(100), sample_rate=44_100, pts=100))
    with pytest.raises(ValueError, match="positive"):
        StreamResampler(0, 16_000)
