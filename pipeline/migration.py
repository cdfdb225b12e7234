"""A session's state, cut anew: what stages of one cut exported becomes what those of another need.

Lanes are keyed by their step's number in the plan, so a lane does not care which stage it is in.
"""

import re
from collections.abc import Sequence

from pipeline.recipe import Recipe
from pipeline.session_state import SessionState

_LANE = re.compile(r"lane(\d+)/")


def lane_spans(recipes: Sequence[Recipe]) -> list[range]:
    """The steps of each stage, by how many are done when a chunk leaves it; none in the decoder."""
    spans, first = [], 0
    for recipe in recipes[:-1]:
        spans.append(range(first, recipe.steps_done))
        first = recipe.steps_done
    return [*spans, range(0)]


def recut_states(states: Sequence[SessionState], spans: Sequence[range]) -> list[SessionState]:
    """States for stages with these steps from the states of all stages of another cut.

    The last of each is the decoder's and stays as it is. What belongs to no lane is the same in
    every stage, and each new one gets it.

    Raises:
        ValueError: a lane is missing.
    """
    *stages, decoder = states
    lanes = {step for state in stages for step in map(_step, state.tensors) if step is not None}
    wanted = {step for span in spans for step in span}
    if lanes and not wanted <= lanes:
        missing = ", ".join(str(step) for step in sorted(wanted - lanes))
        raise ValueError(f"the state has no lane of step {missing}: it is of another plan")
    return [*(_only(stages, span) for span in spans[:-1]), decoder]


def _only(stages: Sequence[SessionState], span: range) -> SessionState:
    """All that is kept of a run of steps."""
    tensors, numbers = {}, {}
    for state in stages:
        tensors |= {n: t for n, t in state.tensors.items() if _is_in(n, span)}
        numbers |= {n: v for n, v in state.numbers.items() if _is_in(n, span)}
    return SessionState(tensors=tensors, numbers=numbers)


def _is_in(name: str, span: range) -> bool:
    step = _step(name)
    return step is None or step in span


def _step(name: str) -> int | None:
    """The step that an exported value belongs to, None if it is of no lane."""
    match = _LANE.match(name)
    return None if match is None else int(match.group(1))
