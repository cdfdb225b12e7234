"""A WHIP client (RFC 9725): POST an offer, get an answer and a resource, DELETE it at the end."""

from dataclasses import dataclass
from urllib.parse import urljoin

import aiohttp

_MAX_ANSWER_BYTES = 64 * 1024
_DELETE_S = 5.0


class WhipError(ConnectionError):
    """A WHIP server that does not take the stream: one line naming it and what to do."""


@dataclass(frozen=True, slots=True)
class WhipResource:
    """What a WHIP server made of an offer; `url` names it."""

    url: str | None
    bearer: str | None

    async def delete(self) -> None:
        """Tell the server that the stream is over; a server that is gone needs no telling."""
        if self.url is None:
            return
        timeout = aiohttp.ClientTimeout(total=_DELETE_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.delete(self.url, headers=_headers(self.bearer)),
            ):
                return
        except (TimeoutError, aiohttp.ClientError):
            return


async def whip_post(
    url: str, bearer: str | None, offer_sdp: str, timeout_s: float
) -> tuple[WhipResource, str]:
    """Post an offer; the resource it became and the answer.

    Raises:
        WhipError: the server cannot be reached, or answers anything but 201 with an SDP.
    """
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    headers = _headers(bearer) | {"Content-Type": "application/sdp", "Accept": "application/sdp"}
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(url, data=offer_sdp.encode(), headers=headers) as response,
        ):
            return await _taken(response, bearer)
    except (TimeoutError, aiohttp.ClientError, ValueError) as error:
        reason = str(error) or type(error).__name__
        raise WhipError(f"WHIP server {url[:200]} cannot be reached: {reason[:200]}") from None


async def _taken(response: aiohttp.ClientResponse, bearer: str | None) -> tuple[WhipResource, str]:
    """Read what a server answers to an offer."""
    server = f"WHIP server {str(response.url)[:200]}"
    if response.status in (401, 403):
        raise WhipError(f"{server} refused the token ({response.status}): give another bearer")
    if response.status != 201:
        raise WhipError(f"{server} answered {response.status} instead of 201: is it a WHIP URL?")
    body = await response.content.read(_MAX_ANSWER_BYTES + 1)
    if len(body) > _MAX_ANSWER_BYTES:
        raise WhipError(f"{server} sent over {_MAX_ANSWER_BYTES // 1024} KiB: is it a WHIP URL?")
    location = response.headers.get("Location")
    url = urljoin(str(response.url), location) if location else None
    return WhipResource(url, bearer), body.decode("utf-8", "replace")


def _headers(bearer: str | None) -> dict[str, str]:
    """The authorisation, where there is one."""
    return {"Authorization": f"Bearer {bearer}"} if bearer else {}
