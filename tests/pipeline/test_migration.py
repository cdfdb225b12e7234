"""States cut anew: every lane in exactly the stage that has its step."""

import pytest
import torch

from pipeline.cuts import cut_at
from pipeline.migration import lane_spans, recut_states
from pipeline.recipe import DecodeRecipe, DenoiseRecipe
from pipeline.session_state import SessionState
from tests.support.planning import plan_of

pytestmark = pytest.mark.unit


def recipes(cuts: list[int]) -> list[DenoiseRecipe | DecodeRecipe]:
    plan = cut_at(plan_of(4), cuts)
    stages = [DenoiseRecipe(model="m", plan=plan, index=i) for i in range(len(plan.stages))]
    return [*stages, DecodeRecipe(model="m")]


def exported(span: range) -> SessionState:
    lanes = {f"lane{step}": {"keys": torch.full((2,), float(step))} for step in span}
    return SessionState.of({"heard": {"after": torch.ones(3)}, **lanes})


DECODER = SessionState(tensors={"decoder/x": torch.zeros(1)}, numbers={"decoder/shown": 3})


@pytest.mark.parametrize(
    ("before", "after"),
    [([2], [3]), ([3], [2]), ([], [1, 2, 3]), ([1, 2, 3], []), ([2], [1, 2, 3]), ([1], [1])],
)
def test_every_lane_goes_where_its_step_is(before: list[int], after: list[int]) -> None:
    old, new = lane_spans(recipes(before)), lane_spans(recipes(after))
    assert [step for span in new for step in span] == [0, 1, 2, 3]
    states = recut_states([*(exported(span) for span in old[:-1]), DECODER], new)
    assert states[-1] is DECODER
    for state, span in zip(states[:-1], new[:-1], strict=True):
        expected = exported(span)
        assert state.tensors.keys() == expected.tensors.keys()
        assert all(torch.equal(state.tensors[n], t) for n, t in expected.tensors.items())


def test_a_state_of_fewer_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="no lane of step 2, 3"):
        recut_states([exported(range(2)), DECODER], lane_spans(recipes([])))


def test_a_session_that_has_nothing_yet_is_nothing_everywhere() -> None:
    nothing = SessionState()
    assert recut_states([nothing, nothing], lane_spans(recipes([2]))) == [nothing] * 3
