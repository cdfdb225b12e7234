"""A live face for programs that show it elsewhere: speech in, pictures paired with their sound out.

    async with FaceCall(FaceOrder(address="localhost:50051", portrait="ada")) as face:
        await face.speak("hello", pcm)
        await face.end("hello")
        async for thing in face: ...

A pair is one picture and exactly the samples that belong under it. What was interrupted does not
come out any more from the moment on in which `interrupt` returns, wherever it was. Needs `grpcio`
and nothing else; the contract is that of avatar.proto. One event loop, one session.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Self

import grpc

from viva.v1 import avatar_pb2, common_pb2
from viva.v1.avatar_pb2_grpc import AvatarServiceStub
from viva.v1.face_words import EVENT_KINDS, FaceEvent, FaceInfo, Pair, event_of, info_of, pair_of

MAX_MESSAGE_BYTES = 64 << 20
PIECE_BYTES = 1 << 18
START_S = 30.0

__all__ = ["FaceCall", "FaceEvent", "FaceInfo", "FaceLost", "FaceOrder", "Pair", "Pairing"]


class FaceLost(ConnectionError):
    """A face cannot be had or is gone; the message says why in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceOrder:
    """Where the server is and who shall talk; zeros are the server's own choice.

    Servers end sessions in which nothing is said for long: every `keep_alive_s` they hear that this
    one is wanted (0: never).

    `key` is an API key or a session token. `ca` is PEM; with it, or `use_tls`, the way is
    encrypted. `portrait` is the name of one the server has, or a picture file's bytes.
    """

    address: str
    key: str = ""
    use_tls: bool = False
    ca: bytes | None = None
    portrait: str | bytes = ""
    sample_rate: int = 16_000
    width: int = 0
    height: int = 0
    seed: int = 0
    plan: str = ""
    keep_alive_s: float = 60.0

    def first_message(self) -> avatar_pb2.ConverseRequest:
        """The config: raw pictures and PCM."""
        config = avatar_pb2.SessionConfig(
            sample_rate_hz=self.sample_rate,
            picture_format=common_pb2.PICTURE_FORMAT_RAW_RGB,
            sound_format=common_pb2.SOUND_FORMAT_PCM_S16LE,
            seed=self.seed,
            plan=self.plan,
        )
        if self.width or self.height:
            config.size.width_px, config.size.height_px = self.width, self.height
        if isinstance(self.portrait, bytes):
            config.portrait_file = self.portrait
        else:
            config.portrait_name = self.portrait
        return avatar_pb2.ConverseRequest(config=config)

    def channel(self) -> grpc.aio.Channel:
        """A way to the server."""
        options = (
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.keepalive_time_ms", 30_000),
        )
        if not (self.use_tls or self.ca):
            return grpc.aio.insecure_channel(self.address, options)
        return grpc.aio.secure_channel(self.address, grpc.ssl_channel_credentials(self.ca), options)


@dataclass(slots=True)
class _Said:
    """An utterance: bytes that were said and that came back."""

    num_said: int = 0
    num_heard: int = 0
    is_ended: bool = False


class Pairing:
    """Joins a call's media: sound comes first, its picture behind it, if at all."""

    def __init__(self, fps: Fraction, sample_rate: int) -> None:
        """Begin with nothing."""
        self._fps, self._rate = fps, sample_rate
        self._sound: avatar_pb2.Media | None = None

    def push(self, media: avatar_pb2.Media) -> Iterator[Pair]:
        """What is complete now."""
        if media.HasField("pcm_sound"):
            yield from self.flush()
            self._sound = media
        elif media.HasField("raw_picture") and self._is_under(media):
            sound, self._sound = self._sound, None
            assert sound is not None  # noqa: S101 - `_is_under` says so
            yield pair_of(sound, media.raw_picture)

    def flush(self) -> Iterator[Pair]:
        """Sound whose picture did not come."""
        if self._sound is not None:
            sound, self._sound = self._sound, None
            yield pair_of(sound, None)

    def _is_under(self, picture: avatar_pb2.Media) -> bool:
        """Whether the sound that waits is this picture's."""
        if self._sound is None:
            return False
        begin = Fraction(self._sound.pts, self._rate)
        return abs(begin - picture.pts / self._fps) < 1 / (2 * self._fps)


class FaceCall:
    """A session with a face."""

    info: FaceInfo

    def __init__(self, order: FaceOrder) -> None:
        """Nothing happens before `start`."""
        self.order = order
        self._channel: grpc.aio.Channel | None = None
        self._call: Any = None
        self._writing = asyncio.Lock()
        self._writes: set[asyncio.Task[None]] = set()
        self._said: dict[str, _Said] = {}
        self._dropped: set[str] = set()
        # The server tells the end of an utterance before its last sound; here it comes behind.
        self._ending: FaceEvent | None = None
        self._kept_at_s = 0.0
        self._names = itertools.count(1)

    async def __aenter__(self) -> Self:
        """Started."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Closed."""
        await self.close()

    async def start(self) -> FaceInfo:
        """Open the session and wait until it is there.

        Raises:
            FaceLost: the server is not there, is full, or refuses.
        """
        self._channel = self.order.channel()
        begin: Any = AvatarServiceStub(self._channel).Converse  # the stubs know no call that writes
        bearer = (("authorization", f"Bearer {self.order.key}"),) if self.order.key else ()
        self._call = begin(metadata=bearer)
        try:
            async with asyncio.timeout(START_S):
                await self._call.write(self.order.first_message())
                first = await self._call.read()
            if not isinstance(first, avatar_pb2.ConverseResponse):
                raise FaceLost(f"no face: {await self._call.details()}")
        except (TimeoutError, grpc.RpcError, asyncio.InvalidStateError, FaceLost) as error:
            lost = await self._lost(error)
            await self.close()
            raise lost from error
        except BaseException:
            await self.close()
            raise
        self.info = info_of(first.session_started)
        self._kept_at_s = asyncio.get_running_loop().time()
        return self.info

    def new_name(self) -> str:
        """A name for an utterance that this session has not had."""
        return f"u_{next(self._names)}"

    async def speak(self, utterance: str, pcm: bytes) -> None:
        """Say sound: s16le mono at `info.sample_rate`; waits while the server has no room.

        Sound of an utterance that was interrupted goes nowhere.

        Raises:
            FaceLost: the session is over.
        """
        for begin in range(0, len(pcm), PIECE_BYTES):
            if utterance in self._dropped:
                return
            piece = pcm[begin : begin + PIECE_BYTES]
            self._said.setdefault(utterance, _Said()).num_said += len(piece)
            sound = avatar_pb2.SpeechSound(utterance=utterance, pcm_s16le=piece)
            await self._write(avatar_pb2.ConverseRequest(sound=sound))

    async def end(self, utterance: str) -> None:
        """The utterance is complete; one of which nothing was said has no end."""
        said = self._said.get(utterance)
        if said is None or said.is_ended or utterance in self._dropped:
            return
        said.is_ended = True
        end = avatar_pb2.EndOfUtterance(utterance=utterance)
        await self._write(avatar_pb2.ConverseRequest(end_of_utterance=end))

    async def interrupt(self) -> dict[str, int]:
        """Stop what is said and forget what waits: bytes of each utterance that came out here."""
        stopped = {name: said.num_heard for name, said in self._said.items()}
        self._dropped |= stopped.keys()
        self._said.clear()
        if stopped:
            control = avatar_pb2.Control(interrupt=avatar_pb2.Interrupt())
            await self._write(avatar_pb2.ConverseRequest(control=control))
        return stopped

    async def __aiter__(self) -> AsyncIterator[Pair | FaceEvent]:
        """What is seen, heard and happens, in real time, until the session is over.

        Raises:
            FaceLost: it failed.
        """
        pairing = Pairing(self.info.fps, self.info.sample_rate)
        try:
            while isinstance(message := await self._call.read(), avatar_pb2.ConverseResponse):
                for thing in self._things(pairing, message):
                    yield thing
                await self._keep_alive()
        except (grpc.RpcError, asyncio.CancelledError, FaceLost) as error:
            if self._channel is None:
                return
            if isinstance(error, asyncio.CancelledError):
                raise
            raise await self._lost(error) from error

    async def close(self) -> None:
        """End the session; twice is no error."""
        channel, self._channel = self._channel, None
        if self._call is not None:
            self._call.cancel()
        await asyncio.gather(*self._writes, return_exceptions=True)
        if channel is not None:
            await channel.close(None)

    async def _keep_alive(self) -> None:
        """Say that the session is wanted, when it is time again and nothing else is being said.

        A word that waits behind long speech would hold up whoever reads.
        """
        now_s = asyncio.get_running_loop().time()
        if self._writing.locked():
            return
        if self.order.keep_alive_s and now_s - self._kept_at_s >= self.order.keep_alive_s:
            self._kept_at_s = now_s
            control = avatar_pb2.Control(ping=avatar_pb2.Ping())
            await self._write(avatar_pb2.ConverseRequest(control=control))

    def _things(
        self, pairing: Pairing, message: avatar_pb2.ConverseResponse
    ) -> Iterator[Pair | FaceEvent]:
        """What a message of the server brings."""
        part = message.WhichOneof("part")
        if part == "media":
            for pair in pairing.push(message.media):
                yield from self._heard(pair)
        elif part == "event" and message.event.kind in EVENT_KINDS:
            for pair in pairing.flush():
                yield from self._heard(pair)
            event = event_of(message.event)
            if event.kind == "speak_ended":
                self._ending = event
            else:
                yield event

    def _heard(self, pair: Pair) -> Iterator[Pair | FaceEvent]:
        """The pair, unless it is of what was interrupted; it may be the end of its utterance."""
        said = self._said.get(pair.utterance)
        if said is not None:
            num_bytes = min(len(pair.pcm), said.num_said - said.num_heard)
            said.num_heard += num_bytes
            pair = replace(pair, num_speech_bytes=num_bytes)
        if pair.utterance not in self._dropped:
            yield pair
        if self._ending is not None:
            event, self._ending = self._ending, None
            self._said.pop(event.utterance, None)
            yield event

    async def _write(self, message: avatar_pb2.ConverseRequest) -> None:
        """Send a message, in the order of calls.

        Whoever waits here may be cancelled: the message goes out all the same, because gRPC ends a
        call whose write is cancelled.
        """
        task = asyncio.create_task(self._write_alone(message))
        self._writes.add(task)
        task.add_done_callback(self._written)
        await asyncio.shield(task)

    async def _write_alone(self, message: avatar_pb2.ConverseRequest) -> None:
        """Send a message, one at a time."""
        async with self._writing:
            if self._channel is None:
                return
            try:
                await self._call.write(message)
            except (grpc.RpcError, asyncio.InvalidStateError) as error:
                raise await self._lost(error) from error

    def _written(self, task: asyncio.Task[None]) -> None:
        """Forget a write; its error was for who waits, if anybody still does."""
        self._writes.discard(task)
        if not task.cancelled():
            task.exception()

    async def _lost(self, error: BaseException) -> FaceLost:
        """The reason in one line."""
        if isinstance(error, FaceLost):
            return error
        if isinstance(error, TimeoutError):
            return FaceLost(f"no face: {self.order.address} said nothing for {START_S:g} s")
        details = await self._call.details() if self._call.done() else str(error)
        return FaceLost(f"no face at {self.order.address}: {details}")
