"""Renders over gRPC: what is checked, what is passed on, and what comes back."""

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import grpc
import pytest
from viva.v1 import render_pb2
from viva.v1.render_pb2_grpc import RenderServiceStub

from services import control_render
from services.client import AsyncClient, Connection, DownloadBroken, is_over
from services.client_words import reason_of
from services.control import ControlConfig
from services.control_errors import of_job
from services.job_queue import JobRefused, JobState
from tests.support.control_house import hosted, said_last
from tests.support.fake_queue import FakeQueue

pytestmark = pytest.mark.unit

SPEC = render_pb2.RenderSpec(
    portrait="ada",
    audio="file:///speech.flac",
    mode=render_pb2.RENDER_MODE_RENDER,
    framing=render_pb2.RENDER_FRAMING_PORTRAIT,
    loudness_lufs=-16.0,
    labels={"project": "one"},
    seed=7,
)
SPEC.size.width_px, SPEC.size.height_px = 512, 640
SPEC.frame_rate.numerator, SPEC.frame_rate.denominator = 30_000, 1001
Test = Callable[[Any, FakeQueue, AsyncClient], Coroutine[Any, Any, None]]


def with_server(test: Test, *, config: ControlConfig | None = None, max_jobs: int = 100) -> None:
    """Run a test with a stub, a queue and a client."""

    async def run() -> None:
        queue = FakeQueue(max_jobs)
        async with (
            hosted(queue=queue, config=config) as house,
            AsyncClient(Connection(address=house.address)) as client,
        ):
            await test(RenderServiceStub(house.channel), queue, client)

    asyncio.run(run())


def test_a_film_is_uploaded_for_submitted_watched_and_taken_home(tmp_path: Path) -> None:
    film = bytes(range(256)) * 3000

    async def test(_stub: Any, queue: FakeQueue, client: AsyncClient) -> None:
        source = tmp_path / "speech.flac"
        source.write_bytes(b"sound" * 200_000)
        spec = render_pb2.RenderSpec(portrait="ada", audio=await client.upload(source))
        assert queue.uploads[spec.audio] == source.read_bytes()
        job = await client.submit(spec, key="once")
        assert (await client.submit(spec, key="once")).id == job.id
        seen = []
        async for render in client.watch(job.id):
            seen.append(render.state)
            if len(seen) == 1:
                queue.set(job.id, state=JobState.RUNNING, num_frames_done=5, eta_s=2.0)
            elif len(seen) == 2:
                assert (render.progress.num_frames_done, render.progress.eta_ms) == (5, 2000)
                queue.finish(job.id, film)
        assert seen == [1, 2, 3]
        done = await client.get(job.id)
        assert is_over(done)
        assert done.result.sha256 == hashlib.sha256(film).hexdigest()
        out = tmp_path / "film.mp4"
        out.write_bytes(b"another film")
        part = tmp_path / "film.mp4.part"
        part.write_bytes(film[:100_000])  # a download that broke off
        await client.download(job.id, out)
        assert out.read_bytes() == film
        assert not part.exists()

    with_server(test)


def names_in(folder: Path) -> list[str]:
    """What lies in a folder."""
    return [path.name for path in folder.iterdir()]


def test_a_download_has_its_name_only_when_it_is_what_was_announced(tmp_path: Path) -> None:
    async def test(_stub: Any, queue: FakeQueue, client: AsyncClient) -> None:
        job = await client.submit(render_pb2.RenderSpec(portrait="ada", audio="a.flac"))
        out, part = tmp_path / "film.mp4", tmp_path / "film.mp4.part"
        with pytest.raises(grpc.aio.AioRpcError):  # there is no film yet
            await client.download(job.id, out)
        assert not names_in(tmp_path)
        queue.finish(job.id, b"a film")
        part.write_bytes(b"of")  # of another one
        with pytest.raises(DownloadBroken, match="again"):
            await client.download(job.id, out)
        part.write_bytes(b"of another one that was longer")
        with pytest.raises(grpc.aio.AioRpcError):
            await client.download(job.id, out)
        assert not names_in(tmp_path)
        await client.download(job.id, out)
        assert out.read_bytes() == b"a film"

    with_server(test)


def test_watching_a_long_job_ends_when_the_server_drains() -> None:
    async def run() -> None:
        queue = FakeQueue()
        async with hosted(queue=queue) as house:
            stub = RenderServiceStub(house.channel)
            job = (await stub.SubmitRender(changed())).render
            call: Any = stub.WatchRender(render_pb2.WatchRenderRequest(id=job.id), timeout=20)
            await call.read()
            async with asyncio.timeout(10):
                await house.control.drain(15.0)
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await call.read()
            assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
            assert reason_of(failed.value) == "DRAINING"

    asyncio.run(run())


def test_an_upload_that_the_queue_refuses_names_the_uploads_field() -> None:
    assert of_job(JobRefused("data", "too large")).field == "data"
    assert of_job(JobRefused("audio", "no sound")).field == "spec.audio"


def test_a_spec_comes_back_as_it_was_sent() -> None:
    async def test(_stub: Any, queue: FakeQueue, client: AsyncClient) -> None:
        job = await client.submit(SPEC)
        assert job.spec == SPEC
        request = queue.jobs[job.id].request
        assert (request.mode, request.frame, request.fps) == (
            "render",
            "portrait",
            Fraction(30_000, 1001),
        )

    with_server(test)


def test_lists_come_in_pages_newest_first_and_by_state() -> None:
    async def test(stub: Any, queue: FakeQueue, client: AsyncClient) -> None:
        for number in range(7):
            await client.submit(render_pb2.RenderSpec(portrait="ada", audio=f"a{number}"))
        queue.set("j3", state=JobState.RUNNING)
        assert [one.id async for one in client.renders(3)] == [f"j{n}" for n in range(6, -1, -1)]
        asked = render_pb2.ListRendersRequest(states=[render_pb2.RENDER_STATE_RUNNING])
        assert [one.id for one in (await stub.ListRenders(asked)).renders] == ["j3"]
        assert (await client.cancel("j3")).state == render_pb2.RENDER_STATE_CANCELLED

    with_server(test)


def changed(**fields: Any) -> render_pb2.SubmitRenderRequest:
    """A request with a field that is wrong."""
    spec = render_pb2.RenderSpec(portrait="ada", audio="speech.flac")
    spec.MergeFrom(render_pb2.RenderSpec(**fields))
    return render_pb2.SubmitRenderRequest(spec=spec)


BAD = [
    (render_pb2.SubmitRenderRequest(), "spec.portrait"),
    (changed(audio="unreadable"), "spec.audio"),
    (changed(seed=-1), "spec.seed"),
    (changed(loudness_lufs=3.0), "spec.loudness_lufs"),
    (changed(mode=99), "spec.mode"),
    (changed(framing=99), "spec.framing"),
    (changed(label="x" * 65), "spec.label"),
    (changed(plan="x" * 5000), "spec.plan"),
    (changed(labels={"": "x"}), "spec.labels"),
    (changed(labels={str(n): "" for n in range(33)}), "spec.labels"),
    (changed(size={"width_px": 3, "height_px": 512}), "spec.size.width_px"),
    (changed(frame_rate={"numerator": 25}), "spec.frame_rate"),
    (changed(frame_rate={"numerator": 200, "denominator": 1}), "spec.frame_rate"),
]


@pytest.mark.parametrize(("request_message", "field"), BAD)
def test_bad_input_fails_at_submit_naming_the_field(
    request_message: render_pb2.SubmitRenderRequest, field: str
) -> None:
    async def test(stub: Any, queue: FakeQueue, _client: AsyncClient) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await stub.SubmitRender(request_message)
        assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert field.encode() in said_last(failed.value)["grpc-status-details-bin"]
        assert not queue.jobs

    with_server(test)


def test_the_queues_refusals_have_codes_of_their_own() -> None:
    async def test(stub: Any, _queue: FakeQueue, client: AsyncClient) -> None:
        job = await client.submit(SPEC, key="k")
        other = render_pb2.RenderSpec(portrait="kofi", audio="a")
        calls = [
            (client.get("nothing"), grpc.StatusCode.NOT_FOUND, "NO_RENDER"),
            (client.submit(other, key="k"), grpc.StatusCode.FAILED_PRECONDITION, "CONFLICT"),
            (client.submit(other), grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL"),
            (client.submit(other, key="k" * 129), grpc.StatusCode.INVALID_ARGUMENT, "BAD_FIELD"),
        ]
        for call, code, reason in calls:
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await call
            assert (failed.value.code(), reason_of(failed.value)) == (code, reason)
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            async for _ in stub.DownloadResult(render_pb2.DownloadResultRequest(id=job.id)):
                pass
        assert failed.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await stub.ListRenders(render_pb2.ListRendersRequest(page_size=501))
        assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    with_server(test, max_jobs=1)


def start(**fields: Any) -> render_pb2.UploadInputRequest:
    """How an upload begins."""
    asked = {"file_name": "a.wav", **fields}
    return render_pb2.UploadInputRequest(start=render_pb2.UploadStart(**asked))


def data(piece: bytes) -> render_pb2.UploadInputRequest:
    """Some of an upload."""
    return render_pb2.UploadInputRequest(data=piece)


BAD_UPLOADS = [
    ([], grpc.StatusCode.INVALID_ARGUMENT),
    ([data(b"x")], grpc.StatusCode.INVALID_ARGUMENT),
    ([start(), start()], grpc.StatusCode.INVALID_ARGUMENT),
    ([start(file_name="../x")], grpc.StatusCode.INVALID_ARGUMENT),
    ([start(file_name="..")], grpc.StatusCode.INVALID_ARGUMENT),
    ([start(file_name="a\0b")], grpc.StatusCode.INVALID_ARGUMENT),
    ([start(file_name="c:\\x")], grpc.StatusCode.INVALID_ARGUMENT),
    ([start(size_bytes=101)], grpc.StatusCode.INVALID_ARGUMENT),
    ([start(), data(b"x" * 60), data(b"x" * 60)], grpc.StatusCode.INVALID_ARGUMENT),
    ([start(size_bytes=5), data(b"four")], grpc.StatusCode.DATA_LOSS),
    ([start(sha256="00"), data(b"four")], grpc.StatusCode.DATA_LOSS),
]


@pytest.mark.parametrize(("messages", "code"), BAD_UPLOADS)
def test_an_upload_that_is_not_what_it_says_is_refused(
    messages: Sequence[render_pb2.UploadInputRequest], code: grpc.StatusCode
) -> None:
    async def test(stub: Any, queue: FakeQueue, _client: AsyncClient) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await stub.UploadInput(iter(messages))
        assert failed.value.code() is code
        assert not queue.uploads

    with_server(test, config=ControlConfig(max_upload_bytes=100))


def test_only_so_many_files_are_on_their_way_and_those_that_stall_are_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(control_render, "UPLOAD_PAUSE_S", 0.5)

    async def test(stub: Any, queue: FakeQueue, _client: AsyncClient) -> None:
        start = render_pb2.UploadInputRequest(start=render_pb2.UploadStart(file_name="a.wav"))
        stalled = stub.UploadInput()
        await stalled.write(start)
        await asyncio.sleep(0.1)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.UploadInput(iter([start]))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert reason_of(caught.value) == "TRANSFERS"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stalled
        assert reason_of(caught.value) == "UPLOAD_STALLED"
        piece = render_pb2.UploadInputRequest(data=b"sound")
        assert (await stub.UploadInput(iter([start, piece]))).size_bytes == 5
        assert list(queue.uploads.values()) == [b"sound"]

    with_server(test, config=ControlConfig(max_transfers=1))
