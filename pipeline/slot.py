"""One position of a chain and who fills it."""

import contextlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import NodeDown
from pipeline.host import NodeHandle, NodeSpec
from pipeline.step_cost import Ema

# A stage that does not tell its pace by then is taken for one that has none yet.
PACE_TIMEOUT_S = 2.0


@dataclass(slots=True)
class Slot:
    """A position: what shall be there, and what is."""

    spec: NodeSpec
    handle: NodeHandle | None = None
    address: str = ""
    started: bool = False
    leads_to: str = ""
    sessions: set[int] = field(default_factory=set)
    num_deaths: int = 0
    done_at_death: int = -1

    def learn_address(self, timeout_s: float) -> None:
        """Wait until the node is built, and note where it listens.

        Raises:
            ModelError, PlanError, ChainError: it cannot be built.
            NodeDown: it died.
        """
        if self.handle is None:
            raise NodeDown(f"stage {self.spec.name} was not made")
        self.address = str(self.handle.call("where").result(timeout_s))

    def end(self) -> None:
        """End the node, hung or not, and remove the socket that one that is killed leaves."""
        if self.handle is not None:
            self.handle.kill()
        self.handle, self.started, self.leads_to = None, False, ""
        self.sessions.clear()
        _, is_path, path = self.address.partition("unix:")
        if is_path:
            Path(path).unlink(missing_ok=True)
        self.address = ""

    def clear(self) -> None:
        """End the node and forget what it kept."""
        self.end()
        if self.spec.store is not None:
            shutil.rmtree(self.spec.store, ignore_errors=True)


def same_slot(slots: Sequence[Slot], spec: NodeSpec) -> Slot | None:
    """The slot that does the same in the same position, if there is one."""
    for slot in slots:
        if (slot.spec.position, slot.spec.recipe) == (spec.position, spec.recipe):
            return slot
    return None


def paces_of(slots: Sequence[Slot]) -> list[Ema]:
    """What each stage takes for a chunk; nothing is known of one that does not say."""
    replies = [slot.handle and slot.handle.call("pace") for slot in slots]
    paces = []
    for reply in replies:
        paces.append(Ema())
        with contextlib.suppress(RuntimeError):
            paces[-1] = reply.result(PACE_TIMEOUT_S) if reply else Ema()
    return paces
