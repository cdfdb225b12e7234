"""Nodes as threads of this process: for one machine with one device, and for tests."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

from pipeline.channel import listen
from pipeline.errors import NodeDown
from pipeline.host import NodeHandle, NodeSpec
from pipeline.stage_node import StageNode


class ThreadReply:
    """An answer that is computed by a thread of its own."""

    def __init__(self, future: "Future[Any]") -> None:
        """Wait for this future."""
        self._future = future

    def result(self, timeout_s: float) -> Any:
        """What the method returned."""
        try:
            return self._future.result(timeout_s)
        except FutureTimeout as error:
            raise NodeDown(f"no answer within {timeout_s} s") from error


class ThreadHandle:
    """A node in this process; killing it stops its threads and loses its state."""

    def __init__(self, spec: NodeSpec, on_death: threading.Event) -> None:
        """Build the node."""
        stage = spec.recipe.build()
        listener = listen(spec.address, timeout_s=spec.settings.edge.timeout_s)
        self._node: StageNode | None = StageNode(
            stage,
            listener,
            name=spec.name,
            settings=spec.settings,
            store=spec.open_checkpoints(),
            on_crash=lambda _: self._end_apart(),
        )
        self._on_death = on_death
        self._ending = threading.Lock()
        self._ended = False

    @property
    def is_dead(self) -> bool:
        """Whether it was killed and all its threads have ended."""
        return self._ended

    def call(self, method: str, *arguments: Any) -> ThreadReply:
        """Call a method at once."""
        future: Future[Any] = Future()
        node = self._node
        if node is None:
            future.set_exception(NodeDown("the node was killed"))
            return ThreadReply(future)
        try:
            future.set_result(getattr(node, method)(*arguments))
        except Exception as error:  # noqa: BLE001 - whoever asked gets it
            future.set_exception(error)
        return ThreadReply(future)

    def silent_s(self) -> float:
        """Threads are always there."""
        return 0.0

    def busy_s(self) -> float:
        """How long it has been busy with one thing."""
        node = self._node
        return 0.0 if node is None else node.busy_s()

    def _end_apart(self) -> None:
        """Die of an error of the node itself: its thread cannot wait for its own end."""
        threading.Thread(target=self.kill, name="node-crash", daemon=True).start()

    def kill(self) -> None:
        """Stop the node and forget what it knew; its checkpoints stay.

        Death shows only when the last thread has ended: a successor that came earlier would write
        the same checkpoint as a thread that still finishes one. Whoever kills too waits for that.
        """
        with self._ending:
            node, self._node = self._node, None
            if node is None:
                return
            node.abandon()
            self._ended = True
        self._on_death.set()


class ThreadHost:
    """Makes nodes in this process."""

    def __init__(self) -> None:
        """Begin with none."""
        self._death = threading.Event()
        self._handles: list[ThreadHandle] = []

    def spawn(self, spec: NodeSpec) -> ThreadHandle:
        """Make a node."""
        handle = ThreadHandle(spec, self._death)
        self._handles.append(handle)
        return handle

    def replenish(self) -> None:
        """Threads start at once."""

    def wait_dead(self, handles: Sequence[NodeHandle], timeout_s: float) -> list[NodeHandle]:
        """Those of the nodes that were killed."""
        self._death.wait(timeout_s)
        self._death.clear()
        return [h for h in handles if isinstance(h, ThreadHandle) and h.is_dead]

    def close(self) -> None:
        """Stop all nodes."""
        for handle in self._handles:
            handle.kill()
