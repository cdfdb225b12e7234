"""An event loop whose time is not the world's: nobody waits, and every run is the same.

Only for code that neither waits for sockets nor for threads.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
# Virtual time costs nothing, but work that never ends does.
LIMIT_S = 300


class _Leaping(selectors.DefaultSelector):
    """A selector that lets time pass instead of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready now; nothing ready ever again is an error, not a wait."""
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("everything waits for something that never comes")
        if not ready and timeout is not None:
            self.now_s += max(timeout, 0.0)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop that begins at second 0; `leap` is time in which it was not run."""

    def __init__(self) -> None:
        self._leaping = _Leaping()
        super().__init__(self._leaping)

    def time(self) -> float:
        """Seconds of virtual time."""
        return self._leaping.now_s

    def leap(self, seconds: float) -> None:
        """Let time pass in which the loop is held up."""
        self._leaping.now_s += seconds


def run_virtual(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end in virtual time.

    Raises:
        RuntimeError: tasks of the work are still there afterwards, or all wait for ever.
        TimeoutError: it takes more than five minutes of virtual time.
    """
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(_alone(work))


async def _alone(work: Coroutine[Any, Any, T]) -> T:
    """The work, which must not leave tasks behind."""
    async with asyncio.timeout(LIMIT_S):
        result = await work
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        raise RuntimeError(f"tasks left: {sorted(task.get_name() for task in left if task)}")
    return result


def leap(seconds: float) -> None:
    """Hold up the running virtual loop for so long."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    loop.leap(seconds)
