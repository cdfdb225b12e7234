"""Chunks are asked for so that they come when little is left, whatever the model takes."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.credit import Credit

pytestmark = pytest.mark.unit

MS = 1_000_000


def simulate(work_ms: list[float], num_ticks: int) -> tuple[list[int], int]:
    """How many slices wait after each tick, and how many ticks had none; 25 fps, chunks of 12."""
    credit = Credit(chunk_frames=12, fps=Fraction(25), margin_frames=2)
    under_way: list[tuple[float, int]] = []  # when a chunk is done, and its first index
    queued, missed, num_chunks, free_ms = 0, 0, 0, 0.0
    waiting: list[int] = []
    for now_ms in range(0, num_ticks * 40, 5):
        while under_way and under_way[0][0] <= now_ms:
            _, first = under_way.pop(0)
            for index in range(first, first + 12):
                credit.came(index, now_ms * MS)
            queued += 12
        if now_ms % 40 == 0 and num_chunks and (queued or waiting):
            missed += queued == 0
            queued -= queued > 0
            waiting.append(queued)
        if (until := credit.ask(queued, now_ms * MS)) is not None:
            free_ms = max(free_ms, now_ms) + work_ms[num_chunks % len(work_ms)]
            under_way.append((free_ms, until - 12))
            num_chunks += 1
    return waiting, missed


@pytest.mark.parametrize("work_ms", [5, 40, 200, 300, 420])
def test_a_chunk_and_two_frames_are_ahead_at_most_and_none_is_missed(work_ms: float) -> None:
    waiting, missed = simulate([work_ms], 500)
    assert missed == 0
    assert max(waiting) <= 14


@given(work_ms=st.lists(st.floats(1, 440), min_size=1, max_size=20))
def test_however_it_varies_no_more_than_two_chunks_wait(work_ms: list[float]) -> None:
    waiting, _ = simulate(work_ms, 300)
    assert max(waiting) <= 2 * 12 + 2


def test_one_stall_is_no_reason_to_run_ahead() -> None:
    waiting, _ = simulate([200, 200, 1500, 200, 200, 200, 200, 200, 200, 200], 120)
    assert max(waiting) <= 15


def test_after_a_restart_all_is_asked_again() -> None:
    credit = Credit(chunk_frames=12, fps=Fraction(25), margin_frames=2)
    assert credit.ask(0, 0) == 12
    assert credit.ask(0, 0) is None
    credit.restart(7)
    assert credit.num_owed == 0
    assert credit.ask(0, 0) == 19
