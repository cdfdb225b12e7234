"""The figures of the chain's benchmark: percentiles, ratios, cuts into halves, limits."""

import pytest
from chain_pair import allowed_speed_up
from chain_stages import FASTEST_S, SLOWEST_S, sleeps_s
from chain_stats import (
    Check,
    best_possible,
    ceiling,
    efficiency,
    hops_ms,
    median_ratio,
    percentile,
    spread,
    steps_of_first_half,
)

from pipeline.spans import Span

pytestmark = pytest.mark.unit


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(v) for v in range(1, 101)]
    assert [percentile(values[::-1], p) for p in (0, 1, 50, 99, 100)] == [1, 1, 50, 99, 100]
    assert percentile([3.0], 99) == 3.0
    assert percentile([1.0, 9.0], 99) == 9.0
    with pytest.raises(ValueError, match="at least one"):
        percentile([], 50)


def test_a_ratio_is_the_median_of_pairs_and_not_a_ratio_of_medians() -> None:
    assert median_ratio([10.0, 30.0, 20.0], [5.0, 10.0, 20.0]) == 2.0
    with pytest.raises(ValueError, match="zip"):
        median_ratio([1.0], [1.0, 2.0])


def test_efficiency_is_throughput_over_that_of_the_slowest_stage() -> None:
    assert efficiency(19.0, [0.01, 0.05, 0.02]) == pytest.approx(0.95)
    assert spread([20.0, 19.0, 19.0]) == pytest.approx(1 / 19)
    assert spread([7.0]) == 0.0


def test_a_cut_makes_halves_of_equal_cost() -> None:
    assert steps_of_first_half(40, 0.01, 0.0) == 20
    assert steps_of_first_half(40, 0.01, 0.2) == 30
    assert steps_of_first_half(40, 0.01, 0.39) == 40
    with pytest.raises(ValueError, match="take more steps"):
        steps_of_first_half(40, 0.01, 0.6)


def test_the_best_speed_up_is_the_sum_over_the_slowest() -> None:
    assert best_possible([0.2, 0.2]) == 2.0
    assert best_possible([0.3, 0.1]) == pytest.approx(4 / 3)


def test_what_a_chain_costs_anyway_leaves_less_of_the_cores_for_its_chunks() -> None:
    assert ceiling(0.4, 0.4, 0.0, 2) == 2.0
    assert ceiling(0.4, 0.4, 0.1, 2) == pytest.approx(1.9)
    assert ceiling(0.4, 0.5, 0.1, 2) == pytest.approx(1.52)


def test_a_limit_is_kept_on_its_side_of_the_figure_and_not_by_what_is_no_number() -> None:
    fast = Check(name="speed-up", value=1.8, limit=1.8, at_least=True)
    slow = Check(name="trip", value=10.1, limit=10.0, at_least=False, unit="ms")
    assert (fast.holds, slow.holds) == (True, False)
    assert fast.row() == ["speed-up", "1.8", "≥ 1.8", "", "pass"]
    assert slow.row() == ["trip", "10.1", "≤ 10", "ms", "FAIL"]
    for at_least in (True, False):
        nothing = Check(name="x", value=float("nan"), limit=1.0, at_least=at_least)
        assert not nothing.holds


def test_a_figure_that_fails_its_limit_by_little_does_not_read_as_if_it_kept_it() -> None:
    assert Check(name="x", value=1.7999, limit=1.8, at_least=True).row()[1] == "1.799"
    assert Check(name="x", value=1.00001, limit=1.0, at_least=False).row()[1] == "1.001"


@pytest.mark.parametrize("count", [1, 2, 3, 4, 8, 16])
def test_the_slowest_sleeper_is_in_every_chain_once_and_all_lie_in_the_range(count: int) -> None:
    sleeps = sleeps_s(count)
    assert len(sleeps) == count
    assert sleeps.count(SLOWEST_S) == 1
    assert all(FASTEST_S - 1e-9 <= sleep <= SLOWEST_S for sleep in sleeps)
    if count > 2:
        assert sleeps.index(SLOWEST_S) not in (0, count - 1)


def test_a_hop_is_from_the_end_of_one_stage_to_the_beginning_of_the_next() -> None:
    spans = [
        _span("b", 1, 15, 20),
        _span("a", 1, 5, 12),
        _span("c", 1, 21, 30),
        _span("a", 0, 0, 1),
        _span("b", 0, 4, 5),
    ]
    assert hops_ms(spans, 1) == [3.0, 1.0]
    assert sorted(hops_ms(spans, 0)) == [1.0, 3.0, 3.0]


def _span(stage: str, chunk: int, began_ms: int, ended_ms: int) -> Span:
    return Span(
        stage=stage,
        session="s",
        epoch=1,
        chunk=chunk,
        arrived_ns=began_ms * 1_000_000,
        began_ns=began_ms * 1_000_000,
        ended_ns=ended_ms * 1_000_000,
    )


def test_two_slower_copies_allow_less_than_twice_the_speed() -> None:
    assert allowed_speed_up(100.0, [100.0, 100.0]) == 2.0
    assert allowed_speed_up(100.0, [105.0, 125.0]) == pytest.approx(1.6)
