"""Keeps the nodes of a chain alive and joined: spawns, watches, replaces, joins again.

It acts on levels, not on events: after any change it compares what is with what shall be (a live
node in every position, every session open in it, every edge leading to the next one), and makes
up the difference, the most downstream part first. Nothing here is on the way of a chunk.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

from pipeline.chain_events import ChainEvent, Replacement
from pipeline.chain_state import ChainState, StateKeeper
from pipeline.checkpoint import unpack_messages
from pipeline.edge import Target
from pipeline.errors import ChainDown, ChainError, NodeDown
from pipeline.exports import Exports, Moved
from pipeline.host import Host, NodeHandle, NodeSpec, Reply
from pipeline.losses import Losses
from pipeline.packing import unpack_state
from pipeline.session_state import SessionState
from pipeline.slot import Slot, paces_of, same_slot
from pipeline.spans import Span
from pipeline.stage_node import Opening
from pipeline.step_cost import Ema
from pipeline.watch_settings import ChainEnds, WatchSettings

__all__ = ["ChainEnds", "Controller", "WatchSettings"]

# How often a stage is asked whether it has caught up.
CATCH_UP_S = 0.02


class Controller:
    """The nodes of one chain, from the first stage to the decoder."""

    def __init__(
        self,
        host: Host,
        specs: Sequence[NodeSpec],
        ends: ChainEnds,
        watch: WatchSettings,
        *,
        exports: Exports | None = None,
        another_host: Callable[[], Host] | None = None,
        on_event: Callable[[ChainEvent], None] = lambda _: None,
    ) -> None:
        """Know what shall be; `start` makes it so.

        `exports` holds checkpoints of nodes that leave none behind; `another_host` makes a new
        place for all nodes when the old one takes none any more; `on_event` hears of losses and
        replacements, in whatever thread heals.
        """
        self._host, self._ends, self._watch = host, ends, watch
        self.slots = [Slot(spec=spec) for spec in specs]
        self._exports, self._another_host = exports, another_host
        self._losses = Losses(on_event)
        self._source_leads_to = ""
        self._generations = count(1)
        self._openings: dict[int, Opening] = {}
        self._moved: Moved = {}
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="chain-watch", daemon=True)
        self.keeper = StateKeeper()

    @property
    def replacements(self) -> list[Replacement]:
        """The latest nodes that were replaced."""
        return self._losses.replacements

    @property
    def state(self) -> ChainState:
        """What the chain is doing."""
        return self.keeper.state

    def start(self) -> None:
        """Make all nodes and join them.

        Raises:
            ModelError, PlanError, ChainError: a stage cannot be built.
            ChainDown: nodes die as soon as they are made.
        """
        with self._lock:
            self._converge()
            self.keeper.go(ChainState.RUNNING)
        self._thread.start()

    def open(self, opening: Opening) -> None:
        """Open a session in all nodes."""
        with self._lock:
            self.require_alive()
            self._openings[opening.epoch] = opening
            if self._exports is not None:
                self._exports.open(opening.epoch)
            try:
                self._converge()
            except Exception:
                self.close_session(opening.epoch)
                raise

    def close_session(self, epoch: int) -> None:
        """Forget a session everywhere; nodes that are down know nothing of it anyway."""
        with self._lock:
            self._openings.pop(epoch, None)
            if self._exports is not None:
                self._exports.close(epoch)
            for slot in self.slots:
                slot.sessions.discard(epoch)
                if slot.handle is not None:
                    with contextlib.suppress(NodeDown):
                        slot.handle.call("reset", epoch).result(self._watch.call_timeout_s)

    def export_states(self, epoch: int, after: int = -1) -> list[SessionState]:
        """The states of all stages of a session that has nothing under way after that chunk."""
        return [self._export(slot, epoch, after) for slot in self.slots]

    def _export(self, slot: Slot, epoch: int, after: int) -> SessionState:
        """A stage's state; one that took another's place may have to catch up first."""
        until_s = time.monotonic() + self._watch.call_timeout_s
        while True:
            state: SessionState | None = self._ask(slot, "export_state", epoch, after)
            if state is not None:
                return state
            if time.monotonic() > until_s:
                raise NodeDown(f"stage {slot.spec.name} does not get to chunk {after}")
            time.sleep(CATCH_UP_S)

    def import_states(self, epoch: int, states: Sequence[SessionState], position: int) -> None:
        """Give every stage its state, after chunk `position`."""
        for slot, state in zip(self.slots, states, strict=True):
            self._ask(slot, "import_state", epoch, state, position)

    def beside(self, specs: Sequence[NodeSpec]) -> list[Slot]:
        """Slots of another cut, with their nodes made already if the host has room for both.

        A stage that does the same in the same position stays.
        """
        with self._lock:
            slots = [same_slot(self.slots, spec) or Slot(spec=spec) for spec in specs]
            missing = [slot for slot in slots if slot.handle is None]
            try:
                for slot in missing:
                    self._spawn(slot)
            except ChainError:
                self.dismiss(missing)
                return slots
        try:
            for slot in missing:
                slot.learn_address(self._watch.spawn_timeout_s)
        except BaseException:
            self.dismiss(missing)
            raise
        return slots

    def take_over(self, slots: Sequence[Slot], moved: Moved) -> None:
        """Put another cut, with the sessions' states for it, in the running one's place.

        Raises:
            ChainDown: the chain is over, or the new nodes cannot be made.
        """
        with self._lock:
            self.require_alive()
            before, self.slots, self._moved = self.slots, list(slots), moved
            self.dismiss(before)
            if self._exports is not None:
                self._exports.replace(len(slots), moved)
            try:
                self._converge()
                self._set_states([slot for slot in slots if any(slot is old for old in before)])
            except Exception as error:
                self.keeper.fail(str(error) or type(error).__name__)
                raise ChainDown(f"the chain could not be cut anew: {error}") from error
            self._moved = {}

    def _set_states(self, slots: Sequence[Slot]) -> None:
        """Have stages that stay keep a checkpoint: what came before it nobody can replay now."""
        for slot in slots:
            for epoch in slot.sessions & {epoch for epoch, _ in self._moved}:
                kept = self._moved[epoch, slot.spec.position]
                state = unpack_state(unpack_messages(kept.data)[0])
                try:
                    self._ask(slot, "import_state", epoch, state, kept.chunk)
                except NodeDown:  # its successor is opened with the state
                    self._converge()
                    break

    def dismiss(self, slots: Sequence[Slot]) -> None:
        """End those of the nodes that are not of the chain, and forget what they kept."""
        for slot in slots:
            if not any(slot is mine for mine in self.slots):
                slot.clear()

    def paces(self) -> list[Ema]:
        """What each stage takes for a chunk, where it says so."""
        return paces_of(self.slots)

    def spans(self) -> list[Span]:
        """What the stages did since this was asked last."""
        return [span for slot in self.slots for span in self._ask(slot, "take_spans")]

    def require_alive(self) -> None:
        """Complain if the chain is closed or beyond healing.

        Raises:
            ChainDown: it is.
        """
        if self.keeper.is_over:
            raise ChainDown(self.keeper.failure or "the chain is closed")

    def kill(self, position: int) -> None:
        """End a node, for tests of what follows."""
        handle = self.slots[position].handle
        if handle is not None:
            handle.kill()

    def num_done(self) -> int:
        """Chunks that have come out of all sessions."""
        return self._ends.num_done()

    @property
    def num_nodes(self) -> int:
        """Stages, the decoder included."""
        return len(self.slots)

    def handles(self) -> list[NodeHandle | None]:
        """Who fills the positions now."""
        return [slot.handle for slot in self.slots]

    def close(self) -> None:
        """End the watch and all nodes."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(self._watch.spawn_timeout_s)
        self._host.close()
        self.keeper.try_go(ChainState.CLOSED)

    def _run(self) -> None:
        while not self._stopping.is_set():
            handles = [slot.handle for slot in self.slots if slot.handle is not None]
            dead = self._host.wait_dead(handles, self._watch.interval_s)
            reasons = {id(handle): "died" for handle in dead}
            for handle in handles:
                if id(handle) not in reasons and self._is_hung(handle):
                    reasons[id(handle)] = "hung"
            is_short = any(slot.handle is None for slot in self.slots)
            if (reasons or is_short) and not self._stopping.is_set():
                self._heal(reasons)

    def _is_hung(self, handle: NodeHandle) -> bool:
        silent = handle.silent_s() > self._watch.hung_s
        return silent or handle.busy_s() > self._watch.stuck_s

    def move_to(self, host: Host) -> None:
        """Place all nodes again on another host, with whatever is known of the sessions.

        Raises:
            ChainDown: the chain is over, or the new nodes die as soon as they are made.
            ChainError: the new host has no room.
        """
        with self._lock:
            self.require_alive()
            self.keeper.try_go(ChainState.HEALING)
            self._leave(host)
            self._converge()
            self.keeper.try_go(ChainState.RUNNING)

    def _leave(self, host: Host) -> None:
        """Give up the host and all that runs there."""
        for slot in self.slots:
            if slot.handle is not None:
                self._drop(slot, "left behind")
            slot.num_deaths = 0
        self._host.close()
        self._host = host

    def _heal(self, reasons: dict[int, str]) -> None:
        """Replace nodes that are gone; on failure the chain is over."""
        with self._lock:
            self.keeper.try_go(ChainState.HEALING)
            try:
                for slot in self.slots:
                    if id(slot.handle) in reasons:
                        self._drop(slot, reasons[id(slot.handle)])
                self._converge_somewhere()
            except Exception as error:  # noqa: BLE001 - told to whoever uses the chain next
                self.keeper.fail(str(error) or type(error).__name__)
                return
            self.keeper.try_go(ChainState.RUNNING)

    def _converge_somewhere(self) -> None:
        """Make up all differences, on another host if this one has no room any more."""
        try:
            self._converge()
        except ChainError:
            if self._another_host is None:
                raise
            self._leave(self._another_host())
            self._converge()

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
        self._losses.made_up()

    def _spawn_missing(self) -> None:
        """Have a live node in every position; new ones are made side by side."""
        missing = [slot for slot in self.slots if slot.handle is None]
        for slot in missing:
            self._spawn(slot)
        for slot in missing:
            address = self._ask(slot, "where", timeout_s=self._watch.spawn_timeout_s)
            slot.address = str(address)

    def _spawn(self, slot: Slot) -> None:
        """Begin to make a node."""
        slot.address = slot.spec.address.replace("*", str(next(self._generations)))
        slot.handle = self._host.spawn(replace(slot.spec, address=slot.address))

    def _open_missing(self) -> None:
        """Have every session open in every node."""
        replies = [
            (slot, opening.epoch, slot.handle.call("prepare", self._opening_for(slot, opening)))
            for slot in self.slots
            if slot.handle is not None
            for opening in self._openings.values()
            if opening.epoch not in slot.sessions
        ]
        for slot, epoch, reply in replies:
            self._settle(slot, reply, self._watch.call_timeout_s)
            slot.sessions.add(epoch)

    def _opening_for(self, slot: Slot, opening: Opening) -> Opening:
        """The opening with what is known of the session by now."""
        position, exports = slot.spec.position, self._exports
        kept = self._moved.get((opening.epoch, position))
        if kept is None and exports is not None:
            kept = exports.get(opening.epoch, position)
        return replace(opening, kept=kept, done=self._ends.last_done(opening.epoch))

    def _join(self) -> None:
        """Have every edge lead to the next node, the most downstream first."""
        leads_to = self._ends.sink_address
        for slot in reversed(self.slots):
            if slot.leads_to != leads_to:
                generation = next(self._generations)
                self._ask(slot, "lead_to", Target(address=leads_to, generation=generation))
                slot.leads_to = leads_to
            if not slot.started:
                self._ask(slot, "start")
                slot.started = True
            leads_to = slot.address
        if self._source_leads_to != leads_to:
            self._ends.lead_source(Target(address=leads_to, generation=next(self._generations)))
            self._source_leads_to = leads_to

    def _ask(
        self, slot: Slot, method: str, *arguments: object, timeout_s: float | None = None
    ) -> Any:
        """Call a node and wait; one that does not answer is dropped.

        Raises:
            NodeDown: it is gone.
        """
        if slot.handle is None:
            raise NodeDown(f"stage {slot.spec.name} is being replaced")
        reply = slot.handle.call(method, *arguments)
        return self._settle(slot, reply, timeout_s or self._watch.call_timeout_s)

    def _settle(self, slot: Slot, reply: Reply, timeout_s: float) -> Any:
        try:
            return reply.result(timeout_s)
        except NodeDown:
            with self._lock:
                self._drop(slot, "gave no answer")
            raise

    def _drop(self, slot: Slot, reason: str) -> None:
        """Fence off a node: it can reach nobody any more, and nobody waits for it.

        Raises:
            ChainDown: nodes die again and again while nothing comes out.
        """
        slot.end()
        self._losses.add(slot, reason, self._ends.num_done())
