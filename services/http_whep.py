"""Routes of WHEP (watch with any player) and of WHIP, both ways: microphones come, pushes go.

RFC 9725 and draft-ietf-wish-whep; what both made is one kind of resource, a session's peer.
"""

import re
from urllib.parse import urlsplit

from aiohttp import web
from multidict import CIMultiDict

from services.gate import Visit
from services.gateway_parts import SDP, Parts
from services.hosted_session import HostedSession
from services.http_sessions import make_session, start_once
from services.ice import link_headers
from services.problem import Problem
from services.session_requests import NewSession, Push, parse
from services.session_state import OPEN_STATES
from services.studio import Offer

FRAGMENT = "application/trickle-ice-sdpfrag"
SESSION_NAME = re.compile(r"s_[A-Za-z0-9_\-]{16}")
_FRAGMENT_LINE = re.compile(
    r"(a=(candidate|ice-ufrag|ice-pwd|mid|end-of-candidates|ice-options)|m=)"
)
RETRY_AFTER_S = 2


class WhepRoutes:
    """Handlers for /whep, /whip and for pushes."""

    def __init__(self, parts: Parts) -> None:
        """Serve these parts."""
        self._parts = parts

    def routes(self) -> list[web.RouteDef]:
        """All of them."""
        watch, hear = "/whep/{name}", "/whip/{session}"
        resources = [f"/{way}/{{session}}/peers/{{peer}}" for way in ("whep", "whip")]
        return [
            web.post(watch, self.watch),
            web.post(hear, self.hear),
            *(web.patch(peer, self.trickle) for peer in resources),
            *(web.delete(peer, self.leave) for peer in resources),
            *(web.options(path, self.discover) for path in (watch, hear, *resources)),
            *(web.get(path, self.nothing, allow_head=True) for path in (watch, hear, *resources)),
            web.post("/v1/sessions/{session}/whip", self.push),
            web.delete("/v1/sessions/{session}/peers/{peer}", self.hang_up),
        ]

    async def discover(self, request: web.Request) -> web.Response:
        """What may be posted."""
        del request
        return web.Response(status=204, headers={"Accept-Post": SDP, "Accept-Patch": FRAGMENT})

    async def nothing(self, request: web.Request) -> web.Response:
        """A resource has nothing to show."""
        del request
        return web.Response(status=204)

    async def watch(self, request: web.Request) -> web.Response:
        """A viewer's offer: of a session that runs, or of a portrait, which begins one."""
        name = request.match_info["name"]
        if SESSION_NAME.fullmatch(name):
            session = self._running(request, name)
            sdp = await self._parts.sdp(request)
        else:
            owner = self._parts.gate.require_key(request)
            sdp = await self._parts.sdp(request)
            asked = NewSession(portrait=name)
            session = await make_session(self._parts, asked, owner, for_one_peer=True)
        offer = self._parts.offer(session, sdp, "recvonly")
        return await self._connect(session, offer, "whep")

    async def hear(self, request: web.Request) -> web.Response:
        """A WHIP client's offer: what it sends becomes the session's microphone."""
        visit = self._parts.visit(request)
        sdp = await self._parts.sdp(request)
        await self._started(visit)
        offer = self._parts.offer(visit.session, sdp, "sendonly")
        return await self._connect(visit.session, offer, "whip")

    async def trickle(self, request: web.Request) -> web.Response:
        """A client's candidates: they are learned from its checks as well, so nothing is done."""
        session, peer = self._peer(request)
        match = request.headers.get("If-Match")
        if match is None:
            raise Problem(428, "etag_missing", "send If-Match with the ETag of the answer")
        if request.content_type != FRAGMENT:
            headers = {"Accept-Patch": FRAGMENT}
            raise Problem(415, "wrong_type", f"send Content-Type: {FRAGMENT}", headers=headers)
        if match == "*":
            raise Problem(422, "unsupported", "ICE cannot restart here: make a new offer")
        if match != _etag(peer):
            raise Problem(412, "etag_stale", "this is not the ETag of the answer")
        limit = self._parts.deployment.limits.max_sdp_bytes
        _check_fragment(await self._parts.body(request, limit))
        session.touch()
        return web.Response(status=204)

    async def leave(self, request: web.Request) -> web.Response:
        """A client hangs up; a session of its own ends with it."""
        session, peer = self._peer(request)
        await self._parts.sessions.disconnect(session, peer)
        if session.order.for_one_peer and not session.peers:
            await self._parts.sessions.close(session, "client")
        return web.Response(status=200)

    async def push(self, request: web.Request) -> web.Response:
        """Send the session to a WHIP server."""
        visit = self._parts.visit(request)
        asked = parse(Push, await self._parts.json(request))
        self._require_pushable(asked.url)
        await self._started(visit)
        session = visit.session
        offer = self._parts.offer(session, "", "recvonly")
        peer = await self._parts.sessions.push(session, asked.url, asked.bearer, offer)
        location = f"/v1/sessions/{session.name}/peers/{peer}"
        return web.json_response({"peer_id": peer}, status=201, headers={"Location": location})

    async def hang_up(self, request: web.Request) -> web.Response:
        """End one peer of a session."""
        session = self._parts.visit(request).session
        await self._parts.sessions.disconnect(session, request.match_info["peer"])
        return web.Response(status=204)

    async def _started(self, visit: Visit) -> None:
        """Start a session that has not."""
        if visit.session.state not in OPEN_STATES:
            await start_once(self._parts, visit, wait=False)

    def _running(self, request: web.Request, name: str) -> HostedSession:
        """A session that can be watched.

        Raises:
            Problem: 409 `nothing_to_watch`, 410, and as `Gate.require_session`.
        """
        session = self._parts.gate.require_session(request, name).session
        session.refuse_closed()
        if session.cast is None:
            detail = "the session has not started"
            raise Problem(409, "nothing_to_watch", detail, retry_after_s=RETRY_AFTER_S)
        return session

    async def _connect(self, session: HostedSession, offer: Offer, way: str) -> web.Response:
        """Answer the offer; a session that was made for it does not outlive a refusal."""
        try:
            peer, answer = await self._parts.sessions.connect(session, offer)
        except Problem:
            if session.order.for_one_peer:
                await self._parts.sessions.close(session, "client")
            raise
        headers = CIMultiDict(
            {"Location": f"/{way}/{session.name}/peers/{peer}", "ETag": _etag(peer)}
        )
        for link in link_headers(offer.ice_servers):
            headers.add("Link", link)
        return web.Response(status=201, text=answer, content_type=SDP, headers=headers)

    def _peer(self, request: web.Request) -> tuple[HostedSession, str]:
        """The session and the peer of a path.

        Raises:
            Problem: 404 `no_session`, and as `Gate.require_session`.
        """
        session = self._parts.gate.require_peer_owner(request, request.match_info["session"])
        peer = request.match_info["peer"]
        if peer not in session.peers:
            raise Problem(404, "no_session", "there is no such peer")
        return session, peer

    def _require_pushable(self, url: str) -> None:
        """Refuse addresses that the deployment does not allow.

        Raises:
            Problem: 400 `bad_field`, 403 `forbidden`.
        """
        try:
            parts = urlsplit(url)
            host, _ = (parts.hostname or "").lower(), parts.port
        except ValueError as error:
            raise Problem(400, "bad_field", "url: this is no address") from error
        if parts.scheme not in ("http", "https") or not host or parts.username is not None:
            raise Problem(400, "bad_field", "url: an http or https address without a user")
        deployment = self._parts.deployment
        if host not in deployment.push_hosts and not deployment.is_loopback:
            raise Problem(403, "forbidden", "the deployment's push_hosts do not name this host")


def _etag(peer: str) -> str:
    """A peer's entity tag: ICE never restarts, so it never changes."""
    return f'"{peer}"'


def _check_fragment(body: bytes) -> None:
    """Refuse what is no SDP fragment.

    Raises:
        Problem: 400 `bad_sdp`.
    """
    try:
        lines = [line for line in body.decode().splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise Problem(400, "bad_sdp", "this is no text") from error
    if not lines or not all(_FRAGMENT_LINE.match(line) for line in lines):
        raise Problem(400, "bad_sdp", "this is no SDP fragment")
