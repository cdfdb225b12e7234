"""The states of a chain: the table is what it should be, and nobody leaves it."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.chain_state import (
    ENDED,
    TRANSITIONS,
    ChainState,
    StateError,
    StateKeeper,
    may_follow,
)

pytestmark = pytest.mark.unit

S = ChainState


def test_every_state_is_in_the_table_and_can_be_reached() -> None:
    reached, frontier = {S.STARTING}, [S.STARTING]
    while frontier:
        for following in TRANSITIONS[frontier.pop()] - reached:
            reached.add(following)
            frontier.append(following)
    assert reached == set(S) == set(TRANSITIONS)


def test_what_is_over_stays_over_and_every_chain_can_end() -> None:
    assert {S.CLOSED, S.FAILED} == ENDED
    for state in set(S) - ENDED:
        assert TRANSITIONS[state] >= ENDED


def test_a_chain_that_drains_never_takes_chunks_again() -> None:
    seen, frontier = set[ChainState](), [S.DRAINING]
    while frontier:
        state = frontier.pop()
        seen.add(state)
        frontier += TRANSITIONS[state] - seen
    assert seen == {S.DRAINING, S.CLOSED, S.FAILED}


@given(st.lists(st.sampled_from(S), max_size=12))
def test_a_keeper_follows_the_table_and_nothing_else(wishes: list[ChainState]) -> None:
    told: list[tuple[ChainState, ChainState]] = []
    keeper = StateKeeper(lambda before, after: told.append((before, after)))
    for wish in wishes:
        before = keeper.state
        if may_follow(before, wish):
            keeper.go(wish)
            assert keeper.state is wish
        else:
            assert not keeper.try_go(wish)
            with pytest.raises(StateError, match=f"{before.value} cannot become {wish.value}"):
                keeper.go(wish)
            assert keeper.state is before
    assert all(after in TRANSITIONS[before] for before, after in told)
    assert all(one[1] is two[0] for one, two in itertools.pairwise(told))


def test_the_first_failure_is_the_one_that_is_kept() -> None:
    keeper = StateKeeper()
    keeper.fail("no room\n  left")
    keeper.fail("and nobody there")
    assert (keeper.state, keeper.failure) == (S.FAILED, "no room left")
