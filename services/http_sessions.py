"""Routes of sessions: make, start, connect, speak, interrupt, stop."""

from aiohttp import web

from services.event_desk import interrupt
from services.gate import Visit
from services.gateway_parts import Parts
from services.hosted_session import HostedSession, SessionOrder
from services.problem import Problem
from services.session_requests import (
    InterruptRequest,
    NewSession,
    SdpOffer,
    SpeakText,
    Start,
    parse,
)
from services.session_state import State

# Not audio/L16, whose samples are big-endian (RFC 3551, section 4.5.11).
RAW_SOUND = "audio/pcm"
DEFAULT_RATE = 24_000


class SessionRoutes:
    """Handlers for /v1/sessions."""

    def __init__(self, parts: Parts) -> None:
        """Serve these parts."""
        self._parts = parts

    def routes(self) -> list[web.RouteDef]:
        """All of them."""
        one = "/v1/sessions/{session}"
        return [
            web.post("/v1/sessions", self.create),
            web.post("/v1/sessions/token", self.create),
            web.post("/v1/sessions/start", self.start),
            web.post("/v1/sessions/keep-alive", self.keep_alive),
            web.post("/v1/sessions/stop", self.stop),
            web.get(one, self.show),
            web.delete(one, self.delete),
            web.post(f"{one}/start", self.start),
            web.post(f"{one}/offer", self.offer),
            web.post(f"{one}/token", self.renew),
            web.post(f"{one}/speak", self.speak),
            web.post(f"{one}/interrupt", self.interrupt),
            web.post(f"{one}/keep-alive", self.keep_alive),
            web.post(f"{one}/stop", self.stop),
        ]

    async def create(self, request: web.Request) -> web.Response:
        """A session and its token."""
        parts = self._parts
        owner = parts.gate.require_key(request)
        asked = parse(NewSession, await parts.json(request))
        session = await make_session(parts, asked, owner)
        path = f"/v1/sessions/{session.name}"
        answer = {
            "session_id": session.name,
            "token": parts.gate.tokens.issue(session.name, may_start=True),
            "expires_in_s": parts.gate.tokens.ttl_s,
            "state": session.state.value,
            "offer_url": f"{path}/offer",
            "events_url": f"{path}/events",
            "whip_url": f"{path}/whip",
            "whep_url": f"/whep/{session.name}",
            "mic_url": f"/whip/{session.name}",
            "ice_servers": parts.ice_servers(session),
        }
        return web.json_response(answer, status=201, headers={"Location": path})

    async def show(self, request: web.Request) -> web.Response:
        """The session."""
        return web.json_response(self._parts.visit(request).session.describe())

    async def start(self, request: web.Request) -> web.Response:
        """Get a place, or a position in the queue."""
        visit = self._parts.visit(request)
        asked = parse(Start, await self._parts.json(request))
        await start_once(self._parts, visit, wait=asked.wait)
        session = visit.session
        status = 202 if session.position is not None else 200
        return web.json_response(session.describe(), status=status)

    async def offer(self, request: web.Request) -> web.Response:
        """Connect a client, starting the session if need be."""
        visit = self._parts.visit(request)
        body = await self._parts.json(request)
        asked = parse(SdpOffer, body)
        session = visit.session
        if session.state is State.NEW and session.position is None:
            await start_once(self._parts, visit, wait=False)
        offer = self._parts.offer(session, asked.sdp, "sendrecv")
        peer, sdp = await self._parts.sessions.connect(session, offer)
        answer = {"sdp": sdp, "type": "answer", "session_id": session.name, "peer_id": peer}
        return web.json_response(answer)

    async def renew(self, request: web.Request) -> web.Response:
        """A fresh token that does all but start."""
        session = self._parts.visit(request).session
        session.refuse_closed()
        tokens = self._parts.gate.tokens
        answer = {
            "token": tokens.issue(session.name, may_start=False),
            "expires_in_s": tokens.ttl_s,
        }
        return web.json_response(answer)

    async def speak(self, request: web.Request) -> web.Response:
        """Speak words or raw sound as one utterance."""
        session = self._parts.visit(request).session
        if request.content_type == RAW_SOUND:
            utterance = await self._speak_sound(session, request)
        else:
            asked = parse(SpeakText, await self._parts.json(request))
            utterance = self._parts.desk.say(session, asked.text, asked.voice, None)
        return web.json_response({"utterance": utterance}, status=202)

    async def _speak_sound(self, session: HostedSession, request: web.Request) -> str:
        """A whole utterance of raw sound."""
        feed = session.require_open().feed
        rate = _rate_of(request)
        pcm = await self._parts.body(request, self._parts.deployment.limits.max_speech_bytes)
        session.require_open()
        utterance = feed.speak(pcm, sample_rate=rate, utterance=feed.fresh_name())
        feed.end(utterance)
        session.touch()
        return utterance

    async def interrupt(self, request: web.Request) -> web.Response:
        """Stop what is said."""
        session = self._parts.visit(request).session
        asked = parse(InterruptRequest, await self._parts.json(request))
        return web.json_response(interrupt(session, asked.utterance))

    async def keep_alive(self, request: web.Request) -> web.Response:
        """The idle time starts again."""
        session = self._parts.visit(request).session
        session.refuse_closed()
        session.touch()
        return web.Response(status=204)

    async def stop(self, request: web.Request) -> web.Response:
        """End the session and show it."""
        session = self._parts.visit(request).session
        await self._parts.sessions.close(session, "client")
        return web.json_response(session.describe())

    async def delete(self, request: web.Request) -> web.Response:
        """End the session."""
        session = self._parts.visit(request).session
        await self._parts.sessions.close(session, "client")
        return web.Response(status=204)


async def make_session(
    parts: Parts, asked: NewSession, owner: str, *, for_one_peer: bool = False
) -> HostedSession:
    """A new session of what was asked for.

    Raises:
        Problem: 404 `no_portrait`, 503.
    """
    portrait = asked.portrait or parts.portraits.default
    order = SessionOrder(
        portrait=portrait,
        picture=await parts.portraits.find(portrait),
        owner=owner,
        seed=asked.seed,
        width=asked.width,
        height=asked.height,
        crop=asked.crop,
        codec=asked.codec,
        for_one_peer=for_one_peer,
    )
    return parts.sessions.create(order)


async def start_once(parts: Parts, visit: Visit, *, wait: bool) -> None:
    """Start a session with a token that has not started it; the token is spent only if it did.

    Raises:
        Problem: 409 `token_replayed`, and as `LiveSessions.start`.
    """
    visit.session.refuse_closed()
    with parts.gate.spent(visit):
        await parts.sessions.start(visit.session, wait=wait)


def _rate_of(request: web.Request) -> int:
    """The rate of raw sound, from the content type's parameter."""
    text = str(request.headers.get("Content-Type", ""))
    for parameter in text.split(";")[1:]:
        name, _, value = parameter.strip().partition("=")
        if name.strip().lower() == "rate":
            if not value.isascii() or not value.isdigit() or len(value) > 6:
                raise Problem(400, "bad_field", "rate: a number of hertz")
            return int(value)
    return DEFAULT_RATE
