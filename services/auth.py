"""Who may do what: API keys make sessions, tokens bound to a session do the rest.

Covered: keys are kept and compared as SHA-256 digests in constant time; tokens are signed (HS256
and nothing else), short-lived, bound to one session, and start it once.
Not covered: stolen tokens within their five minutes, and TLS, which keeps both from being read.
"""

import hashlib
import hmac
import secrets
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import jwt

from services.problem import Problem

ALGORITHMS = ["HS256"]
ISSUER = "viva-voce"
MIN_KEY_CHARS = 16
MAX_TOKEN_CHARS = 2048
SECRET_BYTES = 32


class KeyFileError(ValueError):
    """The keys cannot be used: one line naming the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What a token says: whose session, until when (seconds since 1970), whether it may start."""

    session: str
    jti: str
    expires_s: int
    may_start: bool


class ApiKeys:
    """Digests of the keys that may make sessions."""

    def __init__(self, keys: Iterable[str]) -> None:
        """Take keys as they are written.

        Raises:
            KeyFileError: a key is too short to be one.
        """
        stripped = [key.strip() for key in keys]
        if any(len(key) < MIN_KEY_CHARS for key in stripped):
            raise KeyFileError(
                f"an API key is shorter than {MIN_KEY_CHARS} characters: "
                "make one with `openssl rand -hex 24`"
            )
        self._digests = tuple(_digest(key) for key in stripped)

    def __len__(self) -> int:
        """How many keys there are."""
        return len(self._digests)

    def name_of(self, key: str) -> str | None:
        """A short name of a known key, for limits and logs; None of an unknown one."""
        digest = _digest(key)
        # All are compared, so that the time does not tell which was nearly right.
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return f"key-{digest.hex()[:8]}" if any(matches) else None


def read_keys(text: str, path: Path | None) -> ApiKeys:
    """Keys from a comma-separated text and from a file with one a line; # begins a comment.

    Raises:
        KeyFileError: the file cannot be read, or a key is too short.
    """
    words = [word for word in text.split(",") if word.strip()]
    if path is not None:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise KeyFileError(f"{path}: no file of API keys ({error}): check its path") from error
        words += [bare for line in lines if (bare := line.split("#", 1)[0].strip())]
    return ApiKeys(words)


class SessionTokens:
    """Makes and reads tokens bound to a session."""

    def __init__(self, secret: bytes, *, ttl_s: int, wall_clock: Callable[[], float]) -> None:
        """Sign with `secret`; tokens live `ttl_s`. Expiry is a date, hence the wall clock."""
        self._secret, self.ttl_s, self._now = secret, ttl_s, wall_clock

    def issue(self, session: str, *, may_start: bool) -> str:
        """A fresh token for one session."""
        now_s = int(self._now())
        claims = {
            "iss": ISSUER,
            "sub": session,
            "jti": uuid.uuid4().hex,
            "iat": now_s,
            "exp": now_s + self.ttl_s,
            "start": may_start,
        }
        return jwt.encode(claims, self._secret, algorithm=ALGORITHMS[0])

    def read(self, token: str) -> Claims:
        """What a token says, once its signature and time are right.

        Raises:
            Problem: 401 `token_invalid`.
        """
        try:
            if len(token) > MAX_TOKEN_CHARS:
                raise jwt.InvalidTokenError("too long")
            said = jwt.decode(
                token,
                self._secret,
                algorithms=ALGORITHMS,
                issuer=ISSUER,
                # Expiry is judged below, by the clock that was passed in.
                options={
                    "require": ["exp", "sub", "jti", "iat"],
                    "verify_exp": False,
                    "verify_iat": False,
                },
            )
            claims = Claims(
                session=_text(said["sub"]),
                jti=_text(said["jti"]),
                expires_s=int(said["exp"]),
                may_start=said.get("start") is True,
            )
        except (jwt.InvalidTokenError, ValueError, TypeError, LookupError) as error:
            raise _invalid("it is forged or damaged") from error
        if claims.expires_s <= self._now():
            raise _invalid("it has expired: make a fresh one")
        return claims


def make_secret(text: str) -> bytes:
    """The signing secret: as configured, or a fresh one that lives as long as the process.

    Raises:
        KeyFileError: the configured one is too short.
    """
    secret = text.encode() if text else secrets.token_bytes(SECRET_BYTES)
    if len(secret) < SECRET_BYTES:
        raise KeyFileError(f"the token secret needs {SECRET_BYTES} bytes: make a longer one")
    return secret


def _digest(key: str) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(key.strip().encode("utf-8", "surrogatepass")).digest()


def _text(value: object) -> str:
    """A claim that must be a word."""
    if not isinstance(value, str) or not value:
        raise ValueError("a claim is no text")
    return value


def _invalid(why: str) -> Problem:
    """Refuse a token."""
    headers = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
    return Problem(401, "token_invalid", f"the token is refused: {why}", headers=headers)
