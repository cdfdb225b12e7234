"""One live session as the gateway holds it: its state, its times, its clients, its performer."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

from services.beat import Event
from services.event_board import EventBoard, Value
from services.problem import Problem
from services.session_state import OPEN_STATES, Reason, State, Terms, Times, checked
from services.speech_feed import SpeechFeed
from services.studio import Codec, Connected, Performing

STATS_EVERY_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOrder:
    """What was asked for; `owner` is the key or address that asked.

    A session `for_one_peer` ends when that peer hangs up.
    """

    portrait: str
    picture: bytes
    owner: str
    seed: int = 0
    width: int = 0
    height: int = 0
    crop: str = ""
    codec: Codec = "VP8"
    for_one_peer: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """What an admitted session holds: the performer at work, its ear, and its picture's shape."""

    performing: Performing
    feed: SpeechFeed
    width: int
    height: int
    fps: float


class HostedSession:
    """State and bookkeeping; whoever changes the outside (peers, model) is `LiveSessions`."""

    def __init__(
        self, name: str, order: SessionOrder, terms: Terms, clock: Callable[[], float]
    ) -> None:
        """A new session; `clock` is monotonic, in seconds."""
        self.name, self.order, self.terms, self._clock = name, order, terms, clock
        self.state = State.NEW
        self.reason: Reason | None = None
        self.times = Times(made_s=clock(), active_s=clock())
        self.board = EventBoard(name)
        self.peers: dict[str, Connected] = {}
        self.connected: set[str] = set()
        self.cast: Cast | None = None
        self.position: int | None = None
        self.degraded = 0
        self._load_told_s = 0.0
        self.speaking: str | None = None
        self.used_token_ids: set[str] = set()
        # Start, connect and close exclude each other; events and speech do not wait for them.
        self.lock = asyncio.Lock()

    def enter(self, state: State, reason: Reason | None = None) -> None:
        """Go to a state that follows, and tell.

        Raises:
            IllegalTransition: it does not follow.
        """
        self.state = checked(self.state, state)
        self.reason = reason or self.reason
        self.tell_state()

    def tell_state(self) -> None:
        """Publish state, reason and position."""
        self.board.publish(
            "session.state_updated",
            state=self.state.value,
            reason=self.reason,
            position=self.position,
        )

    def queue_at(self, position: int | None) -> None:
        """Note the place in the queue, and tell where it changed."""
        if position == self.position:
            return
        self.position = position
        queued_s = self.times.queued_s
        self.times = replace(
            self.times, queued_s=None if position is None else (queued_s or self._clock())
        )
        self.tell_state()

    def begin(self, cast: Cast, *, from_queue: bool) -> None:
        """Become ready with a performer."""
        now_s = self._clock()
        self.cast, self.position = cast, None
        self.times = replace(
            self.times,
            active_s=now_s,
            started_s=now_s,
            queued_s=None,
            away_s=None if from_queue else now_s,
            unclaimed_s=now_s if from_queue else None,
        )
        self.enter(State.READY)

    def still_here(self) -> None:
        """Nobody watches, but a client listens to events: it has not vanished."""
        self.times = replace(self.times, away_s=self._clock(), unclaimed_s=None)

    def tell_load(self, num_sessions: int, num_queued: int, now_s: float) -> None:
        """Publish once a second how much waits."""
        if self.cast is None or now_s - self._load_told_s < STATS_EVERY_S:
            return
        self._load_told_s = now_s
        load = self.cast.performing.load()
        self.board.publish(
            "session.stats",
            queue_ms=round(load.queue_ms, 1),
            ahead_frames=load.ahead_frames,
            degraded=self.degraded,
            sessions=num_sessions,
            queued=num_queued,
        )

    def touch(self) -> None:
        """Something was done with the session: the idle time starts again."""
        self.times = replace(self.times, active_s=self._clock())

    def add_peer(self, peer: str, connected: Connected) -> None:
        """A client that was answered."""
        self.peers[peer] = connected
        self.board.add_sender(peer, connected.send)
        self.times = replace(self.times, unclaimed_s=None)
        self.touch()

    def peer_connected(self, peer: str) -> None:
        """Media flows to this client."""
        if peer in self.peers and self.state in OPEN_STATES:
            self.connected.add(peer)
            self._settle()

    def remove_peer(self, peer: str) -> Connected | None:
        """A client that is gone; the peer that has to be closed, if there was one."""
        self.board.remove_sender(peer)
        self.connected.discard(peer)
        gone = self.peers.pop(peer, None)
        self._settle()
        return gone

    def _settle(self) -> None:
        """Bring state and times in line with who is connected."""
        if self.state is State.READY and self.connected:
            self.times = replace(self.times, away_s=None, unclaimed_s=None)
            self.enter(State.STREAMING)
        elif self.state is State.STREAMING and not self.connected:
            self.times = replace(self.times, away_s=self._clock())
            self.enter(State.READY)

    def require_open(self) -> Cast:
        """The performer and its ear.

        Raises:
            Problem: 410 `session_closed`, or 409 `wrong_state` before the start.
        """
        self.refuse_closed()
        if self.cast is None:
            raise Problem(409, "wrong_state", "the session has not started: send an offer or start")
        return self.cast

    def refuse_closed(self) -> None:
        """Refuse what comes after the end.

        Raises:
            Problem: 410 `session_closed`, with the reason.
        """
        if self.state in (State.DRAINING, State.CLOSED):
            detail = f"the session is closed: {self.reason}"
            raise Problem(410, "session_closed", detail, reason=self.reason)

    def take_event(self, event: Event) -> None:
        """Publish what the performer did."""
        if event.kind.startswith("speak_"):
            self.touch()
            self.speaking = event.utterance if event.kind == "speak_started" else None
            if self.speaking is None and self.cast is not None and event.utterance is not None:
                self.cast.feed.forget(event.utterance)
            self.board.publish(
                f"agent.{event.kind}", utterance=event.utterance, position_ms=event.position_ms
            )
        elif event.kind == "degraded":
            self.degraded = event.level or 0
            self.board.publish("session.degraded", level=self.degraded, why=event.why)
        elif event.kind == "restarted":
            self.board.publish("session.restarted")
        elif event.kind == "stage":
            self.board.publish(
                "chain.stage",
                stage=event.stage,
                chunk=event.chunk,
                began_ms=event.began_ms,
                ended_ms=event.ended_ms,
            )

    def describe(self) -> dict[str, Value]:
        """The session as `GET` shows it."""
        now_s, times, cast = self._clock(), self.times, self.cast
        started_s = times.started_s
        return {
            "session_id": self.name,
            "state": self.state.value,
            "reason": self.reason,
            "position": self.position,
            "retry_after_s": None if self.position is None else 1,
            "portrait": self.order.portrait,
            "width": cast.width if cast else self.order.width,
            "height": cast.height if cast else self.order.height,
            "fps": cast.fps if cast else None,
            "age_s": round(now_s - times.made_s, 3),
            "idle_in_s": round(times.active_s + self.terms.idle_timeout_s - now_s, 3),
            "ends_in_s": None
            if started_s is None
            else round(started_s + self.terms.max_duration_s - now_s, 3),
            "peers": len(self.peers),
            "degraded": self.degraded,
        }
