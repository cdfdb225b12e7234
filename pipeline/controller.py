"""Keeps the nodes of a chain alive and joined: spawns, watches, replaces, joins again.

It acts on levels, not on events: after any change it compares what is with what shall be (a live
node in every position, every session open in it, every edge leading to the next one), and makes
up the difference, the most downstream part first. Nothing here is on the way of a chunk.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import count
from typing import Any

from pipeline.edge import Target
from pipeline.errors import ChainDown, NodeDown
from pipeline.host import Host, NodeHandle, NodeSpec, Reply
from pipeline.session_state import SessionState
from pipeline.spans import Span
from pipeline.stage_node import Opening

# A node that dies so often while no chunk comes out would go on dying.
MAX_DEATHS_WITHOUT_PROGRESS = 5


class ChainState(Enum):
    """What a chain is doing; it moves down this list, or between running and healing."""

    STARTING = "starting"
    RUNNING = "running"
    HEALING = "healing"
    CLOSED = "closed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchSettings:
    """How soon a node counts as hung, and how long a new one may take.

    `hung_s` is without a sign of life, `stuck_s` busy with one and the same thing. On a machine
    with five times more to do than it can, signs of life came two seconds late; a process that is
    stopped is seen at once by its state.
    """

    interval_s: float = 0.1
    hung_s: float = 10.0
    stuck_s: float = 60.0
    spawn_timeout_s: float = 180.0
    call_timeout_s: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """A node that was replaced: which, why, and how long it took until all was joined again."""

    position: int
    reason: str
    healed_s: float


@dataclass(slots=True)
class _Slot:
    """One position of the chain and who fills it."""

    spec: NodeSpec
    handle: NodeHandle | None = None
    address: str = ""
    started: bool = False
    leads_to: str = ""
    sessions: set[int] = field(default_factory=set)


class Controller:
    """The nodes of one chain, from the first stage to the decoder."""

    def __init__(
        self,
        host: Host,
        specs: Sequence[NodeSpec],
        *,
        lead_source: Callable[[Target], None],
        sink_address: str,
        num_done: Callable[[], int],
        watch: WatchSettings,
    ) -> None:
        """Know what shall be; `start` makes it so.

        `lead_source` points the chain's entry at the first node, `sink_address` is where the last
        one sends, `num_done` counts the chunks that have come out (progress, by which a node that
        dies of what it is given is told from bad luck).
        """
        self._host, self._watch = host, watch
        self._slots = [_Slot(spec=spec) for spec in specs]
        self._lead_source, self._sink_address, self._num_done = lead_source, sink_address, num_done
        self._source_leads_to = ""
        self._generations = count(1)
        self._openings: dict[int, Opening] = {}
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._deaths, self._done_at_death = 0, -1
        self._thread = threading.Thread(target=self._run, name="chain-watch", daemon=True)
        self.state = ChainState.STARTING
        self.failure = ""
        self.replacements: list[Replacement] = []
        self._lost: list[tuple[int, str, float]] = []

    def start(self) -> None:
        """Make all nodes and join them.

        Raises:
            ModelError, PlanError, ChainError: a stage cannot be built.
            ChainDown: nodes die as soon as they are made.
        """
        with self._lock:
            self._converge()
            self.state = ChainState.RUNNING
        self._thread.start()

    def open(self, opening: Opening) -> None:
        """Open a session in all nodes."""
        with self._lock:
            self.require_alive()
            self._openings[opening.epoch] = opening
            try:
                self._converge()
            except Exception:
                self.close_session(opening.epoch)
                raise

    def close_session(self, epoch: int) -> None:
        """Forget a session everywhere; nodes that are down know nothing of it anyway."""
        with self._lock:
            self._openings.pop(epoch, None)
            for slot in self._slots:
                slot.sessions.discard(epoch)
                if slot.handle is not None:
                    with contextlib.suppress(NodeDown):
                        slot.handle.call("reset", epoch).result(self._watch.call_timeout_s)

    def export_states(self, epoch: int) -> list[SessionState]:
        """The states of all stages of a session that has nothing under way."""
        return [self._ask(slot, "export_state", epoch) for slot in self._slots]

    def import_states(self, epoch: int, states: Sequence[SessionState], position: int) -> None:
        """Give every stage its state, after chunk `position`."""
        for slot, state in zip(self._slots, states, strict=True):
            self._ask(slot, "import_state", epoch, state, position)

    def spans(self) -> list[Span]:
        """What the stages did since this was asked last."""
        return [span for slot in self._slots for span in self._ask(slot, "take_spans")]

    def require_alive(self) -> None:
        """Complain if the chain is closed or beyond healing.

        Raises:
            ChainDown: it is.
        """
        if self.state in (ChainState.FAILED, ChainState.CLOSED):
            raise ChainDown(self.failure or "the chain is closed")

    def kill(self, position: int) -> None:
        """End a node, for tests of what follows."""
        handle = self._slots[position].handle
        if handle is not None:
            handle.kill()

    @property
    def num_nodes(self) -> int:
        """Stages, the decoder included."""
        return len(self._slots)

    def handles(self) -> list[NodeHandle | None]:
        """Who fills the positions now."""
        return [slot.handle for slot in self._slots]

    def close(self) -> None:
        """End the watch and all nodes."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self._host.close()
        if self.state is not ChainState.FAILED:
            self.state = ChainState.CLOSED

    def _run(self) -> None:
        while not self._stopping.is_set():
            handles = [slot.handle for slot in self._slots if slot.handle is not None]
            dead = self._host.wait_dead(handles, self._watch.interval_s)
            reasons = {id(handle): "died" for handle in dead}
            for handle in handles:
                if id(handle) not in reasons and self._is_hung(handle):
                    reasons[id(handle)] = "hung"
            if reasons and not self._stopping.is_set():
                self._heal(reasons)

    def _is_hung(self, handle: NodeHandle) -> bool:
        silent = handle.silent_s() > self._watch.hung_s
        return silent or handle.busy_s() > self._watch.stuck_s

    def _heal(self, reasons: dict[int, str]) -> None:
        """Replace nodes that are gone; on failure the chain is over."""
        with self._lock:
            self.state = ChainState.HEALING
            try:
                for slot in self._slots:
                    if id(slot.handle) in reasons:
                        self._drop(slot, reasons[id(slot.handle)])
                self._converge()
            except Exception as error:  # noqa: BLE001 - told to whoever uses the chain next
                self.state = ChainState.FAILED
                self.failure = " ".join(str(error).split()) or type(error).__name__
                return
            self.state = ChainState.RUNNING

    def _converge(self) -> None:
        """Make up all differences; nodes that die meanwhile are replaced in turn."""
        while True:
            try:
                self._spawn_missing()
                self._open_missing()
                self._join()
            except NodeDown:
                continue
            break
        self._host.replenish()
        now_s = time.monotonic()
        for position, reason, lost_s in self._lost:
            replaced = Replacement(position=position, reason=reason, healed_s=now_s - lost_s)
            self.replacements.append(replaced)
        self._lost.clear()

    def _spawn_missing(self) -> None:
        """Have a live node in every position; new ones are made side by side."""
        missing = [slot for slot in self._slots if slot.handle is None]
        for slot in missing:
            generation = next(self._generations)
            address = slot.spec.address.replace("*", str(generation))
            slot.handle = self._host.spawn(replace(slot.spec, address=address))
        for slot in missing:
            address = self._ask(slot, "where", timeout_s=self._watch.spawn_timeout_s)
            slot.address = str(address)

    def _open_missing(self) -> None:
        """Have every session open in every node."""
        replies = [
            (slot, opening.epoch, slot.handle.call("prepare", opening))
            for slot in self._slots
            if slot.handle is not None
            for opening in self._openings.values()
            if opening.epoch not in slot.sessions
        ]
        for slot, epoch, reply in replies:
            self._settle(slot, reply, self._watch.call_timeout_s)
            slot.sessions.add(epoch)

    def _join(self) -> None:
        """Have every edge lead to the next node, the most downstream first."""
        leads_to = self._sink_address
        for slot in reversed(self._slots):
            if slot.leads_to != leads_to:
                generation = next(self._generations)
                self._ask(slot, "lead_to", Target(address=leads_to, generation=generation))
                slot.leads_to = leads_to
            if not slot.started:
                self._ask(slot, "start")
                slot.started = True
            leads_to = slot.address
        if self._source_leads_to != leads_to:
            self._lead_source(Target(address=leads_to, generation=next(self._generations)))
            self._source_leads_to = leads_to

    def _ask(
        self, slot: _Slot, method: str, *arguments: object, timeout_s: float | None = None
    ) -> Any:
        """Call a node and wait; one that does not answer is dropped.

        Raises:
            NodeDown: it is gone.
        """
        if slot.handle is None:
            raise NodeDown(f"stage {slot.spec.name} is being replaced")
        reply = slot.handle.call(method, *arguments)
        return self._settle(slot, reply, timeout_s or self._watch.call_timeout_s)

    def _settle(self, slot: _Slot, reply: Reply, timeout_s: float) -> Any:
        try:
            return reply.result(timeout_s)
        except NodeDown:
            with self._lock:
                self._drop(slot, "gave no answer")
            raise

    def _drop(self, slot: _Slot, reason: str) -> None:
        """Fence off a node: it can reach nobody any more, and nobody waits for it.

        Raises:
            ChainDown: nodes die again and again while nothing comes out.
        """
        if slot.handle is not None:
            slot.handle.kill()
        slot.handle, slot.started, slot.leads_to = None, False, ""
        slot.sessions.clear()
        self._lost.append((slot.spec.position, reason, time.monotonic()))
        done = self._num_done()
        self._deaths = 1 if done != self._done_at_death else self._deaths + 1
        self._done_at_death = done
        if self._deaths > MAX_DEATHS_WITHOUT_PROGRESS:
            raise ChainDown(
                f"stage {slot.spec.name} was lost, the {self._deaths}th in a row without a "
                "chunk coming out: the chain gives up"
            )
