"""Limits of what callers may send: how often, how much, how slowly."""

import asyncio
import json
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from services.problem import Problem

READ_BYTES = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """So many a second in the long run, and a burst of so many at once."""

    per_s: float
    burst: int

    def __post_init__(self) -> None:
        """Refuse rates that let nothing through."""
        if self.per_s <= 0 or self.burst < 1:
            raise ValueError(f"per_s={self.per_s}, burst={self.burst}: both must be positive")


class RateLimit:
    """A token bucket for each caller; callers seen longest ago are forgotten first."""

    def __init__(self, rate: Rate, clock: Callable[[], float], *, max_callers: int = 4096) -> None:
        """Start with full buckets; `clock` is in seconds."""
        self._rate, self._clock, self._max_callers = rate, clock, max_callers
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, caller: str) -> float:
        """Take one; 0 if there was one, else seconds until there is."""
        now_s = self._clock()
        tokens, since_s = self._buckets.pop(caller, (float(self._rate.burst), now_s))
        tokens = min(float(self._rate.burst), tokens + (now_s - since_s) * self._rate.per_s)
        is_there = tokens >= 1.0
        self._buckets[caller] = (tokens - 1.0 if is_there else tokens, now_s)
        while len(self._buckets) > self._max_callers:
            self._buckets.popitem(last=False)
        return 0.0 if is_there else (1.0 - tokens) / self._rate.per_s

    def take(self, caller: str) -> None:
        """Take one.

        Raises:
            Problem: 429 `rate`, with Retry-After.
        """
        wait_s = self.wait_s(caller)
        if wait_s > 0:
            retry_after_s = int(wait_s) + 1
            raise Problem(429, "rate", "too many requests", retry_after_s=retry_after_s)


async def read_body(request: web.Request, *, max_bytes: int, timeout_s: float) -> bytes:
    """The whole body, or a refusal as soon as it is too large or too slow.

    Raises:
        Problem: 413 `too_large`, 408 `slow_sender`, 400 where the body is broken.
    """
    if (request.content_length or 0) > max_bytes:
        raise too_large(max_bytes)
    body = bytearray()
    try:
        async with within(timeout_s):
            while piece := await request.content.read(READ_BYTES):
                body += piece
                if len(body) > max_bytes:
                    raise too_large(max_bytes)
    except web.RequestPayloadError as error:
        raise Problem(400, "bad_request", "the body is broken") from error
    return bytes(body)


async def read_json(request: web.Request, *, max_bytes: int, timeout_s: float) -> dict[str, object]:
    """The body as a JSON object; an empty body is an empty object.

    Raises:
        Problem: 415 of another content type, 400 `bad_json`, and as `read_body`.
    """
    if request.can_read_body and request.content_type != "application/json":
        raise Problem(415, "wrong_type", "send Content-Type: application/json")
    return parse_object(await read_body(request, max_bytes=max_bytes, timeout_s=timeout_s))


def parse_object(body: bytes | str) -> dict[str, object]:
    """A JSON object; nothing is an empty one.

    Raises:
        Problem: 400 `bad_json`.
    """
    if not body:
        return {}
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Problem(400, "bad_json", "this is no JSON") from error
    if not isinstance(value, dict):
        raise Problem(400, "bad_json", "send a JSON object")
    return value


def too_large(max_bytes: int) -> Problem:
    """Refuse a size."""
    # The rest is not read: the connection cannot be used again.
    headers = {"Connection": "close"}
    return Problem(413, "too_large", f"more than {max_bytes} bytes: send less", headers=headers)


@asynccontextmanager
async def within(timeout_s: float) -> AsyncIterator[None]:
    """Refuse what takes longer.

    Raises:
        Problem: 408 `slow_sender`.
    """
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError:
        raise Problem(
            408,
            "slow_sender",
            f"the body took longer than {timeout_s:g} s: send it faster",
            headers={"Connection": "close"},
        ) from None
