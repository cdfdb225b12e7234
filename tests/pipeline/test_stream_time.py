"""A stream's own time: late sound moves it, a slow chain does not."""

import pytest

from pipeline.stream_time import StreamTime

pytestmark = pytest.mark.unit


def live() -> StreamTime:
    return StreamTime(base_ns=0, chunk_ns=100, latency_ns=30, live=True)


def test_chunks_are_due_a_latency_after_their_sound() -> None:
    time = live()
    for chunk in range(5):
        time.feed(chunk, 100 * (chunk + 1), waits=False)
        assert time.deadline_ns(chunk) == 100 * (chunk + 1) + 30


def test_sound_that_comes_ahead_gains_nothing() -> None:
    time = live()
    for chunk in range(5):
        time.feed(chunk, 100, waits=False)
    assert time.deadline_ns(4) == 530


def test_sound_that_comes_late_moves_all_that_follows() -> None:
    time = live()
    time.feed(0, 100, waits=False)
    time.feed(1, 950, waits=False)
    assert [time.deadline_ns(chunk) for chunk in (1, 2)] == [980, 1080]


def test_a_chain_that_is_late_moves_nothing() -> None:
    time = live()
    time.feed(0, 100, waits=False)
    time.feed(1, 950, waits=True)
    time.feed(2, 960, waits=False)  # the caller could not come before
    assert time.deadline_ns(2) == 330
    time.feed(3, 990, waits=False)
    assert time.deadline_ns(3) == 1020


def test_a_render_has_no_deadlines_but_a_pace() -> None:
    time = StreamTime(base_ns=1000, chunk_ns=100)
    time.feed(3, 10**9, waits=False)
    assert time.deadline_ns(3) == 0
    assert time.due_ns(3) == 1400
