"""A chain whose stages live elsewhere: sends chunks in, takes pictures out, keeps the window.

At most `window` chunks of a session are under way; that bounds every queue between here and the
decoder. What was sent stays in the entry's log until it can no longer be needed.
"""

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path

from pipeline.chain_cuts import Cuts
from pipeline.chain_events import ChainEvent
from pipeline.chain_export import Progress, pack_progress, unpack_progress
from pipeline.chain_session import (
    Session,
    SessionProgress,
    due_every_ms,
    progress_of,
    raised,
    stream_time,
    with_pictures,
)
from pipeline.chain_settings import ChainSettings
from pipeline.chain_state import ChainState
from pipeline.channel import listen
from pipeline.controller import ChainEnds, Controller
from pipeline.doorman import ChainCapacity, Doorman
from pipeline.edge import EdgeSettings, Receiver, Sender
from pipeline.errors import ChainDown, ChainDraining
from pipeline.exports import Exporter, Exports
from pipeline.frame_ring import FrameRing, RingSpec
from pipeline.host import Host
from pipeline.incidents import Incidents
from pipeline.message import Message
from pipeline.packing import pack_work, unpack_video
from pipeline.recipe import Recipe, state_shares
from pipeline.session_state import SessionState
from pipeline.spans import Spans
from pipeline.stage import ChunkWork, SessionInputs
from pipeline.stage_node import Opening
from video.chunk import VideoChunk

__all__ = ["ChainSettings", "SessionProgress", "StagedChain"]


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
        self._sessions: dict[str, Session] = {}
        self._epochs = count(1)
        self._num_done, self._is_held = 0, False
        self._changed = threading.Condition()
        edge = EdgeSettings(
            token=secrets.token_hex(16),
            log_chunks=settings.log_chunks(self._window),
        )
        self._log_chunks = edge.log_chunks
        self._incidents = Incidents()
        self.entry, self.exit = Spans("source"), Spans("sink")
        self._source = Sender("source", edge, on_sent=self.entry.sent)
        self.cuts = Cuts(folder, settings, edge)
        listener = listen(self.cuts.sink_address, timeout_s=edge.timeout_s)
        self._sink = Receiver("sink", listener, edge, positions=self._positions, take=self._take_in)
        specs = self.cuts.specs(recipes)
        self.names = tuple(spec.name for spec in specs)
        self._shares = state_shares(recipes)
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

    def prepare(self, inputs: SessionInputs) -> None:
        """Open a session in every stage; one of the same name is closed first.

        Raises:
            ChainFull: there is no room for it, or no time to make it live.
            ChainDraining: the chain is being shut down.
        """
        self._require_open()
        self.reset(inputs.session)
        chunk_ms = due_every_ms(inputs, self._settings)
        self._doorman.admit(inputs.session, chunk_ms, self.controller.paces())
        try:
            self._open(inputs)
        except BaseException:
            self._doorman.leave(inputs.session)
            raise

    def _open(self, inputs: SessionInputs) -> None:
        """Open a session that was let in."""
        epoch = next(self._epochs)
        *_, height, width = inputs.image_BCHW.shape
        spec = RingSpec(
            path=str(self._folder / f"frames{epoch}"),
            num_slots=self._window + 1,
            slot_bytes=self._settings.pictures_per_chunk * height * width * 3,
        )
        with self._changed:
            now_ns, others = self._clock_ns(), list(self._sessions.values())
            clock = stream_time(inputs, self._settings, now_ns, others)
            session = Session(epoch=epoch, ring=FrameRing(spec, create=True), time=clock)
            self._sessions[inputs.session] = session
            picture_ns = clock.chunk_ns // self._settings.pictures_per_chunk
            self._incidents.open(inputs.session, picture_ns)
        self._source.open(epoch)
        try:
            self.controller.open(Opening(inputs=inputs, epoch=epoch, ring=spec))
        except BaseException:
            self._forget(inputs.session)
            raise

    def submit(self, work: ChunkWork) -> list[VideoChunk]:
        """Send the session's next chunk; return the pictures that are there by now.

        Waits while the window is full.

        Raises:
            ModelError: the session failed in a stage.
            ChainDown: the chain cannot be healed, or nothing comes out.
            ChainDraining: the chain is being shut down.
        """
        session = self._sessions[work.session]
        self._send(session, work)
        return self._taken(session)

    def _send(self, session: Session, work: ChunkWork) -> None:
        """Send the session's next chunk as soon as there is room."""
        index = work.latent.index
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
        self._source.append(pack_work(work, epoch=session.epoch, due_ns=due_ns))

    def _has_room(self, session: Session) -> bool:
        """Whether one more chunk fits the window, and every log that may have to be played again.

        A chain that drains has room for nobody, but whoever asks shall hear so at once.
        """
        reach = session.completed if self._exports is None else self._exports.reach(session.epoch)
        is_in_window = session.submitted - session.completed < self._window
        is_in_logs = session.submitted - reach < self._log_chunks - 1
        has_room = is_in_window and is_in_logs and not self._is_held
        return has_room or self.controller.state is ChainState.DRAINING

    def _require_open(self) -> None:
        if self.controller.state is ChainState.DRAINING:
            raise ChainDraining("the chain is being shut down: it takes nothing new")

    def collect(self, session: str) -> list[VideoChunk]:
        """Return the pictures that came out since; raises what `submit` does."""
        self.controller.require_alive()
        self._await(self._sessions[session], lambda: True)
        return self._taken(self._sessions[session])

    def drain(self, session: str) -> list[VideoChunk]:
        """Wait for what is under way; return all pictures that were not returned yet."""
        held = self._sessions[session]
        self._await(held, lambda: held.submitted == held.completed)
        return self._taken(held)

    def _await(self, session: Session | None, holds: Callable[[], bool]) -> None:
        """Wait until a condition holds, as long as chunks keep coming out of the chain."""
        with self._changed:
            seen, until_ns = self._num_done, self._deadline_ns()
            while not holds() and (session is None or session.error is None):
                self._changed.wait(0.1)
                self._incidents.look(self._clock_ns())
                self.controller.require_alive()
                if self._num_done != seen:
                    seen, until_ns = self._num_done, self._deadline_ns()
                if self._clock_ns() > until_ns:
                    raise ChainDown(
                        f"no pictures came out of the chain for {self._settings.stall_s:g} s"
                    )
            if session is not None and session.error is not None:
                raise session.error

    def _deadline_ns(self) -> int:
        return self._clock_ns() + int(self._settings.stall_s * 1e9)

    def _taken(self, session: Session) -> list[VideoChunk]:
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
        states = self.controller.export_states(held.epoch, held.completed)
        with self._changed:
            progress = Progress(submitted=held.submitted, ready=tuple(held.ready))
        return SessionState.joined([SessionState.of(pack_progress(progress)), *states])

    def import_state(self, session: str, state: SessionState) -> None:
        """Go on from an export of any chain with the same plan; the session must be prepared.

        Chunks that were under way there enter at the front, and pass the steps that they have
        behind them.

        Raises:
            ValueError: the state is of another plan, or of no chain.
        """
        held = self._sessions[session]
        progress = unpack_progress(session, state)
        position = progress.completed
        shares = [state.only(names) for names in self._shares]
        self.controller.import_states(held.epoch, shares, position)
        if self._exporter is not None:
            self._exporter.collect()
        with self._changed:
            held.submitted = held.completed = position
            held.ready.extend(progress.ready)
        self._source.open(held.epoch)
        for work in progress.works:
            self._send(held, work)

    def progress(self) -> list[SessionProgress]:
        """How far every open session is."""
        with self._changed:
            return [progress_of(name, held) for name, held in self._sessions.items()]

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

    @contextlib.contextmanager
    def between_chunks(self) -> Iterator[dict[str, Session]]:
        """A time in which nothing is under way and nothing begins; gives the sessions that have."""
        with self._changed:
            self._is_held = True
        try:
            self._await(None, self._is_drained)
            with self._changed:
                sessions = dict(self._sessions)
            yield {n: s for n, s in sessions.items() if s.completed >= 0 and s.error is None}
        finally:
            with self._changed:
                self._is_held = False
                self._changed.notify_all()

    def adopt(self, recipes: Sequence[Recipe], capacity: ChainCapacity | None) -> None:
        """Know that the controller has another cut's nodes now."""
        self._shares = state_shares(recipes)
        self.names = tuple(slot.spec.name for slot in self.controller.slots)
        self._doorman.move(capacity or ChainCapacity.unplaced(self.names))

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
                session.error = raised(message)
            elif message.chunk == session.completed + 1:
                session.ready.append(unpack_video(with_pictures(message, session.ring)))
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
