"""Refusals over HTTP: one exception, and the JSON that it becomes (RFC 9457)."""

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus

from aiohttp import web

CONTENT_TYPE = "application/problem+json"
URN = "urn:viva-voce:problem:"
MAX_DETAIL_CHARS = 300

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Extra = str | int | float | None

_log = logging.getLogger("viva.http")
_CODES = {
    400: "bad_request",
    403: "forbidden",
    404: "not_found",
    405: "method_refused",
    408: "slow_sender",
    413: "too_large",
    415: "wrong_type",
    431: "headers_too_large",
}


class Problem(Exception):
    """A request is refused: `code` is for programs, `detail` one line for people."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        retry_after_s: int | None = None,
        headers: Mapping[str, str] | None = None,
        **extra: Extra,
    ) -> None:
        """Keep what the answer will say; `extra` are further members of the object."""
        super().__init__(detail)
        self.status, self.code, self.retry_after_s = status, code, retry_after_s
        self.detail = " ".join(detail.split())[:MAX_DETAIL_CHARS]
        self.headers, self.extra = dict(headers or {}), extra

    def body(self) -> dict[str, Extra]:
        """The JSON object."""
        members: dict[str, Extra] = {
            "type": f"{URN}{self.code}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            **self.extra,
        }
        if self.retry_after_s is not None:
            members["retry_after_s"] = self.retry_after_s
        return members

    def response(self) -> web.Response:
        """The answer that says so."""
        headers = dict(self.headers)
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(self.retry_after_s)
        return web.Response(
            status=self.status,
            text=json.dumps(self.body()),
            content_type=CONTENT_TYPE,
            headers=headers,
        )


def of_http_exception(error: web.HTTPException) -> Problem:
    """What aiohttp itself refuses (no such path, no such method, too large), in our words."""
    headers = {name: error.headers[name] for name in ("Allow",) if name in error.headers}
    code = _CODES.get(error.status, "bad_request" if error.status < 500 else "failed")
    return Problem(error.status, code, error.reason, headers=headers)


@web.middleware
async def problem_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every refusal and every failure below into a problem; nothing of a failure leaks out."""
    try:
        return await handler(request)
    except Problem as problem:
        return problem.response()
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return of_http_exception(error).response()
    except (ConnectionError, TimeoutError):
        return Problem(408, "slow_sender", "the connection broke or was too slow").response()
    except Exception:  # noqa: BLE001 - the border: whatever failed, the caller hears no internals
        _log.exception("request failed", extra={"path": request.path, "method": request.method})
        return Problem(500, "failed", "the server failed; its log says why").response()
