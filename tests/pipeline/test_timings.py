"""Figures of chains whose times are known: shares, rates and efficiency come out exactly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.clocks import Clocks
from pipeline.spans import Record, Span
from pipeline.timings import idle_ns, overlap_ns, timings, union
from tests.support.made_records import MS, pipelined, sending, span

pytestmark = pytest.mark.unit


def test_a_chain_is_as_fast_as_its_slowest_stage() -> None:
    found = timings(("s0", "s1", "s2"), pipelined(50, (10, 40, 20)))
    assert found.chunks_per_s == pytest.approx(25.0)
    assert found.slowest_ms == pytest.approx(40.0)
    assert found.efficiency == pytest.approx(1.0)
    assert [stage.compute_ms for stage in found.stages] == pytest.approx([10, 40, 20])
    assert [stage.transfer_ms for stage in found.stages] == pytest.approx([1, 1, 1])
    assert found.num_chunks == 50


def test_bubbles_are_what_a_stage_waits_while_chunks_are_under_way() -> None:
    found = timings(("s0", "s1"), pipelined(100, (10, 40)))
    total_ms = 1 + 10 + 1 + 100 * 40 + 1
    assert found.stages[0].bubble == pytest.approx(1 - 1000 / total_ms)
    assert found.stages[1].bubble == pytest.approx(1 - 4000 / total_ms)
    assert found.stages[0].busy + found.stages[0].bubble == pytest.approx(1.0)


def test_who_waits_for_whom_can_be_told() -> None:
    """Before a slow stage chunks wait; the stage after it waits for chunks."""
    found = timings(("s0", "s1", "s2"), pipelined(50, (10, 40, 20)))
    _, slow, after = found.stages
    assert slow.queue_ms > 100
    assert slow.idle_ms == pytest.approx(0.0)
    assert after.queue_ms == pytest.approx(0.0)
    assert after.idle_ms == pytest.approx(20 * 49 / 50)


def test_a_pause_between_chunks_is_no_bubble() -> None:
    records = [span("s0", 0, 0, 0, 10), span("s0", 1, 1000, 1000, 1010)]
    (stage,) = timings(("s0",), records).stages
    assert stage.bubble == pytest.approx(0.0)
    assert stage.idle_ms == pytest.approx(990 / 2)


def test_chunks_that_are_worked_on_at_once_share_the_time() -> None:
    records = [span("s0", chunk, 0, 0, 30) for chunk in range(3)]
    (stage,) = timings(("s0",), records).stages
    assert stage.compute_ms == pytest.approx(10.0)


def test_nothing_is_told_of_nothing() -> None:
    found = timings(("s0", "s1"), [])
    assert (found.chunks_per_s, found.efficiency, found.latency_ms) == (None, None, None)
    assert [stage.num_chunks for stage in found.stages] == [0, 0]
    assert timings((), []).stages == ()


def test_what_was_sent_again_after_a_fault_has_no_transfer_time() -> None:
    records: list[Record] = [sending("s0", 0, 500, 501), span("s1", 0, 3, 3, 5)]
    assert timings(("s0", "s1"), records).stages[0].transfer_ms is None


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=12))
def test_union_and_overlap_count_every_moment_once(pairs: list[tuple[int, int]]) -> None:
    intervals = [(begin, begin + length) for begin, length in pairs]
    moments = {t for begin, end in intervals for t in range(begin, end)}
    merged = union(intervals)
    assert sum(end - begin for begin, end in merged) == len(moments)
    window = [(10, 25), (30, 31), (40, 70)]
    inside = {t for begin, end in window for t in range(begin, end)}
    assert overlap_ns(merged, window) == overlap_ns(window, merged) == len(moments & inside)


def test_idle_time_never_counts_work_that_was_there() -> None:
    late = span("s0", 1, 2, 30, 40)  # arrived while the stage was at something else
    assert idle_ns([span("s0", 0, 0, 0, 10), late]) == 0


def test_times_of_another_machine_are_brought_here() -> None:
    """The quickest answer decides; the driver's own records stay as they are."""
    clocks = Clocks("here")
    ahead = 7_000 * MS
    for there_after, heard in ((1, 50), (2, 4), (30, 31)):
        there_ns = there_after * MS + ahead
        clocks.answered("there", asked_ns=0, there_ns=there_ns, heard_ns=heard * MS)
    clocks.answered("here", asked_ns=0, there_ns=ahead, heard_ns=1)
    assert clocks.ahead_ns("there") == ahead
    assert clocks.ahead_ns("here") == clocks.ahead_ns("elsewhere") == 0
    record = span("s0", 0, 7001, 7002, 7003)
    assert clocks.here(record, "there") == Span(
        stage="s0",
        session="a",
        epoch=1,
        chunk=0,
        arrived_ns=MS,
        began_ns=2 * MS,
        ended_ns=3 * MS,
        due_ns=7003 * MS,
    )
    assert clocks.here(record, "here") is record
