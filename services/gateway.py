"""The gateway: an aiohttp application made of its parts. It never imports torch."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.typedefs import Middleware

from pipeline.cast import CastMember
from services.auth import ApiKeys, SessionTokens
from services.cors import cors_middleware
from services.deployment import Deployment
from services.event_board import Event
from services.event_desk import EventDesk
from services.events_socket import EventsSocket
from services.gate import Gate
from services.gateway_parts import Parts
from services.hosted_session import HostedSession
from services.http_portraits import PortraitRoutes
from services.http_probes import ProbeRoutes
from services.http_sessions import SessionRoutes
from services.http_whep import WhepRoutes
from services.live_metrics import LiveMetrics
from services.live_model import LiveModel
from services.live_sessions import House, LiveSessions
from services.portraits import Portraits
from services.problem import Handler, problem_middleware
from services.studio import Studio
from services.tracing import NoTracer, Tracer
from services.tts import TextToSpeech
from services.web_page import WebPage

PROBES = ("/healthz", "/readyz", "/metrics")
PARTS = web.AppKey("parts", Parts)
_log = logging.getLogger("viva.http")


@dataclass(frozen=True, slots=True, kw_only=True)
class Backing:
    """What a gateway is built on; the clocks are in seconds, `wall_clock` since 1970."""

    deployment: Deployment
    model: LiveModel
    studio: Studio
    cast: tuple[CastMember, ...]
    keys: ApiKeys
    secret: bytes
    voice: TextToSpeech | None = None
    tracer: Tracer = field(default_factory=NoTracer)
    clock: Callable[[], float] = time.monotonic
    wall_clock: Callable[[], float] = time.time


def build_gateway(backing: Backing) -> web.Application:
    """The application; it ends its sessions when it is cleaned up, but not model and studio."""
    decoder = ThreadPoolExecutor(1, thread_name_prefix="viva-portraits")
    parts = _assemble(backing, decoder)
    app = web.Application(
        middlewares=[
            _observed(parts, backing.tracer),
            cors_middleware(backing.deployment.cors_origins),
            problem_middleware,
            _guarded(parts),
        ],
        # Bodies are bounded where they are read; this is for what nobody reads.
        client_max_size=backing.deployment.limits.max_json_bytes,
    )
    app[PARTS] = parts
    for routes in (
        ProbeRoutes(parts),
        PortraitRoutes(parts),
        SessionRoutes(parts),
        EventsSocket(parts),
        WhepRoutes(parts),
        WebPage(),
    ):
        app.add_routes(routes.routes())
    app.cleanup_ctx.append(_watching(parts, decoder))
    return app


def _assemble(backing: Backing, decoder: ThreadPoolExecutor) -> Parts:
    """All parts, knowing each other."""
    deployment, metrics = backing.deployment, LiveMetrics()
    sessions = LiveSessions(
        House(
            model=backing.model,
            studio=backing.studio,
            sessions=deployment.sessions,
            limits=deployment.limits,
            clock=backing.clock,
            metrics=metrics,
        )
    )
    desk = EventDesk(sessions, voice=backing.voice, metrics=metrics, clock=backing.clock)
    sessions.on_message = _channel_messages(desk)
    tokens = SessionTokens(
        backing.secret, ttl_s=deployment.sessions.token_ttl_s, wall_clock=backing.wall_clock
    )
    return Parts(
        deployment=deployment,
        model=backing.model,
        sessions=sessions,
        portraits=Portraits(backing.cast, deployment.limits, clock=backing.clock, executor=decoder),
        gate=Gate(deployment, backing.keys, tokens, sessions, backing.clock),
        desk=desk,
        ice=deployment.ice_plan(),
        metrics=metrics,
        wall_clock=backing.wall_clock,
    )


def _channel_messages(
    desk: EventDesk,
) -> Callable[[HostedSession, str, dict[str, object]], None]:
    """What is done with messages of data channels: obeyed, errors going back where they came."""

    def take(session: HostedSession, peer: str, message: dict[str, object]) -> None:
        def reply(event: Event) -> None:
            connected = session.peers.get(peer)
            if connected is not None:
                connected.send(event)

        desk.take(session, message, reply)

    return take


def _watching(
    parts: Parts, decoder: ThreadPoolExecutor
) -> Callable[[web.Application], AsyncIterator[None]]:
    """Watch the time while the application runs; end all sessions with it."""

    async def watching(app: web.Application) -> AsyncIterator[None]:
        del app
        watch = asyncio.create_task(parts.sessions.run(), name="watch sessions")
        yield
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
        await parts.sessions.close_all("shutdown")
        decoder.shutdown(wait=True)

    return watching


def _guarded(parts: Parts) -> Middleware:
    """Count requests against their rate, and refuse hosts that are not ours."""

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in PROBES:
            parts.gate.count(request)
            parts.gate.require_known_host(request)
        return await handler(request)

    return guarded


def _observed(parts: Parts, tracer: Tracer) -> Middleware:
    """Log, count and trace each request by its route, never by its whole address."""

    @web.middleware
    async def observed(request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        route = "unknown" if resource is None else resource.canonical
        began_s = time.monotonic()
        with tracer.span(f"{request.method} {route}", route=route):
            response = await handler(request)
        parts.metrics.answered(response.status)
        level = logging.DEBUG if request.path in PROBES else logging.INFO
        _log.log(
            level,
            "request",
            extra={
                "method": request.method,
                "route": route,
                "status": response.status,
                "took_ms": round((time.monotonic() - began_s) * 1000, 1),
                "session": request.match_info.get("session"),
                "from": parts.gate.address(request),
            },
        )
        return response

    return observed
