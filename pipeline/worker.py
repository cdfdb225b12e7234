"""A stage node in a process of its own: what Ray makes an actor of. Knows nothing of Ray itself."""

import ctypes
import os
import signal
import socket
import threading
from dataclasses import dataclass
from typing import Any

import torch

from pipeline.channel import listen
from pipeline.host import NodeSpec
from pipeline.stage_node import StageNode

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Whereabouts:
    """Where a worker lives."""

    host: str
    pid: int


class Worker:
    """Holds one node; control calls come from several threads, `park` occupies one of them."""

    def __init__(self) -> None:
        """Without a role yet; dies with the process that started it, even if it is stopped."""
        _die_with_parent()
        self._node: StageNode | None = None
        self._is_built = threading.Event()

    def whereabouts(self) -> Whereabouts:
        """Host and process."""
        return Whereabouts(host=socket.gethostname(), pid=os.getpid())

    def warm(self) -> None:
        """Import what any role needs, so that taking one later is quick."""
        import pipeline.model  # noqa: F401 - for the sake of the import

    def build(self, spec: NodeSpec) -> None:
        """Take a role: load what the recipe needs and listen.

        Raises:
            ModelError, PlanError, WeightsError: the stage cannot be built.
        """
        try:
            self._node = self._make(spec)
        finally:
            self._is_built.set()

    def _make(self, spec: NodeSpec) -> StageNode:
        torch.set_num_threads(spec.threads)
        stage = spec.recipe.build()
        listener = listen(spec.address, timeout_s=spec.settings.edge.timeout_s)
        return StageNode(
            stage,
            listener,
            name=spec.name,
            settings=spec.settings,
            steps_done=spec.recipe.steps_done,
            store=spec.open_checkpoints(),
            on_crash=lambda _: os._exit(1),
        )

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the node; the call may overtake `build` and then waits for it."""
        self._is_built.wait()
        if self._node is None:
            raise RuntimeError("this worker could not be built")
        return getattr(self._node, method)(*arguments)

    def beat(self) -> float:
        """A sign of life: how long the node has been busy with one thing, in seconds."""
        return 0.0 if self._node is None else self._node.busy_s()

    def park(self) -> None:
        """Never return: whoever waits for this learns of the process's death."""
        threading.Event().wait()


def _die_with_parent() -> None:
    """Have the kernel end this process when its parent ends (Linux; elsewhere nothing)."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    except (OSError, AttributeError):
        return
