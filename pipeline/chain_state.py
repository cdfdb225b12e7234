"""What a chain is doing, and what it may do next: a table, and one place that keeps to it."""

import threading
from collections.abc import Callable
from enum import Enum


class ChainState(Enum):
    """What a chain is doing.

    HEALING and DRAINING are apart on purpose: a chain that drains heals too, but never goes back
    to taking chunks in.
    """

    STARTING = "starting"
    RUNNING = "running"
    HEALING = "healing"
    DRAINING = "draining"
    CLOSED = "closed"
    FAILED = "failed"


_S = ChainState
TRANSITIONS: dict[ChainState, frozenset[ChainState]] = {
    _S.STARTING: frozenset({_S.RUNNING, _S.FAILED, _S.CLOSED}),
    _S.RUNNING: frozenset({_S.HEALING, _S.DRAINING, _S.FAILED, _S.CLOSED}),
    _S.HEALING: frozenset({_S.RUNNING, _S.DRAINING, _S.FAILED, _S.CLOSED}),
    _S.DRAINING: frozenset({_S.FAILED, _S.CLOSED}),
    _S.CLOSED: frozenset(),
    _S.FAILED: frozenset(),
}
ENDED = frozenset(state for state, following in TRANSITIONS.items() if not following)


class StateError(RuntimeError):
    """A chain was told to do what it cannot do from where it is: a fault of the program."""


def may_follow(state: ChainState, following: ChainState) -> bool:
    """Whether a chain may go from one state to another; staying is always allowed."""
    return following is state or following in TRANSITIONS[state]


class StateKeeper:
    """The state of one chain; any thread may ask, and change it along the table."""

    def __init__(self, on_change: Callable[[ChainState, ChainState], None] | None = None) -> None:
        """Begin with STARTING; `on_change` hears of every change (before, after)."""
        self._on_change = on_change
        self._lock = threading.RLock()
        self._state = ChainState.STARTING
        self.failure = ""

    @property
    def state(self) -> ChainState:
        """What the chain is doing."""
        return self._state

    @property
    def is_over(self) -> bool:
        """Whether nothing can follow any more."""
        return self._state in ENDED

    def go(self, state: ChainState) -> None:
        """Change the state.

        Raises:
            StateError: the table has no such change.
        """
        with self._lock:
            before = self._state
            if not may_follow(before, state):
                raise StateError(f"a chain that is {before.value} cannot become {state.value}")
            self._state = state
        if before is not state and self._on_change is not None:
            self._on_change(before, state)

    def try_go(self, state: ChainState) -> bool:
        """Change the state if the table allows it; whether it is that state now."""
        with self._lock:
            if not may_follow(self._state, state):
                return False
            self.go(state)
            return True

    def fail(self, why: str) -> None:
        """Note in one line why the chain is over; a chain that is over already stays as it is."""
        with self._lock:
            if not self.is_over:
                self.failure = " ".join(why.split())
                self.go(ChainState.FAILED)
