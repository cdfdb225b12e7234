"""What live sessions need of performers and peers: protocols, so that sessions know no WebRTC."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from services.beat import Event
from services.ice import IceServer
from services.live_model import LiveStream

Codec = Literal["VP8", "H264"]
# What a client wants of us, seen from its side: a WHIP microphone only sends.
Wants = Literal["sendrecv", "recvonly", "sendonly"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """Up to where an utterance was played; no utterance: nobody spoke."""

    utterance: str | None
    position_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much is waiting: sound accepted and not yet played, and frames made ahead."""

    queue_ms: float
    ahead_frames: int


class Performing(Protocol):
    """A performer at work on one session's stream, seen from the session."""

    def speak(self, utterance: str, pcm_T: npt.NDArray[np.int16]) -> None:  # T is the shape suffix
        """Take the next sound of an utterance, at the session's rate.

        Raises:
            Problem: 409 `busy` when too much waits, 400 of an utterance that is over.
        """

    def end(self, utterance: str) -> None:
        """No more sound of it will come."""

    def interrupt(self) -> Played:
        """Stop what is being said, and say how far it came."""
        ...

    def load(self) -> Load:
        """How much is waiting now."""
        ...

    def listen(self, is_on: bool) -> None:
        """Let microphones drive the face, or not."""

    async def close(self) -> None:
        """End the performance and free its stream."""


class Connected(Protocol):
    """One connected client (or push), seen from the session."""

    def send(self, event: Mapping[str, object]) -> None:
        """Say an event over the data channel, if there is one."""

    async def close(self) -> None:
        """Hang up; calling it again does nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What a peer calls: a message came, it is connected, it is gone. None of them blocks."""

    on_message: Callable[[dict[str, object]], None]
    on_connected: Callable[[], None]
    on_gone: Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """An SDP offer and how it is to be answered."""

    sdp: str
    codec: Codec
    ice_servers: Sequence[IceServer]
    wants: Wants = "sendrecv"


class BadOffer(ValueError):
    """An SDP that cannot be answered: one line saying why."""


class PushFailed(Exception):
    """A WHIP server that did not take the session: one line saying why."""


class Studio(Protocol):
    """Where performers and peers come from."""

    def perform(self, stream: LiveStream, on_event: Callable[[Event], None]) -> Performing:
        """A performer of the stream, at work at once."""
        ...

    async def answer(
        self, performing: Performing, offer: Offer, hooks: Hooks
    ) -> tuple[Connected, str]:
        """A peer and its SDP answer.

        Raises:
            BadOffer: the offer cannot be answered.
        """
        ...

    async def push(
        self, performing: Performing, url: str, bearer: str, offer: Offer, hooks: Hooks
    ) -> Connected:
        """A peer that sends to a WHIP server.

        Raises:
            PushFailed: the server did not take it.
        """
        ...
