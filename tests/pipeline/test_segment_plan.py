"""Segments cover the sound without gap, and nothing that is whole is made again."""

import itertools
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.segment_plan import (
    ANCHOR_EVERY,
    SegmentPlan,
    is_state_kept,
    pictures_per_segment,
    steps,
)

pytestmark = pytest.mark.unit


@given(
    num_samples=st.integers(1, 10_000_000),
    sample_rate=st.sampled_from([8000, 16_000, 22_050, 44_100, 48_000]),
    fps=st.sampled_from([Fraction(25), Fraction(30000, 1001), Fraction(24)]),
    pictures=st.integers(12, 600),
)
def test_segments_follow_each_other_to_the_end(
    num_samples: int, sample_rate: int, fps: Fraction, pictures: int
) -> None:
    plan = SegmentPlan(num_samples=num_samples, sample_rate=sample_rate, fps=fps, pictures=pictures)
    segments = [plan.segment(index) for index in range(min(plan.num_segments, 50))]
    assert segments[0].start_sample == 0
    for before, after in itertools.pairwise(segments):
        assert before.end_sample == after.start_sample
        assert before.start_sample < before.end_sample
    last = plan.segment(plan.num_segments - 1)
    assert last.is_last
    assert last.end_sample == num_samples
    assert last.start_sample < num_samples


def test_a_segment_is_whole_chunks() -> None:
    assert pictures_per_segment(Fraction(25), 12, Fraction(20)) == 492
    assert pictures_per_segment(Fraction(25), 12, Fraction(1, 100)) == 12


def run(num_segments: int, whole: set[int], states: set[int]) -> list[int]:
    """Carry the steps out; returns what was made, having checked that each could be."""
    position: int | None = None
    made = []
    for step in steps(num_segments, whole, states):
        if step.load is not None:
            assert step.load == -1 or step.load in states
            position = step.load + 1
        assert position == step.run
        assert step.is_wanted == (step.run not in whole)
        if step.is_wanted:
            made.append(step.run)
        position += 1
    return made


@given(data=st.data(), num_segments=st.integers(1, 40))
def test_all_that_is_missing_is_made_once_and_nothing_else(
    data: st.DataObject, num_segments: int
) -> None:
    indices = st.sets(st.integers(0, num_segments - 1))
    whole, states = data.draw(indices), data.draw(indices)
    assert run(num_segments, whole, states) == [i for i in range(num_segments) if i not in whole]


def test_a_resumed_render_runs_nothing_that_is_whole() -> None:
    found = list(steps(10, whole=set(range(4)), states={2, 3}))
    assert [step.run for step in found] == [4, 5, 6, 7, 8, 9]
    assert [step.load for step in found] == [3, None, None, None, None, None]


def test_a_repair_is_never_far_from_a_state() -> None:
    kept = {i for i in range(200) if is_state_kept(i, 199)}
    assert {198, 199} <= kept
    assert len(kept) <= 200 // ANCHOR_EVERY + 2
    for damaged in range(200):
        nearest = max((s for s in kept if s < damaged), default=-1)
        assert damaged - nearest <= ANCHOR_EVERY
