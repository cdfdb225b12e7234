"""What others want a node's compute thread to do between two chunks."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import TypeVar

from pipeline.errors import NodeDown

ResultT = TypeVar("ResultT")

# Opening a session runs the network once, and waits for the chunk that is being worked on.
ERRAND_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Errand:
    """Something for the compute thread to do, or the word that it never will."""

    run: Callable[[], None]
    refuse: Callable[[], None]


class Errands:
    """A queue of things to do; `changed` is told of each new one."""

    def __init__(self, changed: threading.Condition) -> None:
        """Begin with none."""
        self._changed = changed
        self._waiting: deque[_Errand] = deque()
        self._ended = False

    def ask(self, act: Callable[[], ResultT]) -> ResultT:
        """Have something done, and wait for the result.

        Raises:
            NodeDown: the node has ended, or does not come to it in time.
        """
        future: Future[ResultT] = Future()

        def run() -> None:
            try:
                future.set_result(act())
            except Exception as error:  # noqa: BLE001 - whoever asked gets it
                future.set_exception(error)

        def refuse() -> None:
            future.set_exception(NodeDown("the node has ended"))

        with self._changed:
            if self._ended:
                raise NodeDown("the node has ended")
            self._waiting.append(_Errand(run=run, refuse=refuse))
            self._changed.notify_all()
        try:
            return future.result(ERRAND_TIMEOUT_S)
        except FutureTimeout as error:
            raise NodeDown(f"the node was busy for {ERRAND_TIMEOUT_S:g} s") from error

    def take(self) -> Callable[[], None] | None:
        """The next thing to do, None if there is none; called with `changed` held."""
        return self._waiting.popleft().run if self._waiting else None

    def end(self) -> None:
        """Refuse what waits and whatever comes; called with `changed` held."""
        self._ended = True
        while self._waiting:
            self._waiting.popleft().refuse()
