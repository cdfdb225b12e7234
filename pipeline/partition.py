"""Where to cut a chain: contiguous runs of steps on devices, by dynamic programming.

Two passes. The first finds the least time that the slowest device can have; the second, among all
cuts that keep it, the one with the fewest devices, then the fewest cuts that are not at a hinge,
then the least memory. One pass could not: a run that is best by itself may be none of the best.
Source: linear partition with memory limits, over devices of several grades.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from pipeline.errors import PlanError

DecoderChoice = Literal["auto", "own", "share"]

# Beyond this a search in plain Python takes seconds.
MAX_TRIES = 3_000_000
_SLACK = 1.0 + 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Steps `first` to `end` (not included) on a device of grade `grade`, maybe with the decoder.

    A run without steps is the decoder alone.
    """

    first: int
    end: int
    decodes: bool
    grade: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CutProblem:
    """What is to be cut: `counts[g]` devices of grade g; a run's time and memory by functions.

    `memory` gives None for a run that does not fit its device. `num_runs` asks for exactly so
    many runs of steps, None for what is best.
    """

    num_steps: int
    counts: tuple[int, ...]
    time_ms: Callable[[Run], float]
    memory: Callable[[Run], int | None]
    hinges: frozenset[int] = frozenset()
    decoder: DecoderChoice = "auto"
    num_runs: int | None = None


Price = tuple[int, int, int]
_State = tuple[int, tuple[int, ...], bool]


def best_cut(problem: CutProblem) -> tuple[Run, ...] | None:
    """The best runs in order of steps, the decoder's own last; None where nothing fits.

    Raises:
        PlanError: the search would take too long.
    """
    _require_small(problem)
    limit_ms = _least_bottleneck(problem)
    if limit_ms == math.inf:
        return None
    return _cheapest(problem, limit_ms * _SLACK)


def bottleneck_ms(problem: CutProblem, runs: Sequence[Run]) -> float:
    """The time of the slowest device."""
    return max(problem.time_ms(run) for run in runs)


def _require_small(problem: CutProblem) -> None:
    states = 2 * (problem.num_steps + 1)
    for count in _useful(problem):
        states *= count + 1
    tries = states * problem.num_steps * len(problem.counts)
    if tries > MAX_TRIES:
        raise PlanError(
            f"{problem.num_steps} steps on {sum(problem.counts)} devices of {len(problem.counts)} "
            "kinds are too many to try: use fewer kinds of devices"
        )


def _useful(problem: CutProblem) -> tuple[int, ...]:
    """Devices of each grade that could be used at all: one a step and one for the decoder."""
    return tuple(min(count, problem.num_steps + 1) for count in problem.counts)


def _least_bottleneck(problem: CutProblem) -> float:
    """The least time of the slowest device over all cuts; infinite where nothing fits."""

    @cache
    def least_ms(state: _State) -> float:
        if _is_done(problem, state):
            return 0.0
        best = math.inf
        for run, following in _moves(problem, state):
            time_ms = problem.time_ms(run)
            if time_ms < best and problem.memory(run) is not None:
                best = min(best, max(time_ms, least_ms(following)))
        return best

    return least_ms((0, _useful(problem), False))


def _cheapest(problem: CutProblem, limit_ms: float) -> tuple[Run, ...] | None:
    """The cut of least price whose devices all keep the limit."""

    @cache
    def cheapest(state: _State) -> tuple[Price, tuple[Run, ...]] | None:
        if _is_done(problem, state):
            return (0, 0, 0), ()
        best: tuple[Price, tuple[Run, ...]] | None = None
        for run, following in _moves(problem, state):
            memory = problem.memory(run)
            if memory is None or problem.time_ms(run) > limit_ms:
                continue
            rest = cheapest(following)
            if rest is None:
                continue
            awkward = run.first not in problem.hinges and 0 < run.first < problem.num_steps
            price = (rest[0][0] + 1, rest[0][1] + awkward, rest[0][2] + memory)
            if best is None or price < best[0]:
                best = price, (run, *rest[1])
        return best

    found = cheapest((0, _useful(problem), False))
    return None if found is None else found[1]


def _is_done(problem: CutProblem, state: _State) -> bool:
    """Whether all steps and the decoder have a device, and there are as many runs as asked."""
    first, _, decoded = state
    return first == problem.num_steps and decoded and _runs_missing(problem, state) in (0, None)


def _runs_missing(problem: CutProblem, state: _State) -> int | None:
    """Runs of steps still to come, None where any number will do."""
    if problem.num_runs is None:
        return None
    # Devices that are gone have a run each, but for the decoder's own: it comes last, and only
    # after as many runs as asked.
    gone = sum(_useful(problem)) - sum(state[1])
    return max(0, problem.num_runs - gone)


def _moves(problem: CutProblem, state: _State) -> list[tuple[Run, _State]]:
    """Every run that may come next, with what is left after it."""
    first, left, decoded = state
    if first == problem.num_steps:
        if decoded or problem.decoder == "share" or _runs_missing(problem, state):
            return []
        ways = [(first, True)]
    else:
        missing = _runs_missing(problem, state)
        if missing is not None and missing < 1:
            return []
        share = [False] if decoded or problem.decoder == "own" else [False, True]
        ends = range(first + 1, problem.num_steps + 1)
        ways = [(end, decodes) for end in ends for decodes in share]
    moves = []
    for grade, count in enumerate(left):
        if not count:
            continue
        rest = (*left[:grade], count - 1, *left[grade + 1 :])
        for end, decodes in ways:
            run = Run(first=first, end=end, decodes=decodes, grade=grade)
            moves.append((run, (end, rest, decoded or decodes)))
    return moves
