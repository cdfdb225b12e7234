"""Ticks on time: stalls are caught up or forgotten, nothing drifts, wall clocks do not matter."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.pacing import Pace, Pacing, pacing, samples_before, samples_of
from pipeline.sync import AVSynchronizer

pytestmark = pytest.mark.unit

MS = 1_000_000
FPS = [Fraction(25), Fraction(30), Fraction(30000, 1001), Fraction(16), Fraction(24000, 1001)]
fps_of = st.sampled_from(FPS)


def decide(tick: int, now_ms: float, fps: Fraction = Fraction(25)) -> Pacing:
    return pacing(Pace(fps=fps, anchor_ns=0), tick, round(now_ms * MS))


@pytest.mark.parametrize(
    ("tick", "now_ms", "wait_ms", "late_ms", "is_reanchored"),
    [
        (0, 0, 0, 0, False),
        (1, 0, 40, 0, False),
        (1, 39, 1, 0, False),
        (1, 40, 0, 0, False),
        (1, 41, 0, 1, False),
        (10, 650, 0, 250, False),
        (10, 899.999, 0, 499.999, False),
        (10, 900, 0, 500, True),
        (10, 3_600_400, 0, 3_600_000, True),
        (10, 0, 40, 0, False),
        (-1, 0, 0, 40, True),
    ],
)
def test_a_tick_is_waited_for_done_or_begins_anew(
    tick: int, now_ms: float, wait_ms: float, late_ms: float, is_reanchored: bool
) -> None:
    decision = decide(tick, now_ms)
    assert decision.wait_ns == wait_ms * MS
    assert decision.late_ns == round(late_ms * MS)
    assert decision.is_reanchored == is_reanchored


def test_a_stall_of_250_ms_is_caught_up_without_a_new_anchor() -> None:
    pace, now_ns, times_ms = Pace(fps=Fraction(25), anchor_ns=0), 0, []
    for tick in range(30):
        now_ns += 250 * MS if tick == 10 else 0
        while (decision := pacing(pace, tick, now_ns)).wait_ns:
            now_ns += decision.wait_ns
        assert not decision.is_reanchored
        times_ms.append(now_ns / MS)
    assert times_ms[9:18] == [360, 610, 610, 610, 610, 610, 610, 640, 680]


def test_after_a_long_stall_the_stream_goes_on_from_now_at_its_own_rate() -> None:
    decision = decide(10, 1400)
    assert decision.pace.due_ns(10) == 1400 * MS
    assert decision.pace.due_ns(11) == 1440 * MS


def test_a_tick_before_the_anchor_begins_anew() -> None:
    pace = Pace(fps=Fraction(25), anchor_ns=0, anchor_tick=100)
    decision = pacing(pace, 3, 7 * MS)
    assert decision.is_reanchored
    assert decision.pace.due_ns(3) == 7 * MS


@given(fps=fps_of, tick=st.integers(-(10**6), 10**7), now_ns=st.integers(-(10**15), 10**15))
def test_no_wait_is_longer_than_a_frame_and_what_is_due_is_due_by_the_pace(
    fps: Fraction, tick: int, now_ns: int
) -> None:
    decision = pacing(Pace(fps=fps, anchor_ns=0), tick, now_ns)
    assert 0 <= decision.wait_ns <= decision.pace.frame_ns
    if decision.wait_ns == 0:
        assert 0 <= now_ns - decision.pace.due_ns(tick) < 500 * MS
    if decision.is_reanchored:
        assert decision.pace.due_ns(tick) == now_ns


@given(
    fps=fps_of,
    stalls_ms=st.dictionaries(st.integers(0, 99), st.integers(0, 2000), max_size=6),
    start_ns=st.integers(0, 10**15),
)
def test_whatever_stalls_ticks_come_in_order_and_none_early(
    fps: Fraction, stalls_ms: dict[int, int], start_ns: int
) -> None:
    pace, now_ns = Pace(fps=fps, anchor_ns=start_ns), start_ns
    for tick in range(100):
        now_ns += stalls_ms.get(tick, 0) * MS
        while (decision := pacing(pace, tick, now_ns)).wait_ns:
            now_ns += decision.wait_ns
        pace = decision.pace
        assert now_ns >= start_ns + tick * 10**9 / fps - 1
        assert now_ns - pace.due_ns(tick) < 500 * MS


@pytest.mark.parametrize("fps", [Fraction(25), Fraction(30000, 1001)])
def test_24_hours_of_ticks_do_not_drift(fps: Fraction) -> None:
    """Sound and picture agree exactly, and so does the clock; 24 ticks a look."""
    pace, rate, num_ticks = Pace(fps=fps, anchor_ns=5), 48_000, int(24 * 3600 * fps) // 24 * 24
    sample, now_ns = 0, 5
    for tick in range(0, num_ticks, 24):
        now_ns = max(now_ns, pace.due_ns(tick) - 7_000_000)
        now_ns += pacing(pace, tick, now_ns).wait_ns
        assert now_ns == pace.due_ns(tick)
        assert sample == samples_before(tick, rate, fps)
        sample += samples_before(tick + 24, rate, fps) - samples_before(tick, rate, fps)
    assert 0 <= sample - Fraction(num_ticks * rate) / fps < 1
    assert 0 <= Fraction(num_ticks * 10**9) / fps - (pace.due_ns(num_ticks) - 5) < 1


@given(
    fps=fps_of, rate=st.sampled_from([16_000, 24_000, 44_100, 48_000]), frame=st.integers(0, 10**7)
)
def test_samples_follow_the_rule_of_the_synchronizer(fps: Fraction, rate: int, frame: int) -> None:
    assert samples_before(frame, rate, fps) == AVSynchronizer(rate, fps)._first_sample(frame)
    assert samples_of(frame, rate, fps) - rate / fps < 1


@pytest.mark.parametrize("jump_s", [3600, -3600])
def test_the_wall_clock_does_not_matter(monkeypatch: pytest.MonkeyPatch, jump_s: int) -> None:
    import time

    before = [decide(tick, 4 * tick) for tick in range(50)]
    wall = time.time
    monkeypatch.setattr(time, "time", lambda: wall() + jump_s)
    assert [decide(tick, 4 * tick) for tick in range(50)] == before


@pytest.mark.parametrize(("name", "value"), [("fps", Fraction(0)), ("reanchor_after_ms", 0)])
def test_contradictions_are_refused(name: str, value: object) -> None:
    settings: dict[str, object] = {"fps": Fraction(25), "anchor_ns": 0, name: value}
    with pytest.raises(ValueError, match=name):
        Pace(**settings)  # type: ignore[arg-type]  # one of them is wrong on purpose
