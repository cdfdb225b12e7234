"""Live sessions of one model: messages in, slices out, one thread of work, the most urgent first.

It knows no sockets: whoever has them calls `post` and gets answers by a callback.

Shape legend: T = samples, H, W = rows and columns, C = channels.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial

import numpy as np
from viva.v1.messages import (
    AnyMessage,
    CloseSession,
    Degraded,
    EndUtterance,
    ExportState,
    Hello,
    ImportState,
    Interrupt,
    ModelReady,
    OpenSession,
    Ping,
    Pong,
    SessionClosed,
    SessionFailed,
    SessionOpened,
    SessionState,
    SliceMade,
    Speak,
    StageTrace,
    Want,
)

from pipeline.deadline_queue import NO_TURNS, ReadyChunk, in_order
from pipeline.ladder import RUNG_NAMES, WELL, Ladder, LadderSettings
from pipeline.live_due import DueTimes
from pipeline.live_face import FaceMaker, FaceRefused
from pipeline.live_seat import Seat
from pipeline.live_session import LiveSession, LiveSlice
from pipeline.live_state import StateError, export_session, import_session
from pipeline.live_timeline import TimelineFull, TimelineSettings
from pipeline.live_warmup import Warmth

# How often outputs of a chain elsewhere are looked for.
POLL_S = 0.005
# What a face may raise while it works: the session ends then, the others go on.
FAULTS = (ValueError, KeyError, RuntimeError, OSError, MemoryError)

OnMessage = Callable[[AnyMessage], None]


class LiveEngine:
    """Serves all sessions of one gateway.

    `post` may be called from any thread. Everything else happens in the engine's own thread (or in
    whoever calls `turn`), `on_message` too, which must not block.
    """

    def __init__(
        self,
        faces: FaceMaker,
        warmth: Warmth,
        on_message: OnMessage,
        *,
        max_sessions: int | None = None,
        timeline: TimelineSettings | None = None,
        ladder: LadderSettings | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open sessions with `faces`, as many as was measured or `max_sessions`."""
        self._faces, self._warmth, self._on_message = faces, warmth, on_message
        self._capacity = max_sessions or warmth.capacity.sessions
        self._timeline, self._ladder = timeline, ladder or LadderSettings()
        self._clock_s = clock_s
        self._seats: dict[str, Seat] = {}
        self._inbox: deque[tuple[AnyMessage, float]] = deque()
        self._turns = NO_TURNS
        self._wake = threading.Event()
        self._is_closing = False
        self._thread: threading.Thread | None = None

    @property
    def ready(self) -> ModelReady:
        """What answers a `Hello`."""
        width, height = self._faces.native_size
        return ModelReady(
            model=self._faces.name,
            plan=self._faces.plan_name,
            fps_num=self._faces.fps.numerator,
            fps_den=self._faces.fps.denominator,
            width=width,
            height=height,
            capacity=self._capacity,
            chunk_frames=self._faces.chunk_frames,
            warm_s=self._warmth.warm_s,
        )

    def start(self) -> None:
        """Work in a thread of its own from now on."""
        self._thread = threading.Thread(target=self._run, name="live-engine", daemon=True)
        self._thread.start()

    def post(self, message: AnyMessage) -> None:
        """Take a message; it is acted on soon, in the order in which they came."""
        self._inbox.append((message, self._clock_s()))
        self._wake.set()

    def close(self) -> None:
        """End the thread after the chunk it works on, and free all sessions."""
        self._is_closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        for name in list(self._seats):
            self._seats.pop(name).session.close()

    def _run(self) -> None:
        while not self._is_closing:
            wait_s = self.turn()
            self._wake.wait(wait_s)
            self._wake.clear()

    def turn(self) -> float | None:
        """Act on what was posted, make one chunk at most, send what is ready.

        Returns for how long there is nothing to do, None until a message comes.
        """
        self._take_messages()
        for seat in list(self._seats.values()):
            self._guarded(seat, partial(seat.collect, self._clock_s()))
            self._guarded(seat, partial(self._export, seat))
        self._send_slices()
        urgent = self._most_urgent(self._clock_s())
        if urgent is not None:
            self._make(urgent)
            # An interrupt that came meanwhile must reach this chunk, too.
            self._take_messages()
            self._send_slices()
        return self._idle_s(self._clock_s())

    def _idle_s(self, now_s: float) -> float | None:
        """How long until something is to be begun or looked for."""
        waits_s = [at_s - now_s for _, at_s in self._begin_times()]
        if any(seat.session.num_under_way > 0 for seat in self._seats.values()):
            waits_s.append(POLL_S)
        return max(0.0, min(waits_s)) if waits_s else None

    def _begin_times(self) -> list[tuple[Seat, float]]:
        """Sessions that want a chunk, and when it is to be begun."""
        found = []
        for seat in self._seats.values():
            at_s = seat.begin_at_s(self._others_s(seat))
            if at_s is not None:
                found.append((seat, at_s))
        return found

    def _others_s(self, seat: Seat) -> float:
        """How long the other sessions may keep the engine before it gets to this one."""
        chunk_s = float(self._faces.chunk_frames / self._faces.fps)
        others = sum(other.busy_s for other in self._seats.values() if other is not seat)
        return min(others, chunk_s)

    def _most_urgent(self, now_s: float) -> Seat | None:
        """The session whose chunk is begun now, None if all can wait."""
        ripe = {seat.name: seat for seat, at_s in self._begin_times() if at_s <= now_s}
        ready = [
            ReadyChunk(
                session=name,
                chunk=seat.num_chunks,
                deadline_ms=1000 * (seat.due.due_s(seat.session.next_unmade) or now_s),
                service_ms=1000 * seat.took_s,
            )
            for name, seat in ripe.items()
        ]
        order = in_order(ready, 1000 * now_s, self._turns)
        return ripe[order[0].session] if order else None

    def _make(self, seat: Seat) -> None:
        """Make a session's next chunk and say what that was like."""
        self._turns = self._turns.after([seat.name])
        rung = seat.ladder.rung
        others_s = self._others_s(seat)
        if not self._guarded(seat, partial(seat.make, self._clock_s, others_s)):
            return
        for time_ in seat.session.face.stage_times():
            self._on_message(
                StageTrace(
                    stage=time_.stage,
                    session=seat.name,
                    chunk=time_.chunk,
                    began_ms=time_.began_ms,
                    ended_ms=time_.ended_ms,
                )
            )
        self._tell_rung(seat, rung)

    def _tell_rung(self, seat: Seat, before: int) -> None:
        rung = seat.ladder.rung
        if rung != before:
            why = RUNG_NAMES[rung] if rung == WELL else f"{RUNG_NAMES[rung]}: pictures were late"
            self._on_message(Degraded(session=seat.name, level=rung, why=why))

    def _send_slices(self) -> None:
        for seat in self._seats.values():
            for made in seat.release(self._clock_s()):
                self._on_message(_message(seat.name, made))

    def _guarded(self, seat: Seat, work: Callable[[], None]) -> bool:
        """Do something with a session; if it fails, the session ends and the others go on."""
        try:
            work()
        except FAULTS as error:
            self._fail(seat.name, "failed", error)
            return False
        return True

    def _fail(self, name: str, reason: str, error: Exception | str) -> None:
        """End a session that cannot go on, and say why."""
        seat = self._seats.pop(name, None)
        detail = " ".join(str(error).split())[:1000] or type(error).__name__
        if seat is not None:
            self._turns = self._turns.without(name)
            try:
                seat.session.close()
            except FAULTS as second:
                detail = f"{detail}; and closing it: {' '.join(str(second).split())}"[:1000]
        self._on_message(SessionFailed(session=name, reason=reason, detail=detail))

    def _take_messages(self) -> None:
        while self._inbox:
            message, at_s = self._inbox.popleft()
            if isinstance(message, Hello):
                self._on_message(self.ready)
            elif isinstance(message, Ping):
                self._on_message(Pong(nonce=message.nonce))
            elif isinstance(message, OpenSession):
                self._open(message)
            elif isinstance(message, CloseSession):
                self._close(message.session)
            else:
                self._tell(message, at_s)

    def _tell(self, message: AnyMessage, at_s: float) -> None:
        """Pass on what is for one session; one that is over hears nothing."""
        seat = self._seats.get(getattr(message, "session", ""))
        if seat is None:
            return
        try:
            self._act(seat, message, at_s)
        except TimelineFull as error:
            self._fail(seat.name, "too_much_sound", error)
        except StateError as error:
            self._fail(seat.name, "state", error)
        except FAULTS as error:
            self._fail(seat.name, "failed", error)

    def _act(self, seat: Seat, message: AnyMessage, at_s: float) -> None:
        session = seat.session
        if isinstance(message, Want):
            seat.want(message.until_index, message.due_in_ms, at_s)
        elif isinstance(message, Speak):
            samples_T = np.frombuffer(message.pcm, "<i2").astype(np.int16)
            session.speak(message.utterance, message.epoch, samples_T)
        elif isinstance(message, EndUtterance):
            session.end(message.utterance, message.epoch)
        elif isinstance(message, Interrupt):
            seat.interrupt(message.epoch, at_s)
        elif isinstance(message, ExportState):
            seat.is_leaving = True
            self._export(seat)
        elif isinstance(message, ImportState):
            import_session(session, message.state)
            seat.due.released(session.next_index, at_s)

    def _export(self, seat: Seat) -> None:
        """Give a session's state to whoever asked, as soon as nothing of it is under way."""
        if seat.is_leaving and seat.session.num_under_way <= 0:
            seat.is_leaving = False
            state = export_session(seat.session)
            self._on_message(SessionState(session=seat.name, state=state))

    def _open(self, message: OpenSession) -> None:
        """Make a session, or say why not."""
        try:
            if message.session in self._seats:
                raise FaceRefused("session", f"session {message.session} is open already")
            if len(self._seats) >= self._capacity:
                raise FaceRefused("capacity", f"{self._capacity} sessions are open, no more fit")
            seat = self._seated(message)
        except FaceRefused as error:
            reason = error.reason
            detail = str(error)[:1000]
            self._on_message(SessionFailed(session=message.session, reason=reason, detail=detail))
            return
        except FAULTS as error:
            detail = " ".join(str(error).split())[:1000]
            self._on_message(SessionFailed(session=message.session, reason="failed", detail=detail))
            return
        self._seats[message.session] = seat
        width, height = seat.session.face.size
        self._on_message(
            SessionOpened(
                session=message.session,
                width=width,
                height=height,
                fps_num=self._faces.fps.numerator,
                fps_den=self._faces.fps.denominator,
            )
        )

    def _seated(self, message: OpenSession) -> Seat:
        size = (message.width, message.height)
        face = self._faces.open(
            message.portrait,
            session=message.session,
            seed=message.seed,
            sample_rate=message.sample_rate,
            size=size if any(size) else None,
            crop=message.crop,
            plan=message.plan,
        )
        session = LiveSession(face, timeline=self._timeline)
        return Seat(
            name=message.session,
            session=session,
            due=DueTimes(frame_s=float(1 / face.fps)),
            ladder=Ladder(rungs=face.rungs, settings=self._ladder),
            took_s=self._warmth.took_s,
            busy_s=self._warmth.busy_s,
        )

    def _close(self, name: str) -> None:
        """Free a session; one that is unknown is closed already."""
        seat = self._seats.pop(name, None)
        if seat is not None:
            self._turns = self._turns.without(name)
            try:
                seat.session.close()
            except FAULTS as error:
                self._fail(name, "failed", error)
                return
        self._on_message(SessionClosed(session=name))


def _message(session: str, made: LiveSlice) -> SliceMade:
    """A slice as it is sent."""
    height, width = made.picture_HWC.shape[:2]
    return SliceMade(
        session=session,
        index=made.index,
        epoch=made.epoch,
        utterance=made.utterance,
        rgb=made.picture_HWC.tobytes(),
        width=width,
        height=height,
        pcm=made.sound_T.astype("<i2").tobytes(),
        last_of_utterance=made.ends_utterance,
    )
