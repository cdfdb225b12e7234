"""What the routes of the HTTP interface share."""

from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from services.deployment import Deployment
from services.event_desk import EventDesk
from services.gate import Gate, Visit
from services.hosted_session import HostedSession
from services.ice import IcePlan, IceServer
from services.limits import read_body, read_json
from services.live_metrics import LiveMetrics
from services.live_model import LiveModel
from services.live_sessions import LiveSessions
from services.portraits import Portraits
from services.problem import Problem
from services.studio import Offer, Wants

SDP = "application/sdp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of one gateway; `wall_clock` dates credentials, in seconds since 1970."""

    deployment: Deployment
    model: LiveModel
    sessions: LiveSessions
    portraits: Portraits
    gate: Gate
    desk: EventDesk
    ice: IcePlan
    metrics: LiveMetrics
    wall_clock: Callable[[], float]

    async def json(self, request: web.Request) -> dict[str, object]:
        """The body as a JSON object.

        Raises:
            Problem: 400, 408, 413, 415.
        """
        limits = self.deployment.limits
        return await read_json(
            request, max_bytes=limits.max_json_bytes, timeout_s=limits.body_timeout_s
        )

    async def body(self, request: web.Request, max_bytes: int) -> bytes:
        """The body as bytes.

        Raises:
            Problem: 400, 408, 413.
        """
        timeout_s = self.deployment.limits.body_timeout_s
        return await read_body(request, max_bytes=max_bytes, timeout_s=timeout_s)

    async def sdp(self, request: web.Request) -> str:
        """The body as SDP.

        Raises:
            Problem: 415 of another content type, 400 `bad_sdp` of no text, 408, 413.
        """
        if request.content_type != SDP:
            raise Problem(415, "wrong_type", f"send Content-Type: {SDP}")
        body = await self.body(request, self.deployment.limits.max_sdp_bytes)
        try:
            return body.decode()
        except UnicodeDecodeError as error:
            raise Problem(400, "bad_sdp", "this is no text") from error

    def visit(self, request: web.Request) -> Visit:
        """The session in the request's path, for whoever may."""
        return self.gate.require_session(request, request.match_info.get("session"))

    def ice_servers(self, session: HostedSession) -> list[IceServer]:
        """ICE servers with credentials for one session."""
        return self.ice.servers_for(session.name[:10], self.wall_clock)

    def offer(self, session: HostedSession, sdp: str, wants: Wants) -> Offer:
        """An offer as the studio takes it."""
        return Offer(
            sdp=sdp,
            codec=session.order.codec,
            ice_servers=self.ice_servers(session),
            wants=wants,
        )
