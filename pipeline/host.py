"""Where stage nodes run: what a controller asks of threads, processes or Ray actors alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pipeline.checkpoint import Checkpoints, MemoryCheckpoints
from pipeline.checkpoint_store import CheckpointStore
from pipeline.recipe import Recipe
from pipeline.stage_node import NodeSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSpec:
    """A node to be: what it runs, where it listens and where it keeps checkpoints.

    `store` is a folder for them, None for the node's own memory; `threads` is how many threads
    torch may use there, `core` the one of its machine's that they stay on, None for any.
    """

    position: int
    recipe: Recipe
    address: str
    settings: NodeSettings
    store: Path | None
    threads: int = 1
    core: int | None = None

    @property
    def name(self) -> str:
        """What the node is called in reports."""
        return f"{self.position}-{self.recipe.name}"

    def open_checkpoints(self) -> Checkpoints | None:
        """Where the node keeps checkpoints, None where it keeps none."""
        if not self.settings.checkpoint_chunks:
            return None
        return MemoryCheckpoints() if self.store is None else CheckpointStore(self.store)


class Reply(Protocol):
    """The answer to a call, maybe still on its way."""

    def result(self, timeout_s: float) -> Any:
        """What the node's method returned.

        Raises:
            NodeDown: the node died, or did not answer in time.
            Exception: whatever the method raised.
        """
        ...


class NodeHandle(Protocol):
    """A node from outside."""

    def call(self, method: str, *arguments: Any) -> Reply:
        """Begin to call a method of the node's `StageNode`."""
        ...

    def silent_s(self) -> float:
        """How long the node has given no sign of life. Never blocks."""
        ...

    def busy_s(self) -> float:
        """How long the node has been busy with one thing. Never blocks."""
        ...

    def kill(self) -> None:
        """End the node at once, hung or not."""
        ...


class Host(Protocol):
    """Makes nodes and knows when they die."""

    def spawn(self, spec: NodeSpec) -> NodeHandle:
        """Begin to make a node; calls to it wait until it is there."""
        ...

    def replenish(self) -> None:
        """Make ready for the next death, now that all nodes are at work. Never blocks."""
        ...

    def wait_dead(self, handles: Sequence[NodeHandle], timeout_s: float) -> list[NodeHandle]:
        """Those of the nodes that are dead, as soon as one is or the time is over."""
        ...

    def close(self) -> None:
        """End all nodes."""
        ...
