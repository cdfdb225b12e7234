"""The door of the HTTP interface: who is calling, and may they?"""

import ipaddress
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from aiohttp import web

from services.auth import ApiKeys, Claims, SessionTokens
from services.deployment import Deployment
from services.hosted_session import HostedSession
from services.limits import RateLimit
from services.live_sessions import LiveSessions
from services.problem import Problem

KEY_HEADER = "X-API-KEY"
BEARER = "Bearer "
SOCKET_BEARER = "bearer."
NO_KEYS_OWNER = "local"


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """A request to a session: the session, and what the token says (None: its owner's key)."""

    session: HostedSession
    claims: Claims | None


class Gate:
    """Checks keys, tokens, origins and rates."""

    def __init__(
        self,
        deployment: Deployment,
        keys: ApiKeys,
        tokens: SessionTokens,
        sessions: LiveSessions,
        clock: Callable[[], float],
    ) -> None:
        """Rates are those of the deployment; `clock` is monotonic, in seconds."""
        self._deployment, self._keys, self._sessions = deployment, keys, sessions
        self.tokens = tokens
        self._requests = RateLimit(deployment.limits.request_rate, clock)
        self._makers = RateLimit(deployment.limits.session_rate, clock)

    @property
    def keys_needed(self) -> bool:
        """Whether a key is needed to make sessions."""
        return len(self._keys) > 0

    def address(self, request: web.Request) -> str:
        """Who calls: the address, also behind a proxy that is trusted."""
        remote = request.remote or "unknown"
        if remote in self._deployment.trusted_proxies:
            forwarded = request.headers.get("X-Forwarded-For", "").rsplit(",", 1)[-1].strip()
            return forwarded[:64] or remote
        return remote

    def count(self, request: web.Request) -> None:
        """Count a request.

        Raises:
            Problem: 429 `rate`.
        """
        self._requests.take(self.address(request))

    def require_known_host(self, request: web.Request) -> None:
        """Without keys, refuse names that a foreign page could have pointed at this machine.

        Raises:
            Problem: 403 `forbidden`.
        """
        if self.keys_needed or not self._deployment.is_loopback:
            return
        host = (urlsplit(f"//{request.host}").hostname or "").lower()
        if host not in ("localhost", self._deployment.host) and not _is_loopback(host):
            raise Problem(403, "forbidden", "without keys this server answers to localhost only")

    def require_key(self, request: web.Request) -> str:
        """The name of the caller's key, counted against its rate.

        Raises:
            Problem: 401 `key_missing`, `key_unknown`, 429 `rate`.
        """
        owner = NO_KEYS_OWNER
        if self.keys_needed:
            owner = self._owner(self._given_key(request))
        self._makers.take(self.address(request) if owner == NO_KEYS_OWNER else owner)
        return owner

    def require_session(self, request: web.Request, name: str | None = None) -> Visit:
        """The session that a request is about; without `name` it is the token's.

        Raises:
            Problem: 401 `token_missing`, `token_invalid`, 403 `token_foreign`, 404, 410.
        """
        token = _bearer(request)
        if token and self.keys_needed and name is not None:
            owner = self._keys.name_of(token)
            if owner is not None:
                return self._owned(name, owner)
        if not token:
            headers = {"WWW-Authenticate": "Bearer"}
            raise Problem(401, "token_missing", "send the session's token", headers=headers)
        claims = self.tokens.read(token)
        if name is not None and claims.session != name:
            raise Problem(403, "token_foreign", "the token is another session's")
        return Visit(session=self._sessions.get(claims.session), claims=claims)

    def require_peer_owner(self, request: web.Request, name: str) -> HostedSession:
        """The session of a WHEP peer: by its token, its owner's key, or (without keys) its name.

        Raises:
            Problem: as `require_session`.
        """
        if not self.keys_needed and not _bearer(request):
            return self._sessions.get(name)
        return self.require_session(request, name).session

    @contextmanager
    def spent(self, visit: Visit) -> Iterator[None]:
        """Spend a token on a start; where the start fails, the token can be used again.

        Raises:
            Problem: 409 `token_replayed`, 401 `token_invalid` of one that must not start.
        """
        if visit.claims is None:
            yield
            return
        if not visit.claims.may_start:
            raise Problem(401, "token_invalid", "this token does all but start")
        used = visit.session.used_token_ids
        if visit.claims.jti in used:
            raise Problem(409, "token_replayed", "this token has started its session already")
        used.add(visit.claims.jti)
        try:
            yield
        except BaseException:
            used.discard(visit.claims.jti)
            raise

    def _owned(self, name: str, owner: str) -> Visit:
        """A session by its owner's key; others' sessions do not exist for it."""
        session = self._sessions.get(name)
        if session.order.owner != owner:
            raise Problem(404, "no_session", "there is no such session")
        return Visit(session=session, claims=None)

    def _owner(self, key: str) -> str:
        """The name of a key that must be known."""
        owner = self._keys.name_of(key)
        if owner is None:
            raise Problem(401, "key_unknown", "this API key is not known")
        return owner

    def _given_key(self, request: web.Request) -> str:
        """The key in a request's headers."""
        key = request.headers.get(KEY_HEADER, "") or _bearer(request)
        if not key:
            headers = {"WWW-Authenticate": "Bearer"}
            raise Problem(401, "key_missing", f"send {KEY_HEADER}", headers=headers)
        return key


def _bearer(request: web.Request) -> str:
    """The bearer token of a request; WebSockets of browsers carry it as a subprotocol."""
    header = request.headers.get("Authorization", "")
    if header.startswith(BEARER):
        return header.removeprefix(BEARER).strip()
    for word in request.headers.get("Sec-WebSocket-Protocol", "").split(","):
        if word.strip().startswith(SOCKET_BEARER):
            return word.strip().removeprefix(SOCKET_BEARER)
    return ""


def _is_loopback(host: str) -> bool:
    """Whether a host is an address of this machine itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
