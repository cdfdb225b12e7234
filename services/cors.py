"""Cross-origin requests: refused, except from origins that the deployment names."""

from urllib.parse import urlsplit

from aiohttp import hdrs, web
from aiohttp.typedefs import Middleware

from services.problem import Handler, Problem

METHODS = "GET, POST, PATCH, DELETE, OPTIONS"
REQUEST_HEADERS = "Authorization, Content-Type, If-Match, X-API-KEY"
EXPOSED = "Location, Link, ETag, Retry-After"
MAX_AGE_S = "600"


def cors_middleware(origins: tuple[str, ...]) -> Middleware:
    """Answers preflights of named origins; what changes anything is refused from all others."""
    named = frozenset(origins)

    @web.middleware
    async def cors(request: web.Request, handler: Handler) -> web.StreamResponse:
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is None or _is_own(origin, request):
            return await handler(request)
        if origin not in named:
            if request.method in ("GET", "HEAD") and not _is_socket(request):
                return await handler(request)
            return Problem(403, "origin_refused", "this origin may not call").response()
        if request.method == "OPTIONS" and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers:
            return web.Response(status=204, headers=_preflight(origin))
        response = await handler(request)
        if not response.prepared:
            response.headers.update(_allowed(origin))
        return response

    return cors


def _is_own(origin: str, request: web.Request) -> bool:
    """Whether the page comes from this very server (a proxy may have taken the TLS off)."""
    return urlsplit(origin).netloc.lower() == request.host.lower()


def _is_socket(request: web.Request) -> bool:
    """Whether this would become a WebSocket, which browsers let pages open anywhere."""
    return request.headers.get(hdrs.UPGRADE, "").lower() == "websocket"


def _allowed(origin: str) -> dict[str, str]:
    """What every answer to a named origin carries."""
    return {
        hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: origin,
        hdrs.ACCESS_CONTROL_EXPOSE_HEADERS: EXPOSED,
        hdrs.VARY: "Origin",
    }


def _preflight(origin: str) -> dict[str, str]:
    """What a preflight is answered."""
    return {
        **_allowed(origin),
        hdrs.ACCESS_CONTROL_ALLOW_METHODS: METHODS,
        hdrs.ACCESS_CONTROL_ALLOW_HEADERS: REQUEST_HEADERS,
        hdrs.ACCESS_CONTROL_MAX_AGE: MAX_AGE_S,
    }
