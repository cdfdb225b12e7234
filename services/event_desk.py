"""What clients may say over a WebSocket or a data channel, and what is done about it."""

import base64
import binascii
import math
from collections.abc import Awaitable, Callable
from typing import Annotated, Literal

from pydantic import Field

from services.event_board import Event
from services.hosted_session import HostedSession
from services.limits import Rate, RateLimit, parse_object
from services.live_metrics import LiveMetrics
from services.live_sessions import LiveSessions
from services.problem import Problem
from services.session_requests import Name, Request, parse
from services.tts import TextToSpeech, TtsError

MAX_EVENT_BYTES = 1 << 20
# espeak-ng says some fifteen a second; spelled-out numbers are slower.
LONGEST_CHARACTER_S = 0.2
MESSAGES = Rate(per_s=100.0, burst=200)
EventId = Annotated[str, Field(max_length=64)]
Reply = Callable[[Event], object]


class Said(Request):
    """What every event has."""

    type: str
    event_id: EventId | None = None


class Speak(Said):
    """Sound."""

    audio: str
    sample_rate: int = 24_000
    utterance: Name | None = None


class SpeakEnd(Said):
    """No more sound of an utterance."""

    utterance: Name | None = None


class SpeakText(Said):
    """Words."""

    text: Annotated[str, Field(min_length=1)]
    voice: Annotated[str, Field(max_length=32)] = ""
    utterance: Name | None = None


class Interrupt(Said):
    """Stop."""

    utterance: Name | None = None


class Report(Said):
    """What a client measured; all that is not a finite number is refused."""

    fps: float | None = None
    first_frame_ms: float | None = None
    interrupt_ms: float | None = None
    av_offset_ms: float | None = None
    freezes: float | None = None
    concealed_ratio: float | None = None
    jitter_ms: float | None = None
    rtt_ms: float | None = None

    def figures(self) -> dict[str, float]:
        """What was given, without what is no number.

        Raises:
            Problem: 400 `bad_field`.
        """
        given = self.model_dump(exclude={"type", "event_id"}, exclude_none=True)
        odd = [name for name, value in given.items() if not math.isfinite(value)]
        if odd:
            raise Problem(400, "bad_field", f"{odd[0]}: this is no finite number")
        return given


class EventDesk:
    """Obeys the events of all sessions."""

    def __init__(
        self,
        sessions: LiveSessions,
        *,
        voice: TextToSpeech | None,
        metrics: LiveMetrics,
        clock: Callable[[], float],
    ) -> None:
        """Speak texts with `voice`; None: this server has none."""
        self._sessions, self._voice, self._metrics = sessions, voice, metrics
        self._rates = RateLimit(MESSAGES, clock)
        self._orders: dict[str, Callable[[HostedSession, dict[str, object]], None]] = {
            "agent.speak": self._speak,
            "agent.speak_end": self._speak_end,
            "agent.speak_text": self._speak_text,
            "agent.interrupt": self._interrupt,
            "agent.start_listening": self._listening(is_on=True),
            "agent.stop_listening": self._listening(is_on=False),
            "session.keep_alive": self._keep_alive,
            "session.stats": self._report,
            "session.stop": self._stop,
        }

    @property
    def has_voice(self) -> bool:
        """Whether texts can be spoken."""
        return self._voice is not None

    def is_flood(self, speaker: str) -> bool:
        """Whether this speaker has said too much within the last seconds; counts one message."""
        return self._rates.wait_s(speaker) > 0

    def take_text(self, session: HostedSession, text: str | bytes, reply: Reply) -> None:
        """Obey an event that comes as JSON."""
        try:
            event = parse_object(text)
        except Problem as problem:
            reply(session.board.event("error", code=problem.code, detail=problem.detail))
            return
        self.take(session, event, reply)

    def take(self, session: HostedSession, event: dict[str, object], reply: Reply) -> None:
        """Obey an event, or reply with an error that names it."""
        event_id: str | None = None
        try:
            given = event.get("event_id")
            event_id = given if isinstance(given, str) and len(given) <= 64 else None
            kind = event.get("type")
            order = self._orders.get(kind) if isinstance(kind, str) else None
            if order is None:
                raise Problem(400, "bad_field", "type: no such event: see docs/protocol.md")
            order(session, event)
        except Problem as problem:
            reply(
                session.board.event(
                    "error", code=problem.code, detail=problem.detail, source_event_id=event_id
                )
            )

    def say(self, session: HostedSession, text: str, voice: str, utterance: str | None) -> str:
        """Speak words as an utterance, beside; its name.

        Raises:
            Problem: 422 `bad_text` or `unsupported`, 410, 409.
        """
        feed = session.require_open().feed
        if self._voice is None:
            raise Problem(422, "unsupported", "this server speaks no text: espeak-ng is missing")
        try:
            words = self._voice.check(text, voice)
        except TtsError as error:
            raise Problem(422, "bad_text", str(error)) from error
        name = feed.checked_name(utterance)
        session.touch()
        pieces = self._voice.stream(words, voice)
        voicing = feed.voice(
            pieces,
            sample_rate=self._voice.sample_rate,
            utterance=name,
            before=feed.num_interrupts,
            lasts_s=len(words) * LONGEST_CHARACTER_S,
        )
        self._sessions.spawn(_voiced(session, voicing, name))
        return name

    def _speak(self, session: HostedSession, event: dict[str, object]) -> None:
        """`agent.speak`."""
        said = parse(Speak, event)
        try:
            pcm = base64.b64decode(said.audio, validate=True)
        except (binascii.Error, ValueError) as error:
            raise Problem(400, "bad_field", "audio: this is no base64") from error
        feed = session.require_open().feed
        feed.speak(pcm, sample_rate=said.sample_rate, utterance=said.utterance)
        session.touch()

    def _speak_end(self, session: HostedSession, event: dict[str, object]) -> None:
        """`agent.speak_end`."""
        session.require_open().feed.end(parse(SpeakEnd, event).utterance)
        session.touch()

    def _speak_text(self, session: HostedSession, event: dict[str, object]) -> None:
        """`agent.speak_text`."""
        said = parse(SpeakText, event)
        self.say(session, said.text, said.voice, said.utterance)

    def _interrupt(self, session: HostedSession, event: dict[str, object]) -> None:
        """`agent.interrupt`."""
        interrupt(session, parse(Interrupt, event).utterance)

    def _listening(self, *, is_on: bool) -> Callable[[HostedSession, dict[str, object]], None]:
        """`agent.start_listening`, `agent.stop_listening`."""

        def listen(session: HostedSession, event: dict[str, object]) -> None:
            parse(Said, event)
            session.require_open().performing.listen(is_on)
            session.touch()
            session.board.publish("agent.listening", on=is_on)

        return listen

    def _keep_alive(self, session: HostedSession, event: dict[str, object]) -> None:
        """`session.keep_alive`."""
        parse(Said, event)
        session.touch()

    def _report(self, session: HostedSession, event: dict[str, object]) -> None:
        """`session.stats`: no sign of life, since pages send it by themselves."""
        del session
        self._metrics.client_report(parse(Report, event).figures())

    def _stop(self, session: HostedSession, event: dict[str, object]) -> None:
        """`session.stop`."""
        parse(Said, event)
        self._sessions.spawn(self._sessions.close(session, "client"))


Spoken = dict[Literal["interrupted", "utterance", "position_ms"], bool | str | float | None]


def interrupt(session: HostedSession, utterance: str | None) -> Spoken:
    """Stop what is said (if it is that utterance), and say how far it came.

    Raises:
        Problem: 409 or 410 where nothing can be said.
    """
    cast = session.require_open()
    session.touch()
    if utterance is not None and session.speaking != utterance:
        return {"interrupted": False, "utterance": session.speaking, "position_ms": None}
    played = cast.feed.interrupt()
    return {
        "interrupted": played.utterance is not None,
        "utterance": played.utterance,
        "position_ms": None if played.utterance is None else played.position_ms,
    }


async def _voiced(session: HostedSession, voicing: Awaitable[None], name: str) -> None:
    """Speak to the end, or tell why not."""
    try:
        await voicing
    except Problem as problem:
        session.board.publish("error", code=problem.code, detail=problem.detail, utterance=name)
    except (TtsError, TimeoutError, OSError) as error:
        detail = str(error) or "the speech program is too slow"
        session.board.publish("error", code="bad_text", detail=detail, utterance=name)
