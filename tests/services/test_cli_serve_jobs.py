"""`viva serve --grpc-port --jobs-workers`: films are ordered, made and taken home over gRPC."""

import asyncio
import hashlib
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import psutil
import pytest
import yaml
from google.rpc import error_details_pb2, status_pb2
from viva.v1 import render_pb2

from services.client import AsyncClient, Connection
from services.control_errors import DETAILS
from tests.support.control_house import said_last
from tests.support.job_inputs import frame_digest, write_sound
from tests.support.program import ROOT, running

pytestmark = pytest.mark.cli

FACE = ROOT / "configs/models/pocket/portraits/ada.png"
QUEUED, RUNNING = render_pb2.RENDER_STATE_QUEUED, render_pb2.RENDER_STATE_RUNNING
SUCCEEDED, CANCELLED = render_pb2.RENDER_STATE_SUCCEEDED, render_pb2.RENDER_STATE_CANCELLED


@contextmanager
def serving(tmp_path: Path, model: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server with a live model that only flashes, one worker, and its gRPC address."""
    socket, deployment = tmp_path / "model", tmp_path / "deployment.yaml"
    jobs = {"folders": [str(model.parent)], "segment_s": 0.5}
    deployment.write_text(yaml.safe_dump({"port": 0, "jobs": jobs}))
    with running("tests.support.flash_process", "--socket", str(socket)):
        while not socket.exists():
            time.sleep(0.05)
        options = ("--deployment", str(deployment), "--model-socket", str(socket))
        jobs_options = ("--jobs-data", str(tmp_path / "jobs"), "--jobs-workers", "1")
        with running(
            "services.cli", "serve", *options, "--grpc-port", "0", *jobs_options
        ) as server:
            assert server.stdout is not None
            word, address = server.stdout.readline().split()
            assert word == "grpc"
            assert server.stdout.readline().startswith("http://")
            yield server, address


def refused_field(error: grpc.aio.AioRpcError) -> str:
    """The field that a refusal names."""
    for detail in status_pb2.Status.FromString(said_last(error)[DETAILS]).details:
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(bad):
            return str(bad.field_violations[0].field)
    return ""


async def order_films(client: AsyncClient, tmp_path: Path, model: Path) -> None:
    """One that is made, one that is cancelled in the middle, one that cannot be."""
    sound = write_sound(tmp_path / "speech.wav", 0.9)
    spec = render_pb2.RenderSpec(
        portrait=await client.upload(FACE),
        audio=await client.upload(sound),
        model=str(model),
        framing=render_pb2.RENDER_FRAMING_FACE,
    )
    spec.size.width_px = spec.size.height_px = 64
    for changes, field in (
        (render_pb2.RenderSpec(audio=spec.portrait), "spec.audio"),
        (render_pb2.RenderSpec(portrait=spec.audio), "spec.portrait"),
        (render_pb2.RenderSpec(audio="/etc/hostname"), "spec.audio"),
        (render_pb2.RenderSpec(plan="nothing"), "spec.plan"),
    ):
        bad = render_pb2.RenderSpec()
        bad.CopyFrom(spec)
        bad.MergeFrom(changes)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.submit(bad)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert refused_field(caught.value) == field

    job = (await client.submit(spec, key="once")).id
    assert (await client.submit(spec, key="once")).id == job
    seen = [render async for render in client.watch(job)]
    assert [render.state for render in seen][-1] == SUCCEEDED, seen[-1]
    assert {render.state for render in seen} >= {RUNNING, SUCCEEDED}
    assert seen[-1].progress.num_frames_done == seen[-1].progress.num_frames_total == 23
    film = tmp_path / "film.mp4"
    await client.download(job, film)
    assert hashlib.sha256(film.read_bytes()).hexdigest() == seen[-1].result.sha256
    assert frame_digest(film)[0] == 23

    spec.audio = await client.upload(write_sound(tmp_path / "long.wav", 60.0))
    long = (await client.submit(spec)).id
    async for render in client.watch(long):
        if render.state == RUNNING:
            assert (await client.cancel(long)).state == CANCELLED
    assert (await client.get(long)).state == CANCELLED
    assert [render.id async for render in client.renders()] == [long, job]


def test_films_are_ordered_made_cancelled_and_taken_home(tmp_path: Path, tiny_model: Path) -> None:
    async def run(address: str) -> None:
        async with AsyncClient(Connection(address=address)) as client:
            await order_films(client, tmp_path, tiny_model)

    with serving(tmp_path, tiny_model) as (server, address):
        asyncio.run(run(address))
        crew = psutil.Process(server.pid).children(recursive=True)
        assert any("services.job_crew" in process.cmdline() for process in crew)
        maps = Path(f"/proc/{server.pid}/maps")
        assert not maps.exists() or "libtorch" not in maps.read_text()
        server.send_signal(signal.SIGTERM)
        assert server.wait(15) == 0
        assert not psutil.wait_procs(crew, timeout=0)[1], "workers end with their server"
