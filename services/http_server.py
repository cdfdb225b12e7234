"""The HTTP server itself: what is wrong before a request exists is refused as a problem, too."""

import logging
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from services.problem import Problem

MAX_LINE_BYTES = 8190
MAX_HEADER_BYTES = 8190
MAX_HEADERS = 64
# How long the rest of a refused body is read and thrown away.
LINGER_S = 2.0

_log = logging.getLogger("viva.http")


class ProblemHandler(RequestHandler):
    """aiohttp's connection handler with our words for broken requests."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what is no request: no internals, and the connection ends."""
        del message
        if request.writer.output_size > 0:
            raise ConnectionError("an answer was begun already") from exc
        # Without the bytes that came: they may hold a key.
        _log.info("broken request", extra={"status": status, "error_kind": type(exc).__name__})
        response = _refusal(status, exc).response()
        response.force_close()
        return response


def _refusal(status: int, error: BaseException | None) -> Problem:
    """Our words for aiohttp's."""
    if status >= 500:
        return Problem(500, "failed", "the server failed; its log says why")
    if isinstance(error, LineTooLong) or "Too many headers" in str(error):
        return Problem(431, "headers_too_large", "the request's head is too large")
    return Problem(400, "bad_request", "this is no HTTP request")


class ProblemServer(web.Server):
    """Makes our handlers."""

    options: dict[str, Any]

    def __call__(self) -> RequestHandler:
        """A handler for one connection."""
        return ProblemHandler(self, loop=self._loop, **self.options)


class GatewayRunner(web.AppRunner):
    """Runs an application behind our server, with limits on lines and headers."""

    def __init__(self, app: web.Application, *, header_timeout_s: float) -> None:
        """A connection that sends no whole head within `header_timeout_s` is closed."""
        super().__init__(
            app,
            handle_signals=False,
            access_log=None,
            keepalive_timeout=header_timeout_s,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            max_headers=MAX_HEADERS,
            lingering_time=LINGER_S,
            shutdown_timeout=5.0,
        )

    async def _make_server(self) -> web.Server:
        """aiohttp's own server with our handlers."""
        made = await super()._make_server()
        server = ProblemServer(
            made.request_handler, request_factory=made.request_factory, loop=made._loop
        )
        server.options = made._kwargs
        return server
