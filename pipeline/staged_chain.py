"""A chain whose stages live elsewhere: sends chunks in, takes pictures out, keeps the window.

At most `window` chunks of a session are under way; that bounds every queue between here and the
decoder. What was sent stays in the entry's log until it can no longer be needed.
"""

import math
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

import torch

from pipeline.chain_events import ChainEvent
from pipeline.chain_settings import ChainSettings
from pipeline.chain_state import ChainState
from pipeline.channel import listen
from pipeline.controller import ChainEnds, Controller
from pipeline.doorman import ChainCapacity, Doorman
from pipeline.edge import EdgeSettings, Receiver, Sender
from pipeline.errors import ChainDown, ChainDraining, ModelError
from pipeline.exports import Exporter, Exports
from pipeline.frame_ring import FrameRing, RingSpec
from pipeline.host import Host, NodeSpec
from pipeline.incidents import Incidents
from pipeline.message import Message
from pipeline.packing import pack_pictures, pack_work, unpack_pictures, unpack_video
from pipeline.recipe import Recipe
from pipeline.session_state import SessionState
from pipeline.spans import Spans
from pipeline.stage import ChunkWork, SessionInputs
from pipeline.stage_node import NodeSettings, Opening
from pipeline.stream_time import StreamTime
from video.chunk import VideoChunk

__all__ = ["ChainSettings", "SessionProgress", "StagedChain"]


@dataclass(slots=True)
class _Session:
    """One open session as seen from the entry and the exit."""

    epoch: int
    ring: FrameRing
    time: StreamTime
    submitted: int = -1
    completed: int = -1
    ready: deque[VideoChunk] = field(default_factory=deque)
    error: Exception | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionProgress:
    """The last chunks of a session that went in and came out, and when the next is due (or 0)."""

    session: str
    epoch: int
    submitted: int
    completed: int
    next_due_ns: int


class StagedChain:
    """The `Chain` of stages that a host runs; one thread at a time per session."""

    def __init__(
        self,
        host: Host,
        recipes: Sequence[Recipe],
        folder: Path,
        settings: ChainSettings,
        *,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        another_host: Callable[[], Host] | None = None,
    ) -> None:
        """Make the nodes and join them; `folder` is the chain's own, for sockets and memory.

        `another_host` makes a new place for all stages if `host` takes none any more.

        Raises:
            ModelError, PlanError, ChainError: a stage cannot be built.
            ChainDown: nodes die as soon as they are made.
        """
        self._folder, self._settings, self._clock_ns = folder, settings, clock_ns
        self.folder = folder
        self._window = settings.window or len(recipes) + 2
        self._sessions: dict[str, _Session] = {}
        self._epochs = count(1)
        self._num_done = 0
        self._changed = threading.Condition()
        edge = EdgeSettings(
            token=secrets.token_hex(16),
            log_chunks=settings.log_chunks(self._window),
        )
        self._log_chunks = edge.log_chunks
        self._incidents = Incidents()
        self.entry, self.exit = Spans("source"), Spans("sink")
        self._source = Sender("source", edge, on_sent=self.entry.sent)
        listener = listen(self._address("sink"), timeout_s=edge.timeout_s)
        self._sink = Receiver("sink", listener, edge, positions=self._positions, take=self._take_in)
        node = NodeSettings(
            edge=edge,
            checkpoint_chunks=settings.checkpoint_chunks,
            horizon_s=2 * settings.latency_s,
        )
        specs = [self._spec(index, recipe, node) for index, recipe in enumerate(recipes)]
        self.names = tuple(spec.name for spec in specs)
        self._doorman = Doorman(settings.capacity or ChainCapacity.unplaced(self.names))
        is_driver = settings.keep == "driver" and settings.checkpoint_chunks > 0
        self._exports = Exports(len(specs)) if is_driver else None
        self.controller = Controller(
            host,
            specs,
            ChainEnds(
                lead_source=self._source.lead_to,
                sink_address=self._sink.address,
                num_done=lambda: self._num_done,
                last_done=self._last_done,
            ),
            settings.watch,
            exports=self._exports,
            another_host=another_host,
            on_event=self._incidents.note,
        )
        self._exporter = (
            None if self._exports is None else Exporter(self._exports, self.controller.handles)
        )
        self._source.start()
        self._sink.start()
        if self._exporter is not None:
            self._exporter.start()
        try:
            self.controller.start()
        except BaseException:
            self.close()
            raise

    def _spec(self, index: int, recipe: Recipe, node: NodeSettings) -> NodeSpec:
        return NodeSpec(
            position=index,
            recipe=recipe,
            address=self._address(f"n{index}-*"),
            settings=node,
            store=self._folder / f"state{index}" if self._settings.keep == "shared" else None,
            threads=self._settings.threads,
        )

    def _address(self, name: str) -> str:
        """Where something of this chain listens."""
        if self._settings.transport == "tcp":
            return "tcp:127.0.0.1:0"
        if self._settings.transport == "queue":
            return f"queue:{self._folder.name}/{name}"
        return f"unix:{self._folder / name}"

    def prepare(self, inputs: SessionInputs) -> None:
        """Open a session in every stage; one of the same name is closed first.

        Raises:
            ChainFull: there is no room for it, or no time to make it live.
            ChainDraining: the chain is being shut down.
        """
        self._require_open()
        self.reset(inputs.session)
        self._doorman.admit(inputs.session, self._chunk_ms(inputs), self.controller.paces())
        try:
            self._open(inputs)
        except BaseException:
            self._doorman.leave(inputs.session)
            raise

    def _chunk_ms(self, inputs: SessionInputs) -> float:
        """How long a chunk shows, infinite for a session that nobody watches as it is made."""
        shows_s = float(self._settings.pictures_per_chunk / inputs.fps)
        return shows_s * 1e3 if inputs.live else math.inf

    def _open(self, inputs: SessionInputs) -> None:
        """Open a session that was let in."""
        epoch = next(self._epochs)
        *_, height, width = inputs.image_BCHW.shape
        spec = RingSpec(
            path=str(self._folder / f"frames{epoch}"),
            num_slots=self._window + 1,
            slot_bytes=self._settings.pictures_per_chunk * height * width * 3,
        )
        chunk_ns = int(self._settings.pictures_per_chunk * 1_000_000_000 / inputs.fps)
        with self._changed:
            session = _Session(
                epoch=epoch,
                ring=FrameRing(spec, create=True),
                time=StreamTime(
                    base_ns=self._clock_ns() if inputs.live else self._first_due_ns(),
                    chunk_ns=chunk_ns,
                    latency_ns=int(self._settings.latency_s * 1e9) if inputs.live else 0,
                    live=inputs.live,
                ),
            )
            self._sessions[inputs.session] = session
            self._incidents.open(inputs.session, chunk_ns // self._settings.pictures_per_chunk)
        self._source.open(epoch)
        try:
            self.controller.open(Opening(inputs=inputs, epoch=epoch, ring=spec))
        except BaseException:
            self._forget(inputs.session)
            raise

    def _first_due_ns(self) -> int:
        """When a new session's time begins: with the slowest of those that run ahead of time."""
        ahead = [s.time.due_ns(s.completed) for s in self._sessions.values() if not s.time.live]
        return max(self._clock_ns(), min(ahead, default=0))

    def submit(self, work: ChunkWork) -> list[VideoChunk]:
        """Send the session's next chunk; return the pictures that are there by now.

        Waits while the window is full.

        Raises:
            ModelError: the session failed in a stage.
            ChainDown: the chain cannot be healed, or nothing comes out.
            ChainDraining: the chain is being shut down.
        """
        session, index = self._sessions[work.session], work.latent.index
        with self._changed:
            if index != session.submitted + 1:
                raise ValueError(
                    f"chunk {index} of session {work.session} came after {session.submitted}: "
                    "submit chunks in order"
                )
            session.time.feed(index, self._clock_ns(), waits=not self._has_room(session))
            self._await(session, lambda: self._has_room(session))
            self._require_open()
            session.submitted = index
            self._incidents.submitted(work.session, index, session.time.due_ns(index))
        due_ns = session.time.deadline_ns(index)
        self._source.append(pack_work(work, epoch=session.epoch, due_ns=due_ns, step=0))
        return self._taken(session)

    def _has_room(self, session: _Session) -> bool:
        """Whether one more chunk fits the window, and every log that may have to be played again.

        A chain that drains has room for nobody, but whoever asks shall hear so at once.
        """
        reach = session.completed if self._exports is None else self._exports.reach(session.epoch)
        is_in_window = session.submitted - session.completed < self._window
        is_in_logs = session.submitted - reach < self._log_chunks - 1
        return (is_in_window and is_in_logs) or self.controller.state is ChainState.DRAINING

    def _require_open(self) -> None:
        if self.controller.state is ChainState.DRAINING:
            raise ChainDraining("the chain is being shut down: it takes nothing new")

    def drain(self, session: str) -> list[VideoChunk]:
        """Wait for what is under way; return all pictures that were not returned yet."""
        held = self._sessions[session]
        self._await(held, lambda: held.submitted == held.completed)
        return self._taken(held)

    def _await(self, session: _Session, holds: Callable[[], bool]) -> None:
        """Wait until a condition holds, as long as chunks keep coming out of the chain."""
        with self._changed:
            seen, until_ns = self._num_done, self._deadline_ns()
            while not holds() and session.error is None:
                self._changed.wait(0.1)
                self._incidents.look(self._clock_ns())
                self.controller.require_alive()
                if self._num_done != seen:
                    seen, until_ns = self._num_done, self._deadline_ns()
                if self._clock_ns() > until_ns:
                    raise ChainDown(
                        f"no pictures came out of the chain for {self._settings.stall_s:g} s"
                    )
            if session.error is not None:
                raise session.error

    def _deadline_ns(self) -> int:
        return self._clock_ns() + int(self._settings.stall_s * 1e9)

    def _taken(self, session: _Session) -> list[VideoChunk]:
        with self._changed:
            pictures = list(session.ready)
            session.ready.clear()
        return pictures

    def reset(self, session: str) -> None:
        """Forget a session and what it has under way; one that is unknown is no error."""
        held = self._sessions.get(session)
        if held is not None:
            self.controller.close_session(held.epoch)
            self._forget(session)

    def _forget(self, session: str) -> None:
        with self._changed:
            held = self._sessions.pop(session)
            held.ring.remove()
            self._incidents.close(session)
        self._source.close(held.epoch)
        self._doorman.leave(session)

    def export_state(self, session: str) -> SessionState:
        """The state of every stage once all chunks are out, and the pictures not taken yet."""
        held = self._sessions[session]
        self._await(held, lambda: held.submitted == held.completed)
        states = self.controller.export_states(held.epoch)
        parts = {f"stage{index}": state for index, state in enumerate(states)}
        with self._changed:
            for index, video in enumerate(held.ready):
                parts[f"ready{index}"] = pack_pictures(video)
            numbers = {"position": held.submitted, "num_ready": len(held.ready)}
        parts["chain"] = SessionState(numbers=numbers)
        return SessionState.of(parts)

    def import_state(self, session: str, state: SessionState) -> None:
        """Go on from an export of a chain with the same cuts; the session must be prepared.

        Raises:
            ValueError: the export is of a chain of another kind.
        """
        held = self._sessions[session]
        numbers = state.part("chain").numbers
        if "position" not in numbers:
            raise ValueError("the state is not of a staged chain: import it where it came from")
        position = numbers["position"]
        stages = [state.part(f"stage{index}") for index in range(self.controller.num_nodes)]
        self.controller.import_states(held.epoch, stages, position)
        if self._exporter is not None:
            self._exporter.collect()
        with self._changed:
            held.submitted = held.completed = position
            for index in range(numbers["num_ready"]):
                held.ready.append(unpack_pictures(state.part(f"ready{index}")))
        self._source.open(held.epoch)

    def progress(self) -> list[SessionProgress]:
        """How far every open session is."""
        with self._changed:
            return [
                SessionProgress(
                    session=name,
                    epoch=held.epoch,
                    submitted=held.submitted,
                    completed=held.completed,
                    next_due_ns=held.time.deadline_ns(held.completed + 1),
                )
                for name, held in self._sessions.items()
            ]

    def events(self) -> list[ChainEvent]:
        """What happened since this was asked last: nodes lost and replaced, sessions late.

        Ask a few times a second; a gap shows as soon as a chunk is overdue.
        """
        self._incidents.look(self._clock_ns())
        return self._incidents.taken()

    def _last_done(self, epoch: int) -> int:
        with self._changed:
            done = [s.completed for s in self._sessions.values() if s.epoch == epoch]
        return done[0] if done else -1

    def _positions(self) -> dict[str, int]:
        with self._changed:
            return {str(s.epoch): s.completed for s in self._sessions.values()}

    def _take_in(self, message: Message) -> None:
        """Called by the receiver for whatever the decoder sends."""
        with self._changed:
            session = self._sessions.get(message.session)
            if session is None or session.epoch != message.epoch:
                return
            if message.kind == "error":
                session.error = _raised(message)
            elif message.chunk == session.completed + 1:
                session.ready.append(unpack_video(_with_pictures(message, session.ring)))
                session.completed = message.chunk
                self._num_done += 1
                now_ns = self._clock_ns()
                self.exit.done(message, now_ns, now_ns)
                self._incidents.came_out(message.session, message.chunk, now_ns)
            self._changed.notify_all()

    def move_to(self, host: Host) -> None:
        """Place all stages again on another host; sessions go on from their last checkpoints.

        Raises:
            ChainDown: the chain is over, or the new nodes die as soon as they are made.
            ChainError: the new host has no room.
        """
        self.controller.move_to(host)

    def begin_drain(self) -> None:
        """Take no session and no chunk any more; may be called from a signal handler."""
        self.controller.keeper.try_go(ChainState.DRAINING)

    def shut_down(self, deadline_s: float) -> bool:
        """Let what was accepted come out, at most so long, and end all nodes.

        Pictures that nobody has taken yet can still be had by `drain`, until `close`. Returns
        whether everything came out.
        """
        self.begin_drain()
        until_ns = self._clock_ns() + int(deadline_s * 1e9)
        with self._changed:
            while not self._is_drained() and self._clock_ns() < until_ns:
                if self.controller.keeper.is_over:
                    break
                self._changed.wait(0.1)
            is_drained = self._is_drained()
        self._end()
        return is_drained

    def _is_drained(self) -> bool:
        """Whether nothing is under way; a session that failed has nothing to wait for."""
        held = self._sessions.values()
        return all(s.submitted == s.completed or s.error is not None for s in held)

    def _end(self) -> None:
        if self._exporter is not None:
            self._exporter.stop()
        self.controller.close()
        self._source.stop()
        self._sink.stop()

    def close(self) -> None:
        """End all nodes and forget all sessions."""
        self._end()
        for session in list(self._sessions):
            self._forget(session)


def _with_pictures(message: Message, ring: FrameRing) -> Message:
    """The message with its pictures copied out of the ring."""
    shape = message.facts.get("shape")
    if not isinstance(shape, dict):
        return message
    frames_THWC = ring.read(message.chunk, tuple(shape[axis] for axis in "THWC"))
    return replace(message, tensors={"frames_THWC": torch.from_numpy(frames_THWC)})


def _raised(message: Message) -> Exception:
    """What the stage raised, as far as it is told."""
    text = str(message.facts.get("text"))
    return ModelError(text) if message.facts.get("type") == "ModelError" else ChainDown(text)
