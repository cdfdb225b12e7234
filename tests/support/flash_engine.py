"""An engine without a model: pictures that are white while there is sound, and count themselves."""

import os
import threading
from collections import deque
from dataclasses import dataclass, field

import numpy as np
from viva.v1.messages import (
    CloseSession,
    EndUtterance,
    ExportState,
    GatewayMessage,
    ImportState,
    Interrupt,
    ModelReady,
    OpenSession,
    SessionClosed,
    SessionFailed,
    SessionOpened,
    SessionState,
    SliceMade,
    Speak,
    StageTrace,
    Want,
)

from services.model_server import Tell

FPS = 25
LOUD = 1000


@dataclass(slots=True)
class _Speech:
    """One utterance that waits to be shown."""

    name: str
    epoch: int
    pcm: bytearray = field(default_factory=bytearray)
    is_ended: bool = False


@dataclass(slots=True)
class _Session:
    """One open session."""

    spec: OpenSession
    index: int = 0
    wanted: int = 0
    epoch: int = 0
    speeches: deque[_Speech] = field(default_factory=deque)

    @property
    def frame_bytes(self) -> int:
        return self.spec.sample_rate // FPS * 2

    def speech(self, name: str, epoch: int) -> _Speech:
        for speech in self.speeches:
            if speech.name == name:
                return speech
        self.speeches.append(_Speech(name, epoch))
        return self.speeches[-1]

    def next_slice(self, side: int) -> SliceMade:
        """One frame: of the first utterance that has a whole one, or its end; otherwise idle."""
        name, epoch, pcm, is_last = "", self.epoch, b"", False
        if self.speeches:
            speech = self.speeches[0]
            if len(speech.pcm) >= self.frame_bytes or speech.is_ended:
                pcm = bytes(speech.pcm[: self.frame_bytes])
                del speech.pcm[: self.frame_bytes]
                name, epoch = speech.name, speech.epoch
                is_last = speech.is_ended and not speech.pcm
                if is_last:
                    self.speeches.popleft()
        pcm = pcm.ljust(self.frame_bytes, b"\0")
        is_loud = bool(np.abs(np.frombuffer(pcm, np.int16)).max(initial=0) > LOUD)
        rgb = bytearray((b"\xff" if is_loud else b"\x40") * (side * side * 3))
        rgb[:2] = (self.index % (1 << 16)).to_bytes(2, "little")
        self.index += 1
        return SliceMade(
            session=self.spec.session,
            index=self.index - 1,
            epoch=epoch,
            utterance=name,
            rgb=bytes(rgb),
            width=side,
            height=side,
            pcm=pcm,
            last_of_utterance=is_last,
        )


class FlashEngine:
    """Makes what is wanted at once, `frame_s` apart; refuses more than `capacity` sessions.

    A session whose portrait is `b"crash"` takes the whole process with it when it is first wanted.
    """

    def __init__(
        self,
        on_message: Tell,
        *,
        side: int = 16,
        capacity: int = 8,
        frame_s: float = 0.0,
    ) -> None:
        self._tell = on_message
        self._side, self._capacity, self._frame_s = side, capacity, frame_s
        self._sessions: dict[str, _Session] = {}
        self._posted: deque[GatewayMessage] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread: threading.Thread | None = None

    @property
    def ready(self) -> ModelReady:
        return ModelReady(
            model="flash",
            plan="none",
            fps_num=FPS,
            fps_den=1,
            width=self._side,
            height=self._side,
            capacity=self._capacity,
            chunk_frames=1,
            warm_s=0.0,
        )

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="flash", daemon=True)
        self._thread.start()

    def post(self, message: GatewayMessage) -> None:
        with self._changed:
            self._posted.append(message)
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not (self._posted or self._is_closed or any(map(self._is_due, self._all()))):
                    self._changed.wait()
                if self._is_closed:
                    return
                posted = list(self._posted)
                self._posted.clear()
            for message in posted:
                self._take(message)
            for session in filter(self._is_due, self._all()):
                self._make(session)
            if self._frame_s:
                threading.Event().wait(self._frame_s)

    def _all(self) -> list[_Session]:
        return list(self._sessions.values())

    @staticmethod
    def _is_due(session: _Session) -> bool:
        return session.index < session.wanted

    def _make(self, session: _Session) -> None:
        if session.spec.portrait == b"crash":
            os._exit(3)
        name = session.spec.session
        self._tell(
            StageTrace(stage="flash", session=name, chunk=session.index, began_ms=0, ended_ms=1)
        )
        self._tell(session.next_slice(self._side))

    def _take(self, message: GatewayMessage) -> None:
        if isinstance(message, OpenSession):
            self._open(message)
            return
        session = self._sessions.get(getattr(message, "session", ""))
        if session is None:
            return
        match message:
            case Speak():
                session.speech(message.utterance, message.epoch).pcm += message.pcm
            case EndUtterance():
                session.speech(message.utterance, message.epoch).is_ended = True
            case Interrupt():
                session.epoch = message.epoch
                session.speeches.clear()
            case Want():
                session.wanted = message.until_index
            case ExportState():
                state = session.index.to_bytes(8, "little")
                self._tell(SessionState(session=message.session, state=state))
            case ImportState():
                session.index = int.from_bytes(message.state, "little")
            case CloseSession():
                del self._sessions[message.session]
                self._tell(SessionClosed(session=message.session))

    def _open(self, spec: OpenSession) -> None:
        def refuse(reason: str, detail: str) -> None:
            self._tell(SessionFailed(session=spec.session, reason=reason, detail=detail))

        if spec.portrait == b"bad":
            refuse("portrait", "this is no picture")
        elif len(self._sessions) >= self._capacity:
            refuse("capacity", f"{self._capacity} sessions are open")
        else:
            self._sessions[spec.session] = _Session(spec)
            side = self._side
            opened = SessionOpened(
                session=spec.session, width=side, height=side, fps_num=FPS, fps_den=1
            )
            self._tell(opened)
