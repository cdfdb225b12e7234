"""Refusals over gRPC: one exception, and the status with details that it becomes.

Details are those of google.rpc: `ErrorInfo` always (a word for programs and its domain),
`BadRequest` where a field is wrong, `RetryInfo` where asking again helps.
"""

import logging
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NoReturn, TypeAlias

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from services.job_queue import JobConflict, JobError, JobRefused, JobUnknown, QueueFull
from services.live_model import ModelRefused
from services.problem import Problem

DOMAIN = "viva.v1"
DETAILS = "grpc-status-details-bin"
MAX_MESSAGE_CHARS = 1000
REQUEST_ID, MAX_REQUEST_ID_CHARS = "x-request-id", 128
ECHO_BIN, MAX_ECHO_BYTES = "x-echo-bin", 1024

_log = logging.getLogger("viva.grpc")
_OF_HTTP = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    410: grpc.StatusCode.FAILED_PRECONDITION,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
}
_OF_MODEL = {
    "capacity": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "worker_lost": grpc.StatusCode.UNAVAILABLE,
    "failed": grpc.StatusCode.INTERNAL,
    "session": grpc.StatusCode.INTERNAL,
}
_RETRY_AFTER_S = 5.0


class Refusal(Exception):
    """A call is refused: `reason` is a word for programs, `message` one line for people.

    `field` names what is wrong in the request; `info` goes to programs beside the reason.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        reason: str,
        message: str,
        *,
        field: str = "",
        retry_after_s: float | None = None,
        info: Mapping[str, str] | None = None,
    ) -> None:
        """Keep what the status will say."""
        super().__init__(message)
        self.code, self.reason, self.field = code, reason.upper(), field
        self.message = message[:MAX_MESSAGE_CHARS]
        self.retry_after_s, self.info = retry_after_s, dict(info or {})

    def details(self) -> bytes:
        """The google.rpc.Status that goes with the call's own status."""
        details: list[Message] = [
            error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN, metadata=self.info)
        ]
        if self.field:
            violation = error_details_pb2.BadRequest.FieldViolation(
                field=self.field, description=self.message
            )
            details.append(error_details_pb2.BadRequest(field_violations=[violation]))
        if self.retry_after_s is not None:
            wait = error_details_pb2.RetryInfo()
            wait.retry_delay.FromMilliseconds(math.ceil(self.retry_after_s * 1000))
            details.append(wait)
        number: int = self.code.value[0]
        status = status_pb2.Status(code=number, message=self.message)
        for detail in details:
            status.details.add().Pack(detail)
        data: bytes = status.SerializeToString()
        return data


def bad_field(field: str, message: str, *, reason: str = "BAD_FIELD") -> Refusal:
    """A field whose value cannot be used; the message begins with its name."""
    return Refusal(grpc.StatusCode.INVALID_ARGUMENT, reason, f"{field}: {message}", field=field)


def of_problem(problem: Problem) -> Refusal:
    """What the HTTP side would have refused, in gRPC's codes."""
    code = _OF_HTTP.get(problem.status, grpc.StatusCode.INTERNAL)
    if problem.code == "capacity":
        code = grpc.StatusCode.RESOURCE_EXHAUSTED
    return Refusal(code, problem.code, problem.detail, retry_after_s=problem.retry_after_s)


def of_model(refused: ModelRefused) -> Refusal:
    """What the model does not take."""
    code = _OF_MODEL.get(refused.reason, grpc.StatusCode.INVALID_ARGUMENT)
    is_busy = code in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)
    is_input = code is grpc.StatusCode.INVALID_ARGUMENT
    return Refusal(
        code,
        refused.reason,
        refused.detail,
        field=f"config.{refused.reason}" if is_input else "",
        retry_after_s=_RETRY_AFTER_S if is_busy else None,
    )


def of_job(error: JobError) -> Refusal:
    """What the queue does not take."""
    message = " ".join(str(error).split())
    if isinstance(error, JobRefused):
        # `data` is an upload's field, all others are a spec's.
        field = error.field if error.field == "data" else f"spec.{error.field}"
        return Refusal(grpc.StatusCode.INVALID_ARGUMENT, "BAD_FIELD", message, field=field)
    if isinstance(error, JobUnknown):
        return Refusal(grpc.StatusCode.NOT_FOUND, "NO_RENDER", message)
    if isinstance(error, QueueFull):
        return Refusal(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "QUEUE_FULL",
            message,
            retry_after_s=error.retry_after_s,
        )
    if isinstance(error, JobConflict):
        return Refusal(grpc.StatusCode.FAILED_PRECONDITION, "CONFLICT", message)
    return Refusal(grpc.StatusCode.INTERNAL, "FAILED", message)


Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


async def refuse(context: Context, refusal: Refusal) -> NoReturn:
    """End the call with the refusal's status; what was to be said at its end is said, too."""
    said = tuple(context.trailing_metadata() or ())
    trailing = (*said, (DETAILS, refusal.details()))
    await context.abort(refusal.code, refusal.message, trailing)


@asynccontextmanager
async def serving(context: Context) -> AsyncIterator[None]:
    """A call from its first to its last word: what is refused or fails inside ends it.

    An `x-request-id` comes back first and an `x-echo-bin` last, so that logs of both sides meet.
    Nothing of a failure leaks out: our log says why.
    """
    await _greet(context)
    try:
        yield
    except grpc.aio.AbortError:
        raise
    except Exception as error:  # noqa: BLE001 - the border: the caller hears no internals
        await refuse(context, _as_refusal(error))


def _as_refusal(error: Exception) -> Refusal:
    """What the caller hears of an error."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, Problem):
        return of_problem(error)
    if isinstance(error, ModelRefused):
        return of_model(error)
    if isinstance(error, JobError):
        return of_job(error)
    _log.error("call failed", exc_info=error)
    return Refusal(grpc.StatusCode.INTERNAL, "FAILED", "the server failed; its log says why")


async def _greet(context: Context) -> None:
    """Give back what the caller marks its call with."""
    said = dict(context.invocation_metadata() or ())
    request_id, blob = said.get(REQUEST_ID), said.get(ECHO_BIN)
    if isinstance(blob, bytes) and len(blob) <= MAX_ECHO_BYTES:
        context.set_trailing_metadata(((ECHO_BIN, blob),))
    if isinstance(request_id, str) and len(request_id) <= MAX_REQUEST_ID_CHARS:
        await context.send_initial_metadata(((REQUEST_ID, request_id),))
