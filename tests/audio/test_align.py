"""Features meet video frames exactly, at any rate and after any time."""

from fractions import Fraction
from math import ceil, floor

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from audio.align import Aligner, feature_index, num_frames
from audio.encoder import AudioFeatures

pytestmark = pytest.mark.unit

FPS = [Fraction(25), Fraction(30), Fraction(24), Fraction(30_000, 1001), Fraction(24_000, 1001),
       Fraction(50), Fraction(15), Fraction(7, 2), Fraction(120)]  # fmt: skip
rates = st.sampled_from([Fraction(100), Fraction(50), Fraction(30), Fraction(16_000, 160)])
fps_values = st.one_of(
    st.sampled_from(FPS), st.fractions(Fraction(1), Fraction(240), max_denominator=1001)
)


def numbered(start: int, count: int, rate: Fraction) -> AudioFeatures:
    """Features whose value is their index."""
    values = torch.arange(start, start + count, dtype=torch.float64).expand(2, 3, count)
    return AudioFeatures(values_LCT=values, rate=rate, start=start)


@given(st.integers(0, 10**7), rates, fps_values)
def test_index_is_the_nearest_feature(frame: int, rate: Fraction, fps: Fraction) -> None:
    assert feature_index(frame, rate, fps) == floor(frame * rate / fps + Fraction(1, 2))


@given(st.integers(0, 10**10), st.sampled_from([8000, 16_000, 44_100, 48_000]), fps_values)
def test_frames_cover_the_sound_and_no_more(
    num_samples: int, sample_rate: int, fps: Fraction
) -> None:
    frames = num_frames(num_samples, sample_rate, fps)
    assert frames == ceil(Fraction(num_samples, sample_rate) * fps)
    assert frames / fps >= Fraction(num_samples, sample_rate)
    assert frames == 0 or (frames - 1) / fps < Fraction(num_samples, sample_rate)


@given(
    rate=rates,
    fps=fps_values,
    sizes=st.lists(st.integers(0, 60), max_size=12),
    extra=st.integers(0, 9),
)
def test_any_cut_gives_each_frame_its_nearest_feature(
    rate: Fraction, fps: Fraction, sizes: list[int], extra: int
) -> None:
    aligner, pieces, start = Aligner(rate, fps), [], 0
    for size in sizes:
        pieces.append(aligner.push(numbered(start, size, rate)))
        start += size
    if start == 0:
        return
    ready = sum(p.num_frames for p in pieces)
    # A frame comes as soon as its feature is in, not later.
    assert feature_index(ready, rate, fps) >= start
    total = ready + extra
    pieces.append(aligner.flush(total))
    assert [p.start for p in pieces] == [sum(p.num_frames for p in pieces[:i])
                                         for i in range(len(pieces))]  # fmt: skip
    assert all(p.rate == fps for p in pieces)
    got = torch.cat([p.values_LCT for p in pieces], dim=-1)
    want = [min(floor(j * rate / fps + Fraction(1, 2)), start - 1) for j in range(total)]
    assert got[1, 2].tolist() == want


def test_no_drift_after_a_day() -> None:
    """At 30000/1001 fps, frame 2589410 begins after 24 hours and 0.3 ms, not a frame apart."""
    fps, rate = Fraction(30_000, 1001), Fraction(100)
    frame = num_frames(24 * 3600 * 16_000, 16_000, fps)
    assert abs(feature_index(frame, rate, fps) - 24 * 3600 * 100) <= 4


def test_holds_only_what_is_needed() -> None:
    aligner = Aligner(Fraction(100), Fraction(25))
    for i in range(100):
        aligner.push(numbered(48 * i, 48, Fraction(100)))
    assert aligner.export_state()["kept_LCT"].shape[-1] <= 5


def test_state_moves_to_another_aligner() -> None:
    first, second = Aligner(100, 30), Aligner(100, 30)
    second.import_state(first.export_state())  # before the first feature
    first = second
    head = first.push(numbered(0, 41, Fraction(100)))
    second = Aligner(100, 30)
    second.import_state(first.export_state())
    rest = [second.push(numbered(41, 59, Fraction(100))), second.flush(30)]
    got = torch.cat([p.values_LCT for p in (head, *rest)], dim=-1)[0, 0].tolist()
    assert got == [floor(Fraction(j * 100, 30) + Fraction(1, 2)) for j in range(30)]


def test_flush_starts_a_stream_and_asks_for_features() -> None:
    aligner = Aligner(100, 25)
    assert aligner.flush(0).num_frames == 0
    with pytest.raises(ValueError, match="no features came for 3 frames"):
        aligner.flush(3)
    aligner.push(numbered(0, 10, Fraction(100)))
    assert aligner.flush(4).num_frames == 1  # three came with the push
    assert aligner.push(numbered(0, 10, Fraction(100))).start == 0


def test_out_of_order_and_other_rates_are_refused() -> None:
    aligner = Aligner(100, 25)
    with pytest.raises(ValueError, match="start at 5, expected 0"):
        aligner.push(numbered(5, 3, Fraction(100)))
    with pytest.raises(ValueError, match="rate 50, expected 100"):
        aligner.push(numbered(0, 3, Fraction(50)))
    with pytest.raises(ValueError, match="fps must be positive"):
        Aligner(100, 0)
    with pytest.raises(ValueError, match="at least 0"):
        num_frames(-1, 16_000, Fraction(25))
