"""A LiveKit server without one: rooms that hand streams, calls and tracks to each other.

It has what livekit-agents' own avatar classes use of `rtc.Room`; the wire contract (topics, method
names, attributes) is theirs. Tokens are checked as a server does it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from livekit import api, rtc

KEY, SECRET = "devkey", "a-secret-of-the-tests-0123456789abcdef"


class Hall:
    """One room of one server, and everybody in it."""

    def __init__(self, name: str = "hall") -> None:
        self.name = name
        self.rooms: dict[str, FakeRoom] = {}
        self.calls: list[tuple[str, str, str]] = []  # who, method, payload
        self.subscribed = asyncio.Event()
        self.subscribed.set()

    def room(self) -> "FakeRoom":
        return FakeRoom(self)


class Reader:
    """The receiving end of a byte stream."""

    def __init__(self, attributes: dict[str, str]) -> None:
        self.info = SimpleNamespace(attributes=attributes, stream_id="stream")
        self.queue: asyncio.Queue[bytes | None] = asyncio.Queue()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        data = await self.queue.get()
        if data is None:
            raise StopAsyncIteration
        return data


class Writer:
    """The sending end."""

    def __init__(self, readers: list[Reader]) -> None:
        self._readers = readers

    async def write(self, data: bytes) -> None:
        for reader in self._readers:
            reader.queue.put_nowait(bytes(data))

    async def aclose(self) -> None:
        for reader in self._readers:
            reader.queue.put_nowait(None)


@dataclass
class FakePublication:
    """A track that somebody published."""

    track: Any
    kind: int
    sid: str
    subscribed: asyncio.Event

    async def wait_for_subscription(self) -> None:
        await self.subscribed.wait()


@dataclass
class FakeParticipant:
    """Somebody in a room; the same object is local to one and remote to others."""

    room: "FakeRoom"
    identity: str
    attributes: dict[str, str] = field(default_factory=dict)
    kind: int = rtc.ParticipantKind.PARTICIPANT_KIND_AGENT
    state: int = rtc.ParticipantState.PARTICIPANT_STATE_ACTIVE
    track_publications: dict[str, FakePublication] = field(default_factory=dict)
    _rpc_handlers: dict[str, Callable[..., Any]] = field(default_factory=dict)

    async def publish_track(self, track: Any, options: Any) -> FakePublication:
        del options
        sid = f"TR_{len(self.track_publications)}"
        publication = FakePublication(track, track.kind, sid, self.room.hall.subscribed)
        self.track_publications[publication.sid] = publication
        for other in self.room.others():
            other.emit("track_published", publication, self)
        return publication

    async def stream_bytes(
        self, name: str, *, topic: str, destination_identities: list[str], attributes: Any
    ) -> Writer:
        del name
        readers = []
        for identity in destination_identities:
            reader = Reader(dict(attributes))
            self.room.hall.rooms[identity].streams[topic](reader, self.identity)
            readers.append(reader)
        return Writer(readers)

    def register_rpc_method(self, name: str, handler: Callable[..., Any]) -> None:
        self._rpc_handlers[name] = handler

    async def perform_rpc(self, *, destination_identity: str, method: str, payload: str) -> str:
        await asyncio.sleep(0.005)
        self.room.hall.calls.append((self.identity, method, payload))
        other = self.room.hall.rooms[destination_identity].local_participant
        if method not in other._rpc_handlers:
            raise rtc.RpcError(rtc.RpcError.ErrorCode.UNSUPPORTED_METHOD, method)
        data = rtc.RpcInvocationData("1", self.identity, payload, 5.0)
        return str(other._rpc_handlers[method](data))


class FakeRoom(rtc.EventEmitter[str]):
    """What an `rtc.Room` is to avatar classes."""

    def __init__(self, hall: Hall) -> None:
        super().__init__()
        self.hall, self.name = hall, hall.name
        self.streams: dict[str, Callable[..., None]] = {}
        self.local_participant = FakeParticipant(self, "")
        self.grants: Any = None

    @property
    def remote_participants(self) -> dict[str, FakeParticipant]:
        return {one.identity: one for one in map(_who, self.others())}

    def isconnected(self) -> bool:
        return self.hall.rooms.get(self.local_participant.identity) is self

    def others(self) -> list["FakeRoom"]:
        return [room for room in self.hall.rooms.values() if room is not self]

    async def connect(self, url: str, token: str) -> None:
        del url
        try:
            claims = api.TokenVerifier(KEY, SECRET).verify(token)
        except Exception as error:
            raise rtc.ConnectError(str(error)) from error
        self.grants = claims.video
        self.join(claims.identity, dict(claims.attributes or {}))

    def join(self, identity: str, attributes: dict[str, str] | None = None) -> "FakeRoom":
        self.local_participant.identity = identity
        self.local_participant.attributes = attributes or {}
        self.hall.rooms[identity] = self
        for other in self.others():
            other.emit("participant_connected", self.local_participant)
            other.emit("participant_active", self.local_participant)
        return self

    async def disconnect(self) -> None:
        if self.isconnected():
            del self.hall.rooms[self.local_participant.identity]
            for other in self.others():
                other.emit("participant_disconnected", self.local_participant)
            self.emit("disconnected", "client")

    def register_byte_stream_handler(self, topic: str, handler: Callable[..., None]) -> None:
        self.streams[topic] = handler


def _who(room: FakeRoom) -> FakeParticipant:
    return room.local_participant
