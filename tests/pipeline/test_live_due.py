"""When slices are due at the viewer, although its word comes late."""

import pytest

from pipeline.live_due import DueTimes

pytestmark = pytest.mark.unit


def test_nothing_is_due_before_anybody_waits() -> None:
    assert DueTimes(frame_s=0.04).due_s(3) is None


def test_a_word_counts_from_the_slices_that_its_writer_can_have() -> None:
    due = DueTimes(frame_s=0.04)
    due.said(100, at_s=1.0)
    assert due.due_s(12) == pytest.approx(1.1 + 0.48)
    due.released(3, now_s=1.1)
    # Slice 3 was released just before: the writer waits for slice 0 still.
    due.said(50, at_s=1.11)
    assert due.due_s(0) == pytest.approx(1.16)
    due.said(50, at_s=1.2)
    assert due.due_s(3) == pytest.approx(1.25)


def test_after_a_burst_the_word_is_not_trusted_at_once() -> None:
    due = DueTimes(frame_s=0.04)
    due.said(0, at_s=0.0)
    due.released(12, now_s=0.3)
    due.said(480, at_s=0.33)
    assert due.due_s(12) == pytest.approx(0.48)
    due.said(480, at_s=0.45)
    assert due.due_s(12) == pytest.approx(0.93)


def test_an_interrupt_makes_the_next_slice_due() -> None:
    due = DueTimes(frame_s=0.04)
    due.due_now(5, 1.0)
    assert due.due_s(5) is None
    due.said(400, at_s=1.0)
    due.due_now(5, 2.0)
    assert due.due_s(5) == pytest.approx(2.0)


def test_a_word_from_before_all_that_is_remembered_counts_from_the_oldest() -> None:
    due = DueTimes(frame_s=0.04)
    for index, now_s in ((8, 9.95), (16, 10.3), (24, 10.35)):
        due.released(index, now_s=now_s)
    due.said(10, at_s=10.0)
    assert due.due_s(24) is not None
