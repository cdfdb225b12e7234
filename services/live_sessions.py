"""All live sessions of a gateway: who gets in, who waits, who is connected, and how each ends."""

import asyncio
import contextlib
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

from viva.v1.messages import OpenSession

from services.beat import Event
from services.deployment import Limits, Sessions
from services.hosted_session import Cast, HostedSession, SessionOrder
from services.live_metrics import LiveMetrics
from services.live_model import LiveModel, ModelRefused
from services.places import Places
from services.problem import Problem
from services.session_state import OPEN_STATES, Reason, State, Terms, end_reason
from services.speech_feed import SpeechFeed
from services.studio import BadOffer, Hooks, Offer, PushFailed, Studio

RETRY_AFTER_S = 5
MAX_REMEMBERED = 1024
WATCH_EVERY_S = 0.25

OnMessage = Callable[[HostedSession, str, dict[str, object]], None]
_log = logging.getLogger("viva.sessions")


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """What sessions run on: the model, where performers come from, the settings, the clock (s)."""

    model: LiveModel
    studio: Studio
    sessions: Sessions
    limits: Limits
    clock: Callable[[], float]
    metrics: LiveMetrics


class LiveSessions:
    """The registry. `run` watches the time; everything else happens when it is called."""

    def __init__(self, house: House) -> None:
        """Start empty, with as many places as configured or as the model holds."""
        self._house, settings = house, house.sessions
        capacity = settings.capacity or house.model.ready.capacity
        self.places = places = Places(capacity, settings.max_queue)
        house.metrics.count_places(lambda: places.num_taken, lambda: places.num_queued)
        self.terms = Terms(
            idle_timeout_s=settings.idle_timeout_s,
            max_duration_s=settings.max_duration_s,
            grace_s=settings.grace_s,
            claim_s=settings.claim_s,
            max_wait_s=settings.max_wait_s,
            token_ttl_s=settings.token_ttl_s,
        )
        self._sessions: dict[str, HostedSession] = {}
        self._ended: OrderedDict[str, Reason] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending: set[str] = set()
        self._is_empty = asyncio.Event()
        self.is_draining = False
        # Whoever hears what clients say over data channels; set once by the gateway.
        self.on_message: OnMessage = _ignore

    def __len__(self) -> int:
        """How many sessions are held, in any state."""
        return len(self._sessions)

    def create(self, order: SessionOrder) -> HostedSession:
        """A new session; it holds no place yet.

        Raises:
            Problem: 503 when draining, or when too many have not started.
        """
        self.refuse_draining()
        num_new = sum(s.state is State.NEW for s in self._sessions.values())
        if num_new >= self._house.sessions.max_new:
            detail = "too many sessions wait for their start"
            raise Problem(503, "capacity", detail, retry_after_s=RETRY_AFTER_S)
        name = f"s_{secrets.token_urlsafe(12)}"
        session = HostedSession(name, order, self.terms, self._house.clock)
        self._sessions[name] = session
        self._is_empty.clear()
        _log.info("session made", extra={"session": name, "owner": order.owner})
        return session

    def get(self, name: str) -> HostedSession:
        """The session of that name.

        Raises:
            Problem: 410 `session_closed` of one that was, 404 `no_session` of none.
        """
        session = self._sessions.get(name)
        if session is not None:
            return session
        if name in self._ended:
            reason = self._ended[name]
            raise Problem(410, "session_closed", f"the session is closed: {reason}", reason=reason)
        raise Problem(404, "no_session", "there is no such session")

    def refuse_draining(self) -> None:
        """Refuse new work once the server ends.

        Raises:
            Problem: 503 `draining`.
        """
        if self.is_draining:
            raise Problem(503, "draining", "the server ends", retry_after_s=RETRY_AFTER_S)

    async def start(self, session: HostedSession, *, wait: bool) -> None:
        """Give the session a place and a performer; with `wait` it may get a place in the queue.

        Raises:
            Problem: 503 `capacity` with Retry-After, 422 `refused_by_model`, 410 when closed.
        """
        async with session.lock:
            await self._start(session, wait=wait)

    async def connect(self, session: HostedSession, offer: Offer) -> tuple[str, str]:
        """Answer an offer, starting the session if need be; the peer's name and the SDP.

        Raises:
            Problem: 400 `bad_sdp`, 409 `busy` with too many viewers, and as `start`.
        """
        async with session.lock:
            await self._start(session, wait=False)
            cast, peer = session.require_open(), self._peer_name(session)
            try:
                connected, sdp = await self._house.studio.answer(
                    cast.performing, offer, self._hooks(session, peer)
                )
            except BadOffer as error:
                raise Problem(400, "bad_sdp", str(error)) from error
            session.add_peer(peer, connected)
        self._log(session, "peer answered", peer=peer)
        return peer, sdp

    async def push(self, session: HostedSession, url: str, bearer: str, offer: Offer) -> str:
        """Send the session to a WHIP server; the peer's name.

        Raises:
            Problem: 502 `push_failed`, and as `connect`.
        """
        async with session.lock:
            await self._start(session, wait=False)
            cast, peer = session.require_open(), self._peer_name(session)
            try:
                connected = await self._house.studio.push(
                    cast.performing, url, bearer, offer, self._hooks(session, peer)
                )
            except PushFailed as error:
                raise Problem(502, "push_failed", str(error)) from error
            session.add_peer(peer, connected)
        self._log(session, "push began", peer=peer)
        return peer

    async def disconnect(self, session: HostedSession, peer: str) -> None:
        """Hang up one peer.

        Raises:
            Problem: 404 `no_session` of a peer that is not there.
        """
        connected = session.remove_peer(peer)
        if connected is None:
            raise Problem(404, "no_session", "there is no such peer")
        await connected.close()

    async def close(self, session: HostedSession, reason: Reason) -> None:
        """Say that the session ends, end it, free everything, and let in who waits."""
        if session.name in self._ending or session.state is State.CLOSED:
            return
        self._ending.add(session.name)
        try:
            async with session.lock:
                await self._end(session, reason)
        finally:
            self._ending.discard(session.name)
            self._forget(session, reason)
            self.let_in()

    async def run(self) -> None:
        """Watch the time until cancelled: sessions end when they are due."""
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            try:
                self.watch()
            except Exception:  # noqa: BLE001 - the others must still end when they are due
                _log.exception("a look at the sessions failed; the next one comes")

    def watch(self) -> None:
        """End what is due now."""
        now_s = self._house.clock()
        for session in tuple(self._sessions.values()):
            if session.board.num_feeds and session.times.away_s is not None:
                session.still_here()
            session.tell_load(self.places.num_taken, self.places.num_queued, now_s)
            reason = end_reason(session.state, session.times, self.terms, now_s)
            if reason is not None and session.name not in self._ending:
                self.spawn(self.close(session, reason))
        self._house.metrics.degraded(sum(s.degraded > 0 for s in self._sessions.values()), now_s)

    async def drain(self, deadline_s: float) -> None:
        """Take nobody new; wait until all sessions have ended, or end them at the deadline."""
        self.is_draining = True
        for session in tuple(self._sessions.values()):
            if session.state is State.NEW:
                self.spawn(self.close(session, "shutdown"))
            else:
                session.board.publish(
                    "session.closing", reason="shutdown", in_ms=int(deadline_s * 1000)
                )
        if self._sessions:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_empty.wait(), deadline_s)
        await self.close_all("shutdown")

    async def close_all(self, reason: Reason) -> None:
        """End every session now."""
        closing = (self.close(session, reason) for session in tuple(self._sessions.values()))
        for failed in await asyncio.gather(*closing, return_exceptions=True):
            if isinstance(failed, Exception):
                _log.error("a session did not close cleanly", exc_info=failed)
        while self._tasks:
            await asyncio.gather(*tuple(self._tasks), return_exceptions=True)

    async def _start(self, session: HostedSession, *, wait: bool) -> None:
        """The same under the session's lock."""
        session.refuse_closed()
        if session.state in OPEN_STATES:
            session.touch()
            return
        self.refuse_draining()
        if self.places.take(session.name):
            await self._open(session, from_queue=False)
            return
        position = self.places.wait(session.name) if wait else None
        if position is None:
            self._house.metrics.refused("capacity")
            raise self._full(session)
        session.queue_at(position)

    async def _open(self, session: HostedSession, *, from_queue: bool) -> None:
        """Have the model take the face, and a performer begin."""
        house, order = self._house, session.order
        spec = OpenSession(
            session=session.name,
            portrait=order.picture,
            seed=order.seed,
            sample_rate=house.sessions.sample_rate,
            width=order.width,
            height=order.height,
            crop=order.crop,
        )
        try:
            stream = await house.model.open(spec)
        except BaseException as error:
            self.places.release(session.name)
            self.let_in()
            if isinstance(error, ModelRefused):
                raise self._refusal(session, error) from error
            raise
        performing = house.studio.perform(stream, lambda event: self._take_event(session, event))
        feed = SpeechFeed(
            performing,
            sample_rate=stream.sample_rate,
            max_queued_s=house.limits.max_queued_s,
        )
        cast = Cast(
            performing=performing,
            feed=feed,
            width=stream.width,
            height=stream.height,
            fps=float(stream.fps),
        )
        session.begin(cast, from_queue=from_queue)
        self._log(session, "session started")

    def _refusal(self, session: HostedSession, error: ModelRefused) -> Problem:
        """What the client hears when the model does not take a session."""
        self._house.metrics.refused(error.reason)
        if error.reason == "capacity":
            return self._full(session)
        if error.reason in ("worker_lost", "failed", "session"):
            detail = "the model process is not there: try again"
            return Problem(503, "worker_lost", detail, retry_after_s=RETRY_AFTER_S)
        return Problem(422, "refused_by_model", error.detail, reason=error.reason)

    def _full(self, session: HostedSession) -> Problem:
        """The refusal when all places are taken."""
        return Problem(
            503,
            "capacity",
            f"all {self.places.capacity} places are taken",
            retry_after_s=RETRY_AFTER_S,
            position=self.places.position(session.name),
            queued=self.places.num_queued,
        )

    async def _end(self, session: HostedSession, reason: Reason) -> None:
        """Under the session's lock: announce, wait, hang up, free."""
        if session.state is State.NEW:
            session.enter(State.CLOSED, reason)
            session.board.close()
            return
        in_ms = 0 if reason in ("client", "worker_lost") else self._house.sessions.closing_ms
        session.board.publish("session.closing", reason=reason, in_ms=in_ms)
        session.enter(State.DRAINING, reason)
        if in_ms:
            await asyncio.sleep(in_ms / 1000)
        try:
            if session.cast is not None:
                session.cast.feed.stop()
                await session.cast.performing.close()
        finally:
            gone = [session.remove_peer(peer) for peer in tuple(session.peers)]
            await asyncio.gather(*(peer.close() for peer in gone if peer is not None))
        session.enter(State.CLOSED)
        session.board.close()

    def _forget(self, session: HostedSession, reason: Reason) -> None:
        """Give up the place; of the session only the reason is remembered."""
        self.places.release(session.name)
        self._sessions.pop(session.name, None)
        if not self._sessions:
            self._is_empty.set()
        self._ended[session.name] = session.reason or reason
        while len(self._ended) > MAX_REMEMBERED:
            self._ended.popitem(last=False)
        self._house.metrics.ended(session.reason or reason)
        self._log(session, "session ended", reason=session.reason or reason)

    def let_in(self) -> None:
        """Give free places to who waits, and tell the others their positions."""
        while not self.is_draining and (name := self.places.admit()):
            self.spawn(self._open_admitted(self._sessions[name]))
        for session in self._sessions.values():
            if session.position is not None:
                session.queue_at(self.places.position(session.name))

    async def _open_admitted(self, session: HostedSession) -> None:
        """Start a session whose turn has come; its client may claim it for a while."""
        async with session.lock:
            if session.state is not State.NEW:
                return
            try:
                await self._open(session, from_queue=True)
                return
            except Problem as problem:
                session.board.publish("error", code=problem.code, detail=problem.detail)
        await self.close(session, "worker_lost")

    def _hooks(self, session: HostedSession, peer: str) -> Hooks:
        """What a peer calls."""

        def gone() -> None:
            connected = session.remove_peer(peer)
            if connected is not None:
                self._log(session, "peer gone", peer=peer)
                self.spawn(connected.close())

        return Hooks(
            on_message=lambda message: self.on_message(session, peer, message),
            on_connected=lambda: session.peer_connected(peer),
            on_gone=gone,
        )

    def _take_event(self, session: HostedSession, event: Event) -> None:
        """Publish what a performer did; a performer that failed ends its session."""
        self._house.metrics.happened(event)
        session.take_event(event)
        if event.kind == "failed":
            self.spawn(self.close(session, "worker_lost"))

    def _peer_name(self, session: HostedSession) -> str:
        """A name for one more peer, if there may be one."""
        if len(session.peers) >= self._house.sessions.max_viewers:
            raise Problem(409, "busy", "the session has as many peers as it may have")
        return f"p_{secrets.token_urlsafe(6)}"

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Run something beside; `close_all` waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _log(self, session: HostedSession, what: str, **extra: str) -> None:
        """A line about a session, without anything secret."""
        _log.info(what, extra={"session": session.name, **extra})


def _ignore(session: HostedSession, peer: str, message: dict[str, object]) -> None:
    """Nobody listens yet."""
