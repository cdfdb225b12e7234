"""A stage with a life of its own: receives, chooses, computes, logs and sends.

Only the compute thread touches the stage; control (open a session, export one) is done by it too,
between two chunks. Chunks of one session come in order, those of different sessions by deadline.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from pipeline.channel import Listener
from pipeline.checkpoint import Checkpoints, Kept, unpack_messages
from pipeline.edge import EdgeSettings, Receiver, Sender, Target
from pipeline.errands import Errands
from pipeline.frame_ring import FrameRing, RingSpec, open_ring
from pipeline.inbox import Inbox
from pipeline.lane_wave import FAULTS, BatchStage
from pipeline.message import Message
from pipeline.message_work import make_all, num_bypassed
from pipeline.packing import (
    pack_error,
    pack_state,
    pack_video,
    pack_work,
    unpack_state,
)
from pipeline.session_state import SessionState
from pipeline.spans import Span, Spans, StageReport
from pipeline.stage import ChunkWork, SessionInputs, Stage
from pipeline.step_cost import BatchProfile, Ema

# How long an end waits for the compute thread; one that computes on can reach nobody any more.
END_S = 60.0
# How often a session's memory is added up; watchers look five times a second.
WEIGH_EVERY_NS = 200_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """How a node works.

    A checkpoint is kept every `checkpoint_chunks` chunks of a session; 0 keeps none. Chunks that
    are due later than `horizon_s` from now can wait for those that nobody waits for.
    """

    edge: EdgeSettings
    checkpoint_chunks: int = 4
    horizon_s: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """A session as a node must know it; `ring` is where a decoder puts its pictures.

    A node that takes another's place goes on from `kept` if it finds no checkpoint of its own;
    pictures up to chunk `done` have come out of the chain and are not shown again.
    """

    inputs: SessionInputs
    epoch: int
    ring: RingSpec | None = None
    kept: Kept | None = None
    done: int = -1


@dataclass(slots=True)
class _Open:
    """What a node holds of a session beside the stage's own state."""

    opening: Opening
    ring: FrameRing | None
    failed: bool = False
    weigh_at_ns: int = 0


class StageNode:
    """Runs one stage between a listener and wherever `lead_to` points."""

    def __init__(
        self,
        stage: Stage[Any],
        listener: Listener,
        *,
        name: str,
        settings: NodeSettings,
        store: Checkpoints | None = None,
        on_crash: Callable[[BaseException], None] | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Own the stage and the listener; nothing moves before `start`.

        `on_crash` hears of errors that are of the node itself and not of one session.
        """
        self._stage, self._settings, self._store, self._clock_ns = stage, settings, store, clock_ns
        self._on_crash = on_crash
        batch = stage.batch if isinstance(stage, BatchStage) else BatchProfile()
        self._max_batch = len(batch.ratios)
        self._inbox = Inbox(settings.edge.log_chunks, horizon_s=settings.horizon_s, profile=batch)
        self._pace = Ema()
        self._changed = threading.Condition()
        self._errands = Errands(self._changed)
        self._open: dict[int, _Open] = {}
        self._stopping = False
        self._spans = Spans(name)
        self._busy_since_ns: int | None = None
        self._sender = Sender(name, settings.edge, on_sent=self._spans.sent)
        self._receiver = Receiver(
            name, listener, settings.edge, positions=self._positions, take=self._take_in
        )
        self._thread = threading.Thread(target=self._run, name=f"{name}-compute", daemon=True)
        self._thread.start()

    def where(self) -> str:
        """Address at which the stage before this one connects."""
        return self._receiver.address

    def start(self) -> None:
        """Begin to receive and to send; sessions that are open by now can go on."""
        self._receiver.start()
        self._sender.start()

    def lead_to(self, target: Target) -> None:
        """Send what is made to another receiver."""
        self._sender.lead_to(target)

    def prepare(self, opening: Opening) -> None:
        """Open a session, going on from its checkpoint if there is one.

        Opening a session twice changes nothing.
        """
        self._errands.ask(lambda: self._prepare(opening))

    def reset(self, epoch: int) -> None:
        """Forget a session and what it has under way; one that is unknown is no error."""
        self._errands.ask(lambda: self._reset(epoch))

    def export_state(self, epoch: int, after: int = -1) -> SessionState | None:
        """The stage's state of a session with nothing under way; None before chunk `after`.

        A node that took another's place may have to do chunks again that came out long ago.
        """
        return self._errands.ask(lambda: self._export(epoch, after))

    def import_state(self, epoch: int, state: SessionState, position: int) -> None:
        """Go on with a session after chunk `position`."""
        self._errands.ask(lambda: self._import(epoch, state, position))

    def kept(self, have: dict[int, int]) -> dict[int, Kept]:
        """Checkpoints that are newer than the chunks in `have`, both by epoch; never waits."""
        if self._store is None:
            return {}
        found = {epoch: self._store.kept(epoch) for epoch in have}
        return {
            epoch: kept
            for epoch, kept in found.items()
            if kept is not None and kept.chunk > have[epoch]
        }

    def take_spans(self) -> list[Span]:
        """What the stage did since this was asked last."""
        return self._spans.taken()

    def report(self, cursor: int) -> StageReport:
        """What the stage holds now, and what it did after `cursor`."""
        num_unsent = self._sender.num_pending()
        return self._spans.report(cursor, self._clock_ns(), num_unsent=num_unsent)

    def pace(self) -> Ema:
        """How long the stage takes for a chunk, on average over the latest."""
        return self._pace

    def busy_s(self) -> float:
        """How long the compute thread has been at what it does now; 0 when it waits."""
        since_ns = self._busy_since_ns
        return 0.0 if since_ns is None else (self._clock_ns() - since_ns) / 1e9

    def depths(self) -> dict[str, int]:
        """Messages that wait before and after the stage, and open sessions."""
        with self._changed:
            inbox, sessions = len(self._inbox), len(self._open)
        return {"inbox": inbox, "outbox": self._sender.num_pending(), "sessions": sessions}

    def stop(self) -> None:
        """End all threads and forget all sessions, their checkpoints too."""
        self._end_threads()
        for epoch in list(self._open):
            self._reset(epoch)
        self._stage.close()

    def abandon(self) -> None:
        """End all threads as if the process had died: checkpoints stay."""
        self._end_threads()
        for held in self._open.values():
            if held.ring is not None:
                held.ring.close()

    def _end_threads(self) -> None:
        self._receiver.stop()
        self._sender.stop()
        with self._changed:
            self._stopping = True
            self._errands.end()
            self._changed.notify_all()
        self._thread.join(END_S)

    def _positions(self) -> dict[str, int]:
        with self._changed:
            return self._inbox.positions()

    def _take_in(self, message: Message) -> None:
        """Called by the receiver for every message."""
        with self._changed:
            if self._inbox.put(message):
                self._spans.arrived(message, self._clock_ns())
                self._changed.notify_all()

    def _run(self) -> None:
        try:
            while (act := self._next_act()) is not None:
                self._busy_since_ns = self._clock_ns()
                act()
                self._busy_since_ns = None
        except BaseException as error:
            if self._on_crash is not None:
                self._on_crash(error)
            raise

    def _next_act(self) -> Callable[[], None] | None:
        """What to do next, None when all shall end."""
        with self._changed:
            while not self._stopping:
                errand = self._errands.take()
                if errand is not None:
                    return errand
                messages = self._inbox.take_batch(self._clock_ns(), self._max_batch)
                if messages:
                    return lambda: self._process(messages)
                self._changed.wait()
            return None

    def _process(self, messages: list[Message]) -> None:
        """Do the stage's share of a chunk of each session, unless that failed before."""
        there = [(m, held) for m in messages if (held := self._open.get(m.epoch)) is not None]
        live = [(message, held) for message, held in there if not held.failed]
        began_ns = self._clock_ns()
        for message, _ in live:
            self._spans.began(message, began_ns)
        made = make_all(self._stage, [message for message, _ in live], began_ns)
        to_send = [
            self._sent(held, m, result) for (m, held), result in zip(live, made, strict=True)
        ]
        ended_ns = self._clock_ns()
        for (message, held), result, sent in zip(live, made, to_send, strict=True):
            held.failed = sent.kind == "error"
            left_out = num_bypassed(result)
            self._spans.done(message, began_ns, ended_ns, num_bypassed=left_out)
            self._sender.append(sent)
        # The next stage has its input by now: whatever is only noted comes last.
        for message, held in live:
            self._account(message, (ended_ns - began_ns) / 1e6 / len(live), failed=held.failed)
            self._note_memory(held, message, ended_ns)
            self._save_if_due(held, message)

    def _note_memory(self, held: _Open, message: Message, now_ns: int) -> None:
        """Note what the stage holds of a session, as often as anybody looks."""
        if now_ns >= held.weigh_at_ns:
            held.weigh_at_ns = now_ns + WEIGH_EVERY_NS
            num_bytes = self._stage.memory_bytes(message.session)
            self._spans.holds(message.epoch, message.session, num_bytes)

    def _save_if_due(self, held: _Open, message: Message) -> None:
        every = self._settings.checkpoint_chunks
        if every and (message.chunk + 1) % every == 0 and not held.failed:
            self._save(held, message.chunk)

    def _account(self, message: Message, spent_ms: float, *, failed: bool) -> None:
        """Note what a chunk took; of a session that failed nothing more will be computed."""
        with self._changed:
            self._inbox.spent(message.epoch, spent_ms)
            if failed:
                self._inbox.fail(message.epoch)
            else:
                self._pace = self._pace.after(spent_ms)

    def _sent(self, held: _Open, message: Message, made: Any) -> Message:
        """What to send of what was made: work, pictures, or word that the session failed."""
        if isinstance(made, Message):
            return made
        try:
            if isinstance(made, Exception):
                return pack_error(made, message)
            if isinstance(made, ChunkWork):
                return self._pack(made, message)
            return self._show(held, pack_video(made, message))
        except FAULTS as error:
            return pack_error(error, message)

    def _pack(self, work: ChunkWork, message: Message) -> Message:
        return pack_work(work, epoch=message.epoch, due_ns=message.due_ns)

    def _show(self, held: _Open, pictures: Message) -> Message:
        """The pictures in the ring, if there is one, and a message that says so."""
        if held.ring is None:
            return pictures
        frames_THWC = pictures.tensors["frames_THWC"].numpy()
        if pictures.chunk > held.opening.done:
            held.ring.write(pictures.chunk, frames_THWC)
        shape = dict(zip("THWC", frames_THWC.shape, strict=True))
        return Message(
            kind="frames",
            session=pictures.session,
            epoch=pictures.epoch,
            chunk=pictures.chunk,
            due_ns=pictures.due_ns,
            facts={**pictures.facts, "shape": shape},
            tensors={k: v for k, v in pictures.tensors.items() if k != "frames_THWC"},
        )

    def _prepare(self, opening: Opening) -> None:
        if opening.epoch in self._open:
            return
        ring = open_ring(opening.ring)
        self._stage.prepare(opening.inputs)
        self._open[opening.epoch] = _Open(opening=replace(opening, kept=None), ring=ring)
        kept = self._load(opening)
        position = -1
        if kept:
            self._stage.import_state(opening.inputs.session, unpack_state(kept[0]))
            position = kept[0].chunk
        self._sender.open(opening.epoch, kept[1:])
        with self._changed:
            self._inbox.open(opening.epoch, position, fresh=not kept)

    def _load(self, opening: Opening) -> list[Message]:
        """The session's checkpoint, this node's own or the one that it was given."""
        kept = [] if self._store is None else self._store.load(opening.epoch)
        if not kept and opening.kept is not None:
            kept = unpack_messages(opening.kept.data)
            if self._store is not None:
                self._store.save(opening.epoch, kept)
        return kept

    def _reset(self, epoch: int) -> None:
        held = self._open.pop(epoch, None)
        if held is None:
            return
        with self._changed:
            self._inbox.close(epoch)
        self._sender.close(epoch)
        self._spans.forget(epoch)
        self._stage.reset(held.opening.inputs.session)
        if held.ring is not None:
            held.ring.close()
        if self._store is not None:
            self._store.drop(epoch)

    def _export(self, epoch: int, after: int) -> SessionState | None:
        with self._changed:
            if not self._inbox.has_done(epoch, after):
                return None
        return self._stage.export_state(self._open[epoch].opening.inputs.session)

    def _import(self, epoch: int, state: SessionState, position: int) -> None:
        held = self._open[epoch]
        self._stage.import_state(held.opening.inputs.session, state)
        self._sender.open(epoch)
        with self._changed:
            self._inbox.open(epoch, position)
        self._save(held, position)

    def _save(self, held: _Open, chunk: int) -> None:
        """Keep the session's state and its log: who follows can serve the next stage from them."""
        if self._store is None or self._stopping:
            return
        epoch, session = held.opening.epoch, held.opening.inputs.session
        state = pack_state(
            self._stage.export_state(session), session=session, epoch=epoch, chunk=chunk
        )
        self._store.save(epoch, [state, *self._sender.logged(epoch)])
