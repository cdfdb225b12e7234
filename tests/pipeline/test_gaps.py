"""Gaps: a fault that delays pictures is told once when it shows and once when it is over."""

from dataclasses import replace

import pytest

from pipeline.chain_events import Gap, NodeLost, Replacement
from pipeline.gaps import Gaps
from pipeline.incidents import MAX_EVENTS, Incidents

pytestmark = pytest.mark.unit

MS = 1_000_000
CHUNK_NS = 480 * MS
TOLERANCE_NS = 40 * MS


def watched(*sessions: str) -> Gaps:
    gaps = Gaps()
    for session in sessions:
        gaps.open(session, TOLERANCE_NS)
    return gaps


def due(chunk: int) -> int:
    return (chunk + 1) * CHUNK_NS


def play(gaps: Gaps, session: str, chunk: int, late_ms: int) -> list[Gap]:
    gaps.submitted(session, chunk, due(chunk))
    return gaps.came_out(session, chunk, due(chunk) + late_ms * MS)


def test_a_fault_that_nobody_feels_is_no_gap() -> None:
    gaps = watched("a")
    assert not play(gaps, "a", 0, -200)
    gaps.lost("stage 1 died")
    assert not play(gaps, "a", 1, -10)
    assert not gaps.overdue(due(1))
    assert not gaps.healed()
    assert not play(gaps, "a", 2, 5000)  # slow, and no fault to blame


def test_a_delay_is_told_when_it_shows_and_when_it_is_over() -> None:
    gaps = watched("a", "idle")
    play(gaps, "a", 0, 0)
    for chunk in (1, 2):
        gaps.submitted("a", chunk, due(chunk))
    gaps.lost("stage 1 died")
    assert not gaps.overdue(due(1) + TOLERANCE_NS)
    begun = gaps.overdue(due(1) + 90 * MS)
    assert begun == [
        Gap(
            session="a",
            first_chunk=1,
            last_chunk=2,
            cause="stage 1 died",
            late_s=0.09,
            is_over=False,
        )
    ]
    assert not gaps.overdue(due(1) + 200 * MS)  # told once
    assert not gaps.healed()
    assert not gaps.came_out("a", 1, due(1) + 700 * MS)
    over = gaps.came_out("a", 2, due(2) + 300 * MS)
    assert over == [
        Gap(
            session="a", first_chunk=1, last_chunk=2, cause="stage 1 died", late_s=0.7, is_over=True
        )
    ]
    assert not play(gaps, "a", 3, 300)


def test_only_what_the_fault_adds_counts() -> None:
    gaps = watched("live")
    play(gaps, "live", 0, 300)
    gaps.lost("stage 0 hung")
    assert not play(gaps, "live", 1, 330)
    (begun,) = play(gaps, "live", 2, 800)
    assert (begun.first_chunk, begun.late_s, begun.is_over) == (2, 0.5, False)
    (over,) = gaps.healed()
    assert (over.first_chunk, over.last_chunk, over.late_s, over.is_over) == (2, 2, 0.5, True)


def test_a_second_fault_goes_on_with_the_same_gap() -> None:
    gaps = watched("a")
    for chunk in (0, 1):
        gaps.submitted("a", chunk, due(chunk))
    gaps.lost("stage 0 died")
    assert len(gaps.overdue(due(0) + 100 * MS)) == 1
    gaps.healed()
    gaps.lost("stage 1 died")
    assert not gaps.came_out("a", 1, due(1) + 200 * MS)
    (over,) = gaps.healed()
    assert (over.cause, over.first_chunk, over.last_chunk) == ("stage 0 died", 0, 1)


def test_a_session_opened_during_a_fault_suffers_from_it() -> None:
    gaps = watched()
    gaps.lost("stage 2 died")
    gaps.open("late", TOLERANCE_NS)
    gaps.submitted("late", 0, due(0))
    (begun,) = gaps.overdue(due(0) + 100 * MS)
    assert begun.cause == "stage 2 died"
    gaps.close("late")
    assert not gaps.overdue(due(9))
    assert not gaps.came_out("late", 0, due(9))


def test_a_chain_tells_its_faults_and_their_gaps_in_order() -> None:
    incidents = Incidents()
    incidents.open("a", TOLERANCE_NS)
    incidents.submitted("a", 0, due(0))
    lost = NodeLost(position=1, name="1-step1", reason="died")
    healed = Replacement(position=1, reason="died", healed_s=0.5)
    incidents.note(lost)
    incidents.look(due(0) + 60 * MS)
    incidents.note(healed)
    incidents.came_out("a", 0, due(0) + 500 * MS)
    told = incidents.taken()
    assert [told[0], told[2]] == [lost, healed]
    begun, over = told[1], told[3]
    assert isinstance(begun, Gap)
    assert (begun.cause, begun.late_s, begun.is_over) == ("stage 1-step1 died", 0.06, False)
    assert over == replace(begun, last_chunk=0, late_s=0.5, is_over=True)
    assert not incidents.taken()


def test_what_nobody_asks_for_is_forgotten() -> None:
    incidents = Incidents()
    events = [NodeLost(position=i, name="n", reason="died") for i in range(MAX_EVENTS + 5)]
    for event in events:
        incidents.note(event)
    assert incidents.taken() == events[5:]
