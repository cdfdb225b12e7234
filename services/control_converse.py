"""AvatarService: admits live calls, gives each a face and a performer, and frees both at its end.

Covered: the grammar of a call, what its first message may ask for, places shared with the HTTP
side, and an end for every call. Not covered: what lies in a portrait file (the model reads it).
"""

import asyncio
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Protocol

import grpc
from viva import __version__
from viva.v1 import avatar_pb2, common_pb2
from viva.v1.avatar_pb2_grpc import AvatarServiceServicer
from viva.v1.messages import OpenSession

from services.beat import Event
from services.control_errors import Context, Refusal, serving
from services.control_flow import Writer
from services.converse_call import CallTerms, ConverseCall
from services.converse_hearing import Requests, first_config
from services.converse_order import MAX_PORTRAIT_BYTES, ConverseOrder, order_of
from services.live_model import LiveModel, LiveStream
from services.performer import Performer
from services.tts import TextToSpeech

_PICTURES = {
    "H264": common_pb2.PICTURE_FORMAT_H264,
    "VP8": common_pb2.PICTURE_FORMAT_VP8,
    "RGB": common_pb2.PICTURE_FORMAT_RAW_RGB,
    "NONE": common_pb2.PICTURE_FORMAT_NONE,
}
_SOUNDS = {
    "PCM": common_pb2.SOUND_FORMAT_PCM_S16LE,
    "OPUS": common_pb2.SOUND_FORMAT_OPUS,
    "NONE": common_pb2.SOUND_FORMAT_NONE,
}
MAX_EVENTS = 256
_RETRY_AFTER_S = 5.0


class Admission(Protocol):
    """Places for sessions: `services.places.Places`."""

    capacity: int

    @property
    def num_taken(self) -> int:
        """How many places are taken."""
        ...

    def take(self, session: str) -> bool:
        """A place, if one is free."""
        ...

    def release(self, session: str) -> None:
        """Give up a place."""


class Titled(Protocol):
    """A portrait of the cast."""

    @property
    def name(self) -> str:
        """What it is asked for by."""
        ...

    @property
    def title(self) -> str:
        """A caption."""
        ...


class Gallery(Protocol):
    """Portraits by name: `services.portraits.Portraits`."""

    @property
    def cast(self) -> Mapping[str, Titled]:
        """What comes with the model, the default first."""
        ...

    async def find(self, name: str) -> bytes:
        """The picture file that a name stands for.

        Raises:
            Problem: 404 `no_portrait`.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveHouse:
    """What live calls run on; `released` hears of every place that is free again."""

    model: LiveModel
    places: Admission
    gallery: Gallery
    threads: Executor
    terms: CallTerms = field(default_factory=CallTerms)
    voice: TextToSpeech | None = None
    released: Callable[[], None] = lambda: None


class AvatarControl(AvatarServiceServicer):
    """Serves one house."""

    def __init__(self, house: LiveHouse, *, max_message_bytes: int, has_render: bool) -> None:
        """Take calls until `drain`."""
        self._house, self._max_message_bytes = house, max_message_bytes
        self._has_render = has_render
        self._is_draining = False
        self.num_calls = 0

    def drain(self) -> None:
        """Take no new calls, and let those that are there end with a status."""
        self._is_draining = True

    async def Describe(  # noqa: N802 - gRPC's name
        self, request: avatar_pb2.DescribeRequest, context: Context
    ) -> avatar_pb2.DescribeResponse:
        """What this server can do, and how busy it is."""
        del request
        async with serving(context):
            ready, places = self._house.model.ready, self._house.places
            return avatar_pb2.DescribeResponse(
                version=__version__,
                model=ready.model,
                plan=ready.plan,
                frame_rate=_rate(Fraction(ready.fps_num, ready.fps_den)),
                size=_size(ready.width, ready.height),
                portraits=_portraits(list(self._house.gallery.cast.values())),
                capacity=places.capacity,
                num_sessions=places.num_taken,
                max_portrait_bytes=MAX_PORTRAIT_BYTES,
                max_message_bytes=self._max_message_bytes,
                has_voice=self._house.voice is not None,
                has_render=self._has_render,
            )

    async def Converse(  # type: ignore[override]  # noqa: N802 - gRPC's name; it awaits writers
        self, request_iterator: Requests, context: Context
    ) -> None:
        """One session."""
        async with serving(context):
            config = await first_config(request_iterator)
            if config is None:
                return
            order = order_of(config)
            async with self._admitted() as session:
                stream = await self._open(session, order)
                await self._converse(session, stream, order, request_iterator, context)

    async def _converse(
        self,
        session: str,
        stream: LiveStream,
        order: ConverseOrder,
        requests: Requests,
        context: Context,
    ) -> None:
        """Perform until the call has its end, whatever that is."""
        house = self._house
        happenings: deque[Event] = deque(maxlen=MAX_EVENTS)
        performer = Performer(
            stream,
            chunk_frames=house.model.ready.chunk_frames,
            max_ahead_s=house.terms.max_queued_s,
            on_event=happenings.append,
        )
        performer.start()
        try:
            writer = Writer(context, house.terms.stall_limit_s)
            started = self._started(session, stream, order)
            await writer.write(avatar_pb2.ConverseResponse(session_started=started))
            call = ConverseCall(
                performer,
                happenings,
                order,
                house.terms,
                writer=writer,
                threads=house.threads,
                voice=house.voice,
                is_draining=lambda: self._is_draining,
            )
            await call.run(requests)
        finally:
            await asyncio.shield(performer.close())

    async def _open(self, session: str, order: ConverseOrder) -> LiveStream:
        """A stream with the portrait that was asked for."""
        gallery = self._house.gallery
        name = order.portrait_name or next(iter(gallery.cast), "")
        return await self._house.model.open(
            OpenSession(
                session=session,
                portrait=order.portrait_file or await gallery.find(name),
                seed=order.seed,
                sample_rate=order.sample_rate,
                width=order.width,
                height=order.height,
                plan=order.plan,
            )
        )

    @asynccontextmanager
    async def _admitted(self) -> AsyncIterator[str]:
        """A place for as long as a call lasts, under the session's name."""
        session, places = f"g_{secrets.token_urlsafe(12)}", self._house.places
        if self._is_draining:
            raise Refusal(
                grpc.StatusCode.UNAVAILABLE,
                "DRAINING",
                "the server ends",
                retry_after_s=_RETRY_AFTER_S,
            )
        if not places.take(session):
            raise Refusal(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "CAPACITY",
                f"all {places.capacity} places are taken",
                retry_after_s=_RETRY_AFTER_S,
            )
        self.num_calls += 1
        try:
            yield session
        finally:
            self.num_calls -= 1
            places.release(session)
            self._house.released()

    def _started(
        self, session: str, stream: LiveStream, order: ConverseOrder
    ) -> avatar_pb2.SessionStarted:
        """The first word."""
        ready = self._house.model.ready
        return avatar_pb2.SessionStarted(
            session=session,
            frame_rate=_rate(stream.fps),
            size=_size(stream.width, stream.height),
            sample_rate_hz=stream.sample_rate,
            picture_format=_PICTURES[order.picture],
            sound_format=_SOUNDS[order.sound],
            started_at_unix_ms=int(time.time() * 1000),
            stall_limit_ms=round(self._house.terms.stall_limit_s * 1000),
            has_voice=self._house.voice is not None,
            model=ready.model,
            plan=order.plan or ready.plan,
        )


def _rate(fps: Fraction) -> common_pb2.FrameRate:
    """A frame rate as a message."""
    return common_pb2.FrameRate(numerator=fps.numerator, denominator=fps.denominator)


def _size(width: int, height: int) -> common_pb2.PictureSize:
    """A size as a message."""
    return common_pb2.PictureSize(width_px=width, height_px=height)


def _portraits(cast: Sequence[Titled]) -> list[avatar_pb2.Portrait]:
    """The cast as messages."""
    return [avatar_pb2.Portrait(name=one.name, title=one.title) for one in cast]
