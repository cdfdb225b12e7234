"""A WHIP client (RFC 9725): POST an offer, get an answer and a resource, DELETE it at the end.

Servers may send the offer on (307 and 308 keep it a POST) and name the resource as they like, but
only to https or within their own host, never from https down to http; the bearer stays with the
host that it was given for.
"""

import asyncio
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

import aiohttp

_MAX_ANSWER_BYTES = 64 * 1024
_DELETE_S = 5.0
_MAX_REDIRECTS = 3
_KEEPS_POST = (307, 308)


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
                session.delete(self.url, headers=_headers(self.bearer), allow_redirects=False),
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
    try:
        async with asyncio.timeout(timeout_s), aiohttp.ClientSession() as session:
            for _ in range(1 + _MAX_REDIRECTS):
                answer = await _post_once(session, url, bearer, offer_sdp)
                if not isinstance(answer, str):
                    return answer
                url, bearer = answer, bearer_for(answer, url, bearer)
    except (TimeoutError, aiohttp.ClientError, ValueError) as error:
        reason = str(error) or type(error).__name__
        raise WhipError(f"WHIP server {url[:200]} cannot be reached: {reason[:200]}") from None
    raise WhipError(f"WHIP server {url[:200]} redirects over {_MAX_REDIRECTS} times: give its end")


async def _post_once(
    session: aiohttp.ClientSession, url: str, bearer: str | None, offer_sdp: str
) -> tuple[WhipResource, str] | str:
    """Post to one address: what came of it, or where to post instead."""
    headers = _headers(bearer) | {"Content-Type": "application/sdp", "Accept": "application/sdp"}
    async with session.post(
        url, data=offer_sdp.encode(), headers=headers, allow_redirects=False
    ) as response:
        if 300 <= response.status < 400:
            return _redirect(response)
        return await _taken(response, bearer)


def _redirect(response: aiohttp.ClientResponse) -> str:
    """Where a server sends us.

    Raises:
        WhipError: it may not.
    """
    here, location = str(response.url), response.headers.get("Location", "")
    server = f"WHIP server {here[:200]}"
    if response.status not in _KEEPS_POST or not location:
        raise WhipError(f"{server} redirects by {response.status}, not 307: is it a WHIP URL?")
    there = urljoin(here, location)
    if not may_follow(here, there):
        raise WhipError(f"{server} redirects to {there[:200]}: only https elsewhere is followed")
    return there


def may_follow(here: str, there: str) -> bool:
    """Whether one address may send us to another: to https, or to http on its own http host.

    Raises:
        ValueError: an address is malformed.
    """
    old, new = urlsplit(here), urlsplit(there)
    if not new.hostname or new.username is not None:
        return False
    return new.scheme == "https" or _origin(new) == _origin(old)


def bearer_for(there: str, here: str, bearer: str | None) -> str | None:
    """The bearer that belongs to `here`, if `there` may have it.

    Raises:
        ValueError: an address is malformed.
    """
    old, new = urlsplit(here), urlsplit(there)
    return bearer if (old.hostname, _port(old)) == (new.hostname, _port(new)) else None


def _origin(parts: SplitResult) -> tuple[str, str | None]:
    """Scheme and host; ports of one host are its own business."""
    return parts.scheme, parts.hostname


def _port(parts: SplitResult) -> int:
    """The port, also where it is left out."""
    return parts.port or (443 if parts.scheme == "https" else 80)


async def _taken(response: aiohttp.ClientResponse, bearer: str | None) -> tuple[WhipResource, str]:
    """Read what a server answers to an offer."""
    server = f"WHIP server {str(response.url)[:200]}"
    if response.status in (401, 403):
        raise WhipError(f"{server} refused the token ({response.status}): give another bearer")
    if response.status != 201:
        raise WhipError(f"{server} answered {response.status} instead of 201: is it a WHIP URL?")
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > _MAX_ANSWER_BYTES:
            most = _MAX_ANSWER_BYTES // 1024
            raise WhipError(f"{server} sent over {most} KiB: is it a WHIP URL?")
    location = response.headers.get("Location")
    here = str(response.url)
    url = urljoin(here, location) if location else None
    if url is not None and not may_follow(here, url):
        # It is told nothing: media that stop are the end for it, too.
        url = None
    kept = bearer_for(url, here, bearer) if url else None
    return WhipResource(url, kept), body.decode("utf-8", "replace")


def _headers(bearer: str | None) -> dict[str, str]:
    """The authorisation, where there is one."""
    return {"Authorization": f"Bearer {bearer}"} if bearer else {}
