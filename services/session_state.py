"""The life of a session: its states, the reasons it ends for, and when time ends it."""

from dataclasses import dataclass
from enum import Enum
from typing import Literal

Reason = Literal[
    "client", "idle_timeout", "max_duration", "capacity", "worker_lost", "auth", "shutdown"
]


class State(Enum):
    """Where a session is in its life."""

    NEW = "new"
    READY = "ready"
    STREAMING = "streaming"
    DRAINING = "draining"
    CLOSED = "closed"


_NEXT = {
    State.NEW: {State.READY, State.CLOSED},
    State.READY: {State.STREAMING, State.DRAINING},
    # Back to ready: the client vanished and may come back.
    State.STREAMING: {State.READY, State.DRAINING},
    State.DRAINING: {State.CLOSED},
    State.CLOSED: set[State](),
}
OPEN_STATES = (State.READY, State.STREAMING)


class IllegalTransition(RuntimeError):
    """A state was left for one that does not follow: a mistake of ours."""


def checked(now: State, then: State) -> State:
    """The state `then`, if it follows `now`.

    Raises:
        IllegalTransition: it does not.
    """
    if then not in _NEXT[now]:
        raise IllegalTransition(f"{now.value} is not followed by {then.value}")
    return then


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How long a session may do what, in seconds."""

    idle_timeout_s: float
    max_duration_s: float
    grace_s: float
    claim_s: float
    max_wait_s: float
    token_ttl_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """When a session did what, in seconds of the monotonic clock; None: it did not.

    `away_s` is since when nobody has been connected, `unclaimed_s` since when a place from the
    queue waits for its session's client, `queued_s` since when it waits for one.
    """

    made_s: float
    active_s: float
    queued_s: float | None = None
    started_s: float | None = None
    away_s: float | None = None
    unclaimed_s: float | None = None


def end_reason(state: State, times: Times, terms: Terms, now_s: float) -> Reason | None:
    """Why time ends this session now; None: it does not."""
    if state is State.NEW:
        return _end_of_new(times, terms, now_s)
    if state not in OPEN_STATES:
        return None
    if times.started_s is not None and now_s - times.started_s >= terms.max_duration_s:
        return "max_duration"
    if times.unclaimed_s is not None and now_s - times.unclaimed_s >= terms.claim_s:
        return "client"
    if times.away_s is not None and now_s - times.away_s >= terms.grace_s:
        return "client"
    if now_s - times.active_s >= terms.idle_timeout_s:
        return "idle_timeout"
    return None


def _end_of_new(times: Times, terms: Terms, now_s: float) -> Reason | None:
    """A session that has not started holds no place, but it does not stay for ever."""
    if times.queued_s is not None:
        return "capacity" if now_s - times.queued_s >= terms.max_wait_s else None
    return "auth" if now_s - times.made_s >= terms.token_ttl_s else None
