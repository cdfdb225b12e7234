"""RenderService: the batch queue over gRPC. It checks what is sent and hands it to a `JobQueue`.

Covered: sizes, counts, pace and checksums of what is sent; who asks goes with every question.
Not covered: whether inputs can be read and rendered, and how long jobs are kept: the queue's.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from pathlib import PurePosixPath
from typing import Any

import grpc
from viva.v1 import render_pb2
from viva.v1.render_pb2_grpc import RenderServiceServicer

from services.control_auth import caller
from services.control_errors import Context, Refusal, bad_field, serving
from services.control_flow import Writer
from services.job_queue import Job, JobQueue, JobState
from services.render_words import MAX_KEY_BYTES, render_of, request_of, states_of

MAX_PAGE, DEFAULT_PAGE = 500, 50
MAX_PIECE_BYTES = 1 << 20
PIECE_BYTES = 1 << 16
MAX_NAME_BYTES = 255
UPLOAD_PAUSE_S = 60.0
RETRY_S = 5.0

Requests = AsyncIterator[render_pb2.UploadInputRequest]


class RenderControl(RenderServiceServicer):
    """Serves one queue."""

    def __init__(
        self,
        queue: JobQueue,
        *,
        max_upload_bytes: int,
        stall_limit_s: float,
        max_transfers: int = 32,
    ) -> None:
        """Take uploads up to a size, so many files at a time, and wait so long for who stalls."""
        self._queue, self._max_upload_bytes = queue, max_upload_bytes
        self._stall_limit_s = stall_limit_s
        self._max_transfers, self._num_transfers = max_transfers, 0
        self._draining = asyncio.Event()

    def drain(self) -> None:
        """End all watching with a status: a job may go on for hours, the server does not."""
        self._draining.set()

    async def SubmitRender(  # noqa: N802 - gRPC's name
        self, request: render_pb2.SubmitRenderRequest, context: Context
    ) -> render_pb2.SubmitRenderResponse:
        """Take a job."""
        async with serving(context):
            if len(request.idempotency_key.encode()) > MAX_KEY_BYTES:
                raise bad_field("idempotency_key", f"has more than {MAX_KEY_BYTES} bytes")
            wanted = request_of(request.spec)
            job = await self._queue.submit(wanted, request.idempotency_key, caller())
            return render_pb2.SubmitRenderResponse(render=render_of(job))

    async def GetRender(  # noqa: N802 - gRPC's name
        self, request: render_pb2.GetRenderRequest, context: Context
    ) -> render_pb2.GetRenderResponse:
        """Tell of a job."""
        async with serving(context):
            job = await self._queue.get(request.id, caller())
            return render_pb2.GetRenderResponse(render=render_of(job))

    async def ListRenders(  # noqa: N802 - gRPC's name
        self, request: render_pb2.ListRendersRequest, context: Context
    ) -> render_pb2.ListRendersResponse:
        """A page of jobs."""
        async with serving(context):
            if request.page_size > MAX_PAGE:
                raise bad_field("page_size", f"{request.page_size} is more than {MAX_PAGE}")
            page = await self._queue.list(
                request.page_token,
                request.page_size or DEFAULT_PAGE,
                states_of(list(request.states)),
                caller(),
            )
            return render_pb2.ListRendersResponse(
                renders=[render_of(job) for job in page.jobs], next_page_token=page.next_page_token
            )

    async def WatchRender(  # type: ignore[override]  # noqa: N802 - gRPC's name; it awaits writers
        self, request: render_pb2.WatchRenderRequest, context: Context
    ) -> None:
        """Tell of a job at each change."""
        writer = Writer(context, self._stall_limit_s)
        async with serving(context), _closing(self._queue.watch(request.id, caller())) as jobs:
            while (job := await self._next(jobs)) is not None:
                await writer.write(render_pb2.WatchRenderResponse(render=render_of(job)))

    async def _next(self, jobs: AsyncIterator[Job]) -> Job | None:
        """A job at its next change; None when it has ended.

        Raises:
            Refusal: UNAVAILABLE, the server ends.
        """
        change = asyncio.create_task(_change(jobs))
        drain = asyncio.create_task(self._draining.wait())
        try:
            await asyncio.wait({change, drain}, return_when=asyncio.FIRST_COMPLETED)
            if drain.done():
                raise Refusal(
                    grpc.StatusCode.UNAVAILABLE,
                    "DRAINING",
                    "the server ends, the job does not: watch it again soon",
                    retry_after_s=RETRY_S,
                )
            return await change
        finally:
            change.cancel()
            drain.cancel()
            await asyncio.gather(change, drain, return_exceptions=True)

    async def CancelRender(  # noqa: N802 - gRPC's name
        self, request: render_pb2.CancelRenderRequest, context: Context
    ) -> render_pb2.CancelRenderResponse:
        """Stop a job."""
        async with serving(context):
            job = await self._queue.cancel(request.id, caller())
            return render_pb2.CancelRenderResponse(render=render_of(job))

    async def UploadInput(  # noqa: N802 - gRPC's name
        self, request_iterator: Requests, context: Context
    ) -> render_pb2.UploadInputResponse:
        """Take a file."""
        async with serving(context):
            with self._transfer():
                requests = _in_time(request_iterator, UPLOAD_PAUSE_S)
                upload = _Upload(await _start_of(requests), self._max_upload_bytes)
                word = await self._queue.save_input(upload.name, upload.pieces(requests), caller())
            return render_pb2.UploadInputResponse(
                input=word, size_bytes=upload.num_bytes, sha256=upload.sha256
            )

    async def DownloadResult(  # type: ignore[override]  # noqa: N802 - gRPC's name; it awaits writers
        self, request: render_pb2.DownloadResultRequest, context: Context
    ) -> None:
        """Give a file."""
        async with serving(context):
            if request.kind not in render_pb2.ResultKind.values():
                raise bad_field("kind", f"{request.kind} is none of the kinds")
            is_preview = request.kind == render_pb2.RESULT_KIND_PREVIEW
            job = await self._queue.get(request.id, caller())
            start = render_pb2.DownloadStart()
            if job.state is JobState.SUCCEEDED and not is_preview:
                start.size_bytes, start.sha256 = job.result_bytes, job.result_sha256
                if request.offset_bytes > job.result_bytes:
                    raise _past_the_end(job.result_bytes)
            writer = Writer(context, self._stall_limit_s)
            pieces = self._queue.open_result(
                request.id, request.offset_bytes, preview=is_preview, owner=caller()
            )
            with self._transfer():
                await _send_file(writer, start, pieces)

    @contextmanager
    def _transfer(self) -> Iterator[None]:
        """A file on its way in or out.

        Raises:
            Refusal: RESOURCE_EXHAUSTED, there are too many.
        """
        if self._num_transfers >= self._max_transfers:
            raise Refusal(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "TRANSFERS",
                f"{self._max_transfers} files are on their way: ask again soon",
                retry_after_s=RETRY_S,
            )
        self._num_transfers += 1
        try:
            yield
        finally:
            self._num_transfers -= 1


class _Upload:
    """A file that comes in pieces: counted, hashed, held to what was announced."""

    def __init__(self, start: render_pb2.UploadStart, max_bytes: int) -> None:
        """Check what was announced.

        Raises:
            Refusal: INVALID_ARGUMENT.
        """
        name = start.file_name
        if not name or len(name.encode()) > MAX_NAME_BYTES or PurePosixPath(name).name != name:
            raise bad_field("start.file_name", "must be a file's name without folders")
        if "\\" in name or not name.isprintable() or name in {".", ".."}:
            raise bad_field("start.file_name", "must be a plain, printable name")
        self.name, self.num_bytes, self._max_bytes = name, 0, max_bytes
        self._announced, self._sha256 = start, hashlib.sha256()
        self._refuse_large(start.size_bytes)

    @property
    def sha256(self) -> str:
        """Of what came so far, hexadecimal."""
        return self._sha256.hexdigest()

    async def pieces(self, requests: Requests) -> AsyncIterator[bytes]:
        """The file's bytes; an upload that is not what was announced ends with a refusal."""
        async for request in requests:
            if request.WhichOneof("part") != "data":
                raise bad_field("part", "after `start` comes `data` only")
            if len(request.data) > MAX_PIECE_BYTES:
                raise bad_field("data", f"has more than {MAX_PIECE_BYTES} bytes")
            self.num_bytes += len(request.data)
            self._refuse_large(self.num_bytes)
            self._sha256.update(request.data)
            yield request.data
        if self._announced.size_bytes not in (0, self.num_bytes):
            raise _broken(
                f"{self._announced.size_bytes} bytes were announced, {self.num_bytes} came"
            )
        if self._announced.sha256 and self._announced.sha256.lower() != self.sha256:
            raise _broken("the checksum differs from what was announced: send it again")

    def _refuse_large(self, num_bytes: int) -> None:
        """Refuse a size."""
        if num_bytes > self._max_bytes:
            raise bad_field("start.size_bytes", f"more than {self._max_bytes} bytes are not taken")


async def _start_of(requests: Requests) -> render_pb2.UploadStart:
    """What an upload begins with."""
    async for request in requests:
        if request.WhichOneof("part") == "start":
            return request.start
        break
    raise bad_field("start", "must be the first message")


async def _in_time(requests: Requests, limit_s: float) -> Requests:
    """The messages of an upload, which has to go on.

    Raises:
        Refusal: DEADLINE_EXCEEDED, nothing came for so long.
    """
    while True:
        try:
            async with asyncio.timeout(limit_s):
                request = await anext(requests, None)
        except TimeoutError:
            message = f"nothing came for {limit_s:g} s: send it again"
            code = grpc.StatusCode.DEADLINE_EXCEEDED
            raise Refusal(code, "UPLOAD_STALLED", message) from None
        if request is None:
            return
        yield request


async def _change(jobs: AsyncIterator[Job]) -> Job | None:
    """The next of what a queue tells of a job, if there is more."""
    return await anext(jobs, None)


async def _send_file(
    writer: Writer, start: render_pb2.DownloadStart, pieces: AsyncIterator[bytes]
) -> None:
    """Send what is known of a file, then the file."""
    async with _closing(pieces) as stream:
        is_first = True
        async for piece in stream:
            if is_first:  # only now it is sure that there is something to give
                await writer.write(render_pb2.DownloadResultResponse(start=start))
                is_first = False
            await _write_pieces(writer, piece)
        if is_first:
            await writer.write(render_pb2.DownloadResultResponse(start=start))


async def _write_pieces(writer: Writer, data: bytes) -> None:
    """Send bytes in messages of a moderate size."""
    for begin in range(0, len(data), PIECE_BYTES):
        piece = data[begin : begin + PIECE_BYTES]
        await writer.write(render_pb2.DownloadResultResponse(data=piece))


def _closing(stream: AsyncIterator[Any]) -> "aclosing[Any]":
    """Close a queue's stream when its reader leaves early: queues give async generators."""
    generator: Any = stream
    return aclosing(generator)


def _broken(message: str) -> Refusal:
    """Refuse an upload that lost something on its way."""
    return Refusal(grpc.StatusCode.DATA_LOSS, "UPLOAD_BROKEN", message)


def _past_the_end(size_bytes: int) -> Refusal:
    """Refuse an offset."""
    return Refusal(
        grpc.StatusCode.OUT_OF_RANGE,
        "PAST_THE_END",
        f"offset_bytes: the file has {size_bytes} bytes",
        field="offset_bytes",
    )
