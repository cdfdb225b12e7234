"""Pictures and sound are paired by time, whole, in order, and without drift."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio.align import num_frames
from audio.chunk import AudioChunk
from pipeline.sync import AVSynchronizer
from video.chunk import VideoChunk

pytestmark = pytest.mark.unit

RATES = st.sampled_from([8000, 11025, 16000, 22050, 44100, 48000, 96000])
FPS = st.sampled_from(
    [Fraction(25), Fraction(30000, 1001), Fraction(1), Fraction(60), Fraction(7, 3)]
)


def sound(samples_T: np.ndarray, rate: int, pts: int = 0) -> AudioChunk:
    return AudioChunk(samples_T=samples_T.astype(np.float32), sample_rate=rate, pts=pts)


def pictures(first: int, count: int, fps: Fraction) -> VideoChunk:
    frames = np.arange(first, first + count, dtype=np.uint8).reshape(-1, 1, 1, 1)
    return VideoChunk(frames_THWC=frames, pts=first, time_base=1 / fps)


@given(
    rate=RATES,
    fps=FPS,
    num_samples=st.integers(1, 30000),
    per_chunk=st.integers(1, 20),
    cuts=st.lists(st.integers(1, 4000), min_size=1, max_size=5),
)
def test_all_sound_comes_out_once_with_the_pictures_of_its_time(
    rate: int, fps: Fraction, num_samples: int, per_chunk: int, cuts: list[int]
) -> None:
    sync = AVSynchronizer(rate, fps)
    samples_T = np.arange(num_samples)
    start, turn = 0, 0
    while start < num_samples:
        end = min(num_samples, start + cuts[turn % len(cuts)])
        sync.hear(sound(samples_T[start:end], rate))
        start, turn = end, turn + 1
    sync.finish()
    total = num_frames(num_samples, rate, fps)
    assert sync.total_frames == total
    made = [sync.pair(pictures(i, per_chunk, fps)) for i in range(0, total + per_chunk, per_chunk)]
    pairs = [pair for pair in made if pair is not None]
    assert sum(video.num_frames for video, _ in pairs) == total
    heard = np.concatenate([audio.samples_T for _, audio in pairs])
    assert np.array_equal(heard, samples_T.astype(np.float32))
    position = 0
    for video, audio in pairs:
        assert audio.pts == position
        position = audio.end_pts
        # The sound of a pair lies within one sample of the time of its pictures.
        assert abs(Fraction(audio.pts, rate) - video.pts / fps) < Fraction(1, rate)


def test_pictures_beyond_the_sound_are_dropped_only_once_the_end_is_known() -> None:
    sync = AVSynchronizer(100, Fraction(10))
    sync.hear(sound(np.zeros(15), 100))
    early = sync.pair(pictures(0, 4, Fraction(10)))
    assert early is not None
    assert early[0].num_frames == 4
    sync.finish()
    assert sync.pair(pictures(4, 4, Fraction(10))) is None


def test_no_drift_after_ten_hours_of_ntsc() -> None:
    fps = Fraction(30000, 1001)
    sync = AVSynchronizer(48000, fps)
    hours = num_frames(36000 * 48000, 48000, fps)
    assert hours == -(-36000 * 30000 // 1001)
    sync.hear(sound(np.zeros(48000), 48000))
    pair = sync.pair(pictures(0, 1, fps))
    assert pair is not None
    assert pair[1].num_samples == 1602  # ceil(1601.6)


@given(cut=st.integers(1, 99), frames=st.integers(1, 9))
def test_an_exported_synchronizer_goes_on_in_a_twin(cut: int, frames: int) -> None:
    fps = Fraction(10)
    samples_T = np.arange(100)
    runs = []
    for resume in (False, True):
        sync = AVSynchronizer(100, fps)
        sync.hear(sound(samples_T[:cut], 100))
        first = sync.pair(pictures(0, frames, fps))
        if resume:
            state = sync.export_state()
            sync = AVSynchronizer(100, fps)
            sync.import_state(state)
        sync.hear(sound(samples_T[cut:], 100))
        sync.finish()
        runs.append([first, sync.pair(pictures(frames, 12, fps))])
    for one, two in zip(*runs, strict=True):
        assert (one is None) == (two is None)
        if one is not None and two is not None:
            assert one[1].pts == two[1].pts
            assert np.array_equal(one[1].samples_T, two[1].samples_T)
