"""Who may call: the API keys and tokens of the HTTP side, in the call's metadata.

`authorization: Bearer KEY` or `x-api-key: KEY`. A session's token does what its key may do live,
but submits no renders. Without keys everybody may call, which a server on loopback alone allows.

Covered: every call but health checks is refused before its first message is read; calls are
counted for each caller.
Not covered: who may see whose renders is the job queue's to say; TLS is the server's (control.py).
"""

import contextvars
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc

from services.auth import ApiKeys, SessionTokens
from services.control_errors import Context, Refusal, of_problem, refuse
from services.limits import RateLimit
from services.problem import Problem

OPEN_METHODS = ("/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch")
_RENDERS = "/viva.v1.RenderService/"
_caller: contextvars.ContextVar[str] = contextvars.ContextVar("viva_grpc_caller", default="")

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Metadata = Sequence[tuple[str, str | bytes]]


def caller() -> str:
    """Who makes the call that is being served: a key's or token's name, "" of everybody."""
    return _caller.get()


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Keys, tokens, and how often who may call; no keys: everybody may."""

    keys: ApiKeys
    tokens: SessionTokens | None = None
    rate: RateLimit | None = None

    def admit(self, method: str, metadata: Metadata) -> str:
        """The name of who calls.

        Raises:
            Refusal: UNAUTHENTICATED, PERMISSION_DENIED, or RESOURCE_EXHAUSTED for too many calls.
        """
        if method in OPEN_METHODS:
            return ""
        name = self._name(method, dict(metadata)) if len(self.keys) else ""
        wait_s = self.rate.wait_s(name) if self.rate else 0.0
        if wait_s > 0:
            raise Refusal(
                grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE", "too many calls", retry_after_s=wait_s
            )
        return name

    def _name(self, method: str, metadata: dict[str, str | bytes]) -> str:
        """Who holds the key or token."""
        word = _credential(metadata)
        if not word:
            raise Refusal(
                grpc.StatusCode.UNAUTHENTICATED,
                "KEY_MISSING",
                "send an API key: metadata authorization: Bearer KEY",
            )
        if (name := self.keys.name_of(word)) is not None:
            return name
        if self.tokens is None or word.count(".") != 2:
            raise Refusal(grpc.StatusCode.UNAUTHENTICATED, "KEY_UNKNOWN", "the key is not known")
        try:
            session = self.tokens.read(word).session
        except Problem as problem:
            raise of_problem(problem) from problem
        if method.startswith(_RENDERS):
            raise Refusal(
                grpc.StatusCode.PERMISSION_DENIED, "KEY_NEEDED", "renders take an API key"
            )
        return session


def _credential(metadata: dict[str, str | bytes]) -> str:
    """The key or token that a call brings, "" if none."""
    bearer = str(metadata.get("authorization", ""))
    if bearer[:7].lower() == "bearer ":
        return bearer[7:].strip()
    return str(metadata.get("x-api-key", "")).strip()


class GateKeeper(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in stubs only
    """Lets calls in, or answers them with the gate's refusal whatever kind of call they are."""

    def __init__(self, gate: Gate) -> None:
        """Guard with this gate."""
        self._gate = gate

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """The method itself, or a refusal of its kind."""
        metadata: Metadata = tuple(handler_call_details.invocation_metadata or ())
        handler = await continuation(handler_call_details)
        if handler is None:  # no such method: gRPC itself says so
            return handler
        try:
            _caller.set(self._gate.admit(handler_call_details.method, metadata))
        except Refusal as refusal:
            return _refusing(handler, refusal)
        return handler


def _refusing(handler: Handler, refusal: Refusal) -> Handler:
    """A handler of the same kind that refuses before it reads."""

    async def refused(_request: Any, context: Context) -> None:
        await refuse(context, refusal)

    # Another signature than the stubs know: what it would answer never comes.
    behaviour: Any = refused
    make = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[(handler.request_streaming, handler.response_streaming)]
    made: Handler = make(behaviour, handler.request_deserializer, handler.response_serializer)
    return made
