"""ICE servers for clients and peers, with TURN credentials that expire.

TURN credentials follow the TURN REST convention (coturn: `use-auth-secret`): the user name is
`EXPIRY:NAME`, the password base64(HMAC-SHA1(secret, user name)).
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict

URL = re.compile(r"(stun|stuns|turn|turns):[A-Za-z0-9.\-\[\]:]{1,255}(\?transport=(udp|tcp))?")


class IceServer(TypedDict, total=False):
    """What browsers take in `iceServers`."""

    urls: list[str]
    username: str
    credential: str


class IceError(ValueError):
    """An ICE server cannot be used: one line naming it and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IcePlan:
    """Which servers there are; with a secret, TURN servers get credentials of `ttl_s`.

    The default is none: hosts on one network need no server, and an unreachable STUN server costs
    five seconds at every connection.
    """

    urls: tuple[str, ...] = ()
    turn_secret: str = ""
    ttl_s: int = 3600
    username: str = ""
    credential: str = ""

    def __post_init__(self) -> None:
        """Refuse what is no STUN or TURN address."""
        for url in self.urls:
            if not URL.fullmatch(url):
                raise IceError(f"ICE server {url[:80]!r} is not understood: write turn:host:3478")
        if self.turn_secret and self.username:
            raise IceError("turn_secret and username exclude each other: give one of them")

    def servers_for(self, name: str, wall_clock: Callable[[], float]) -> list[IceServer]:
        """The servers as a session called `name` may use them from now on."""
        return [self._server(url, name, wall_clock) for url in self.urls]

    def _server(self, url: str, name: str, wall_clock: Callable[[], float]) -> IceServer:
        """One server, with credentials where it takes any."""
        server = IceServer(urls=[url])
        if not url.startswith("turn"):
            return server
        if self.turn_secret:
            username, credential = turn_credentials(
                self.turn_secret, name, int(wall_clock()) + self.ttl_s
            )
            return IceServer(urls=[url], username=username, credential=credential)
        if self.username:
            return IceServer(urls=[url], username=self.username, credential=self.credential)
        return server


def turn_credentials(secret: str, name: str, expires_s: int) -> tuple[str, str]:
    """User name and password that a TURN server with this secret takes until `expires_s`."""
    username = f"{expires_s}:{name}"
    # SHA-1 is what TURN servers compute; as an HMAC it is sound.
    digest = hmac.new(secret.encode(), username.encode(), hashlib.sha1).digest()
    return username, base64.b64encode(digest).decode()


def link_headers(servers: Sequence[IceServer]) -> list[str]:
    """`Link` headers that tell WHIP and WHEP clients of the servers (RFC 9725 §4.6)."""
    return [_link(url, server) for server in servers for url in server["urls"]]


def _link(url: str, server: IceServer) -> str:
    """One header's value."""
    parts = [f"<{url}>", 'rel="ice-server"']
    if "username" in server:
        parts += [
            f'username="{_quoted(server["username"])}"',
            f'credential="{_quoted(server.get("credential", ""))}"',
            'credential-type="password"',
        ]
    return "; ".join(parts)


def _quoted(text: str) -> str:
    """What may stand between quotes in a header."""
    return text.replace("\\", "\\\\").replace('"', '\\"')
