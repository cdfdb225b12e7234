"""Cutting a chain: the same as trying everything, and never slower for one device more."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import PlanError
from pipeline.partition import CutProblem, DecoderChoice, Run, best_cut, bottleneck_ms

pytestmark = pytest.mark.unit

DECODERS: tuple[DecoderChoice, ...] = ("auto", "own", "share")
Price = tuple[float, int, int, int]


@st.composite
def problems(draw: st.DrawFn) -> CutProblem:
    """Small problems: up to five steps on up to two grades of three devices."""
    steps = draw(st.lists(st.integers(1, 9), min_size=1, max_size=5))
    sizes = [draw(st.integers(1, 3)) for _ in steps]
    counts = tuple(draw(st.lists(st.integers(0, 3), min_size=1, max_size=2)))
    speeds = [draw(st.sampled_from([1, 2])) for _ in counts]
    rooms = [draw(st.integers(2, 9)) for _ in counts]
    decode = draw(st.integers(0, 9))

    def time_ms(run: Run) -> float:
        return (sum(steps[run.first : run.end]) + decode * run.decodes) / speeds[run.grade]

    def memory(run: Run) -> int | None:
        need = sum(sizes[run.first : run.end]) + 2 * run.decodes + (run.end > run.first)
        return need if need <= rooms[run.grade] else None

    return CutProblem(
        num_steps=len(steps),
        counts=counts,
        time_ms=time_ms,
        memory=memory,
        hinges=frozenset(draw(st.sets(st.integers(1, 4), max_size=2))),
        decoder=draw(st.sampled_from(DECODERS)),
        num_runs=draw(st.sampled_from([None, None, 1, 2, 3])),
    )


def every_cut(problem: CutProblem) -> Iterator[tuple[Run, ...]]:
    """All ways to place the steps and the decoder, whether they fit or not."""
    for num_runs in range(1, problem.num_steps + 1):
        if problem.num_runs not in (None, num_runs):
            continue
        hosts = list(range(num_runs)) if problem.decoder != "own" else []
        hosts += [num_runs] if problem.decoder != "share" else []
        for cuts in itertools.combinations(range(1, problem.num_steps), num_runs - 1):
            spans = list(itertools.pairwise((0, *cuts, problem.num_steps)))
            for host in hosts:
                ends = [*spans, (problem.num_steps, problem.num_steps)][: max(num_runs, host + 1)]
                for grades in itertools.product(range(len(problem.counts)), repeat=len(ends)):
                    if all(grades.count(g) <= n for g, n in enumerate(problem.counts)):
                        yield tuple(
                            Run(first=a, end=b, decodes=i == host, grade=grades[i])
                            for i, (a, b) in enumerate(ends)
                        )


def price(problem: CutProblem, runs: tuple[Run, ...]) -> Price | None:
    """What a cut is judged by, None if it does not fit."""
    memory = [problem.memory(run) for run in runs]
    inner = [run.first for run in runs if 0 < run.first < problem.num_steps]
    awkward = sum(first not in problem.hinges for first in inner)
    sizes = [need for need in memory if need is not None]
    if len(sizes) < len(runs):
        return None
    return (bottleneck_ms(problem, runs), len(runs), awkward, sum(sizes))


@settings(max_examples=150, deadline=None)
@given(problems())
def test_the_best_cut_is_the_best_of_all_cuts(problem: CutProblem) -> None:
    prices = [p for p in (price(problem, runs) for runs in every_cut(problem)) if p is not None]
    found = best_cut(problem)
    assert (found is None) == (not prices)
    if found is not None:
        assert price(problem, found) == pytest.approx(min(prices))


@settings(max_examples=100, deadline=None)
@given(problems(), st.integers(0, 1))
def test_one_device_more_never_makes_the_slowest_slower(problem: CutProblem, grade: int) -> None:
    problem = replace(problem, num_runs=None)
    counts = list(problem.counts)
    counts[grade % len(counts)] += 1
    before, after = best_cut(problem), best_cut(replace(problem, counts=tuple(counts)))
    if before is not None:
        assert after is not None
        assert bottleneck_ms(problem, after) <= bottleneck_ms(problem, before)


def test_a_cut_falls_on_a_hinge_where_it_makes_no_difference() -> None:
    problem = CutProblem(
        num_steps=4,
        counts=(2,),
        time_ms=lambda run: max(2, run.end - run.first),
        memory=lambda _: 1,
        hinges=frozenset({2}),
        decoder="share",
        num_runs=2,
    )
    found = best_cut(problem)
    assert found is not None
    assert [run.first for run in found] == [0, 2]


def test_sixty_four_steps_on_sixty_four_devices_are_cut_at_once() -> None:
    problem = CutProblem(
        num_steps=64,
        counts=(64,),
        time_ms=lambda run: float(run.end - run.first + run.decodes),
        memory=lambda _: 1,
    )
    found = best_cut(problem)
    assert found is not None
    assert bottleneck_ms(problem, found) == 2.0


def test_a_search_without_end_is_refused() -> None:
    problem = CutProblem(
        num_steps=64, counts=(64, 64, 64), time_ms=lambda _: 1.0, memory=lambda _: 1
    )
    with pytest.raises(PlanError, match="too many to try"):
        best_cut(problem)
