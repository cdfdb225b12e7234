"""Who is next: every deadline that any order keeps is kept, nobody starves, batches must pay."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.deadline_queue import (
    NO_TURNS,
    ReadyChunk,
    batch_ms,
    deadline_ms,
    in_order,
    next_batch,
)
from pipeline.step_cost import BatchProfile

pytestmark = pytest.mark.unit

ALONE = BatchProfile()
QUICK = BatchProfile(ratios=(1.0, 1.3, 1.6, 1.9))


def chunk(session: str, number: int, deadline: float, service: float = 10.0) -> ReadyChunk:
    return ReadyChunk(session=session, chunk=number, deadline_ms=deadline, service_ms=service)


def run_all(
    ready: list[ReadyChunk], profile: BatchProfile, max_batch: int
) -> dict[ReadyChunk, float]:
    """When each chunk is done if the queue decides."""
    now_ms, turns, done = 0.0, NO_TURNS, dict[ReadyChunk, float]()
    while ready:
        batch = next_batch(ready, now_ms, turns, profile=profile, max_batch=max_batch)
        now_ms += batch_ms(batch, profile)
        turns = turns.after([entry.session for entry in batch])
        done |= dict.fromkeys(batch, now_ms)
        ready = [entry for entry in ready if entry not in batch]
    return done


@st.composite
def backlogs(draw: st.DrawFn) -> list[ReadyChunk]:
    """Up to six chunks of up to three sessions, deadlines rising within each."""
    ready = []
    for session in "abc"[: draw(st.integers(1, 3))]:
        due = 0.0
        for number in range(draw(st.integers(1, 2))):
            due += draw(st.integers(1, 30))
            ready.append(chunk(session, number, due, draw(st.integers(1, 10))))
    return draw(st.permutations(ready))


def can_be_kept(ready: list[ReadyChunk]) -> bool:
    """Whether some order keeps all deadlines, a session's chunks in their order."""
    for order in itertools.permutations(ready):
        now_ms, kept = 0.0, True
        seen: dict[str, int] = {}
        for entry in order:
            now_ms += entry.service_ms
            kept = (
                kept and now_ms <= entry.deadline_ms and seen.get(entry.session, -1) < entry.chunk
            )
            seen[entry.session] = entry.chunk
        if kept:
            return True
    return False


@settings(max_examples=200, deadline=None)
@given(backlogs(), st.sampled_from([ALONE, QUICK]), st.integers(1, 4))
def test_deadlines_that_can_be_kept_are_kept(
    ready: list[ReadyChunk], profile: BatchProfile, max_batch: int
) -> None:
    if can_be_kept(ready):
        done = run_all(ready, profile, max_batch)
        assert all(at_ms <= entry.deadline_ms for entry, at_ms in done.items())


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 8)), min_size=1, max_size=5))
def test_chunks_of_one_length_that_come_one_after_another_are_in_time_if_they_can_be(
    arrivals: list[tuple[int, int]],
) -> None:
    jobs = [
        (at, chunk(str(i), 0, float(at + slack), 1.0)) for i, (at, slack) in enumerate(arrivals)
    ]
    feasible = any(
        all(end <= entry.deadline_ms for end, (_, entry) in zip(_ends(order), order, strict=True))
        for order in itertools.permutations(jobs)
    )
    now, waiting, late = 0, list(jobs), False
    while waiting:
        ready = [entry for at, entry in waiting if at <= now]
        for entry in next_batch(ready, float(now), NO_TURNS, profile=ALONE):
            late |= now + 1 > entry.deadline_ms
            waiting = [job for job in waiting if job[1] != entry]
        now += 1
    assert late is not feasible


def _ends(order: tuple[tuple[int, ReadyChunk], ...]) -> list[int]:
    ends, now = [], 0
    for at, _ in order:
        now = max(now, at) + 1
        ends.append(now)
    return ends


def test_a_session_has_one_chunk_in_a_batch_and_its_first() -> None:
    ready = [chunk("a", 1, 5000), chunk("a", 0, 9000), chunk("b", 0, 8000)]
    batch = next_batch(ready, 0.0, NO_TURNS, profile=QUICK, max_batch=4)
    assert sorted((entry.session, entry.chunk) for entry in batch) == [("a", 0), ("b", 0)]


def test_a_batch_must_pay_keep_deadlines_and_be_of_one_shape() -> None:
    loose = [chunk("a", 0, 100), chunk("b", 0, 100)]
    assert len(next_batch(loose, 0.0, NO_TURNS, profile=QUICK, max_batch=2)) == 2
    assert len(next_batch(loose, 0.0, NO_TURNS, profile=ALONE, max_batch=2)) == 1
    tight = [chunk("a", 0, 12), chunk("b", 0, 100)]
    assert next_batch(tight, 0.0, NO_TURNS, profile=QUICK, max_batch=2) == (tight[0],)
    other = ReadyChunk(session="b", chunk=0, deadline_ms=100, service_ms=10, shape="low")
    assert len(next_batch([loose[0], other], 0.0, NO_TURNS, profile=QUICK, max_batch=2)) == 1
    assert next_batch([], 0.0, NO_TURNS, profile=QUICK) == ()


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 6), st.integers(0, 5), st.lists(st.integers(0, 900), min_size=6, max_size=6))
def test_overloaded_sessions_get_turns_within_one_of_each_other(
    num_sessions: int, hog: int, phases: list[int]
) -> None:
    """All are always behind, and one has everything ready from the start."""
    names = [str(index) for index in range(num_sessions)]
    next_chunk, served = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    now_ms, turns = 2000.0, NO_TURNS
    for _ in range(100):
        ready = [
            chunk(
                name,
                next_chunk[name],
                -1e6 if index == hog else deadline_ms(phases[index], next_chunk[name], 10.0, 100.0),
                30.0,
            )
            for index, name in enumerate(names)
        ]
        (entry,) = next_batch(ready, now_ms, turns, profile=ALONE)
        served[entry.session] += 1
        next_chunk[entry.session] += 1
        turns, now_ms = turns.after([entry.session]), now_ms + 30.0
        assert max(served.values()) - min(served.values()) <= 1


def test_a_session_that_sends_ahead_does_not_push_in() -> None:
    ahead = [chunk("ahead", n, deadline_ms(0.0, n, 480.0, 100.0)) for n in range(5, 50)]
    normal = chunk("live", 5, deadline_ms(10.0, 5, 480.0, 100.0))
    order = in_order([*ahead, normal], 2500.0, NO_TURNS)
    assert [(entry.session, entry.chunk) for entry in order] == [("ahead", 5), ("live", 5)]
    after = in_order([*ahead[1:], normal], 2510.0, NO_TURNS.after(["ahead"]))
    assert after[0].session == "live"


def test_turns_of_a_session_that_ended_are_forgotten() -> None:
    turns = NO_TURNS.after(["a"]).after(["b"]).without("a")
    assert dict(turns.last) == {"b": 2}
