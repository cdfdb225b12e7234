"""The client library: live sessions and renders over gRPC, in a few lines, with or without asyncio.

    async with AsyncClient(Connection(address="localhost:50051")) as client:
        async with client.converse("ada") as call:
            await call.speak(pcm)
            await call.finish()
            async for message in call: ...

Messages are those of `viva.v1.avatar_pb2` and `viva.v1.render_pb2`; errors are gRPC's, and
`reason_of(error)` gives the word for programs.
"""

import asyncio
import queue
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import grpc
from viva.v1 import avatar_pb2, render_pb2
from viva.v1.avatar_pb2_grpc import AvatarServiceStub
from viva.v1.render_pb2_grpc import RenderServiceStub

from services.client_film import DownloadBroken, FilmPart
from services.client_words import (
    Connection,
    LiveOptions,
    Pcm,
    end_message,
    interrupt_message,
    is_over,
    reason_of,
    sound_messages,
    text_message,
    upload_messages,
)

__all__ = [
    "AsyncClient",
    "Client",
    "Connection",
    "DownloadBroken",
    "LiveOptions",
    "is_over",
    "reason_of",
]

END_OF_STREAM = avatar_pb2.ConverseRequest(end_of_stream=avatar_pb2.EndOfStream())
CALL_TIMEOUT_S = 30.0


class AsyncConversation:
    """A live call under asyncio: say things, and iterate over what comes."""

    def __init__(self, call: Any) -> None:
        """Made by `AsyncClient.converse`."""
        self._call = call

    async def speak(self, pcm: Pcm, utterance: str = "") -> None:
        """Say sound (int16 mono at the session's rate); waits while the server has no room."""
        for message in sound_messages(pcm, utterance):
            await self._call.write(message)

    async def say(self, text: str, utterance: str = "") -> None:
        """Have the server's voice say words."""
        await self._call.write(text_message(text, utterance))

    async def end(self, utterance: str = "") -> None:
        """The utterance is complete."""
        await self._call.write(end_message(utterance))

    async def interrupt(self) -> None:
        """Stop what is said."""
        await self._call.write(interrupt_message())

    async def finish(self) -> None:
        """Nothing more will be said: what was is played, then the call ends."""
        await self._call.write(END_OF_STREAM)
        await self._call.done_writing()

    async def __aiter__(self) -> AsyncIterator[avatar_pb2.ConverseResponse]:
        """What the server says, to the end."""
        async for response in self._call:
            yield response


class Conversation:
    """A live call without asyncio: say things from any thread, iterate in one."""

    def __init__(self, stub: Any, first: avatar_pb2.ConverseRequest, metadata: Any) -> None:
        """Made by `Client.converse`."""
        # Bounded, so that who speaks faster than the server reads waits here.
        self._says: queue.Queue[avatar_pb2.ConverseRequest | None] = queue.Queue(64)
        self._says.put(first)
        self._call = stub.Converse(iter(self._says.get, None), metadata=metadata)

    def speak(self, pcm: Pcm, utterance: str = "") -> None:
        """Say sound (int16 mono at the session's rate); waits while the server has no room."""
        for message in sound_messages(pcm, utterance):
            self._put(message)

    def say(self, text: str, utterance: str = "") -> None:
        """Have the server's voice say words."""
        self._put(text_message(text, utterance))

    def end(self, utterance: str = "") -> None:
        """The utterance is complete."""
        self._put(end_message(utterance))

    def interrupt(self) -> None:
        """Stop what is said."""
        self._put(interrupt_message())

    def finish(self) -> None:
        """Nothing more will be said: what was is played, then the call ends."""
        self._put(END_OF_STREAM)
        self._put(None)

    def __iter__(self) -> Iterator[avatar_pb2.ConverseResponse]:
        """What the server says, to the end."""
        yield from self._call

    def close(self) -> None:
        """End the call, wherever it is."""
        self._call.cancel()
        with suppress(queue.Empty):  # the call takes from it, too
            while True:
                self._says.get_nowait()
        self._says.put(None)

    def _put(self, message: avatar_pb2.ConverseRequest | None) -> None:
        """Queue a message; one for a call that has ended goes nowhere."""
        while self._call.is_active():
            try:
                self._says.put(message, timeout=0.2)
            except queue.Full:
                continue
            return


class AsyncClient:
    """A connection to one server, under asyncio."""

    def __init__(self, connection: Connection) -> None:
        """Connect when the first call is made."""
        self._metadata = connection.metadata()
        credentials, options = connection.credentials(), connection.options()
        self.channel = (
            grpc.aio.secure_channel(connection.address, credentials, options)
            if credentials
            else grpc.aio.insecure_channel(connection.address, options)
        )
        self._avatar, self._render = (
            AvatarServiceStub(self.channel),
            RenderServiceStub(self.channel),
        )

    async def __aenter__(self) -> Self:
        """The client."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Hang up."""
        await self.channel.close(None)

    async def describe(self) -> avatar_pb2.DescribeResponse:
        """What the server can do."""
        return await self._avatar.Describe(avatar_pb2.DescribeRequest(), **self._once())

    @asynccontextmanager
    async def converse(
        self, portrait: str | Path | bytes, options: LiveOptions | None = None
    ) -> AsyncIterator[AsyncConversation]:
        """A live call, cancelled at the block's end if it has not ended."""
        begin: Any = self._avatar.Converse  # the stubs know no call that writes
        call = begin(metadata=self._metadata)
        try:
            await call.write((options or LiveOptions()).first_message(portrait))
            yield AsyncConversation(call)
        finally:
            call.cancel()

    async def submit(self, spec: render_pb2.RenderSpec, key: str = "") -> render_pb2.Render:
        """Have a film made; with a `key` it may be asked for again after a broken connection."""
        request = render_pb2.SubmitRenderRequest(spec=spec, idempotency_key=key)
        return (await self._render.SubmitRender(request, **self._once())).render

    async def get(self, render: str) -> render_pb2.Render:
        """What is known of a job."""
        request = render_pb2.GetRenderRequest(id=render)
        return (await self._render.GetRender(request, **self._once())).render

    async def cancel(self, render: str) -> render_pb2.Render:
        """Stop a job."""
        request = render_pb2.CancelRenderRequest(id=render)
        return (await self._render.CancelRender(request, **self._once())).render

    async def renders(self, page_size: int = 50) -> AsyncIterator[render_pb2.Render]:
        """All jobs, newest first."""
        request = render_pb2.ListRendersRequest(page_size=page_size)
        while True:
            page = await self._render.ListRenders(request, **self._once())
            for render in page.renders:
                yield render
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def watch(self, render: str) -> AsyncIterator[render_pb2.Render]:
        """A job now and at each change, until it has ended."""
        request = render_pb2.WatchRenderRequest(id=render)
        async for response in self._render.WatchRender(request, metadata=self._metadata):
            yield response.render

    async def upload(self, path: Path) -> str:
        """Bring a file to the server; the word that a RenderSpec names it by."""
        messages: Any = _off_the_loop(upload_messages(path))  # the stubs know iterators only
        call = self._render.UploadInput(messages, metadata=self._metadata)
        return (await call).input

    async def download(self, render: str, path: Path) -> None:
        """Take a film home; one that broke off goes on from `NAME.part`, where it was.

        Raises:
            DownloadBroken: it is not what the server has; ask again.
        """
        with FilmPart(path) as film:
            request = film.request(render)
            async for response in self._render.DownloadResult(request, metadata=self._metadata):
                film.take(response)
            await asyncio.to_thread(film.finish)

    def _once(self) -> dict[str, Any]:
        """What goes with each short call."""
        return {"metadata": self._metadata, "timeout": CALL_TIMEOUT_S}


class Client:
    """A connection to one server, without asyncio."""

    def __init__(self, connection: Connection) -> None:
        """Connect when the first call is made."""
        self._metadata = connection.metadata()
        credentials, options = connection.credentials(), connection.options()
        self.channel = (
            grpc.secure_channel(connection.address, credentials, options)
            if credentials
            else grpc.insecure_channel(connection.address, options)
        )
        self._avatar, self._render = (
            AvatarServiceStub(self.channel),
            RenderServiceStub(self.channel),
        )

    def __enter__(self) -> Self:
        """The client."""
        return self

    def __exit__(self, *_: object) -> None:
        """Hang up."""
        self.channel.close()

    def describe(self) -> avatar_pb2.DescribeResponse:
        """What the server can do."""
        return self._avatar.Describe(avatar_pb2.DescribeRequest(), **self._once())

    @contextmanager
    def converse(
        self, portrait: str | Path | bytes, options: LiveOptions | None = None
    ) -> Iterator[Conversation]:
        """A live call, cancelled at the block's end if it has not ended."""
        first = (options or LiveOptions()).first_message(portrait)
        call = Conversation(self._avatar, first, self._metadata)
        try:
            yield call
        finally:
            call.close()

    def submit(self, spec: render_pb2.RenderSpec, key: str = "") -> render_pb2.Render:
        """Have a film made; with a `key` it may be asked for again after a broken connection."""
        request = render_pb2.SubmitRenderRequest(spec=spec, idempotency_key=key)
        return self._render.SubmitRender(request, **self._once()).render

    def get(self, render: str) -> render_pb2.Render:
        """What is known of a job."""
        return self._render.GetRender(render_pb2.GetRenderRequest(id=render), **self._once()).render

    def cancel(self, render: str) -> render_pb2.Render:
        """Stop a job."""
        request = render_pb2.CancelRenderRequest(id=render)
        return self._render.CancelRender(request, **self._once()).render

    def renders(self, page_size: int = 50) -> Iterator[render_pb2.Render]:
        """All jobs, newest first."""
        request = render_pb2.ListRendersRequest(page_size=page_size)
        while True:
            page = self._render.ListRenders(request, **self._once())
            yield from page.renders
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def watch(self, render: str) -> Iterator[render_pb2.Render]:
        """A job now and at each change, until it has ended."""
        request = render_pb2.WatchRenderRequest(id=render)
        for response in self._render.WatchRender(request, metadata=self._metadata):
            yield response.render

    def upload(self, path: Path) -> str:
        """Bring a file to the server; the word that a RenderSpec names it by."""
        return self._render.UploadInput(upload_messages(path), metadata=self._metadata).input

    def download(self, render: str, path: Path) -> None:
        """Take a film home; one that broke off goes on from `NAME.part`, where it was.

        Raises:
            DownloadBroken: it is not what the server has; ask again.
        """
        with FilmPart(path) as film:
            request = film.request(render)
            for response in self._render.DownloadResult(request, metadata=self._metadata):
                film.take(response)
            film.finish()

    def _once(self) -> dict[str, Any]:
        """What goes with each short call."""
        return {"metadata": self._metadata, "timeout": CALL_TIMEOUT_S}


async def _off_the_loop(
    messages: Iterator[render_pb2.UploadInputRequest],
) -> AsyncIterator[render_pb2.UploadInputRequest]:
    """The same messages, each made in a thread: files are hashed and read there."""
    while (message := await asyncio.to_thread(next, messages, None)) is not None:
        yield message
