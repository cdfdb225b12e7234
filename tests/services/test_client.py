"""The client library and the examples as users run them: with asyncio, without it, in Node."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import grpc
import numpy as np
import pytest
from viva.v1 import avatar_pb2

from services.client import AsyncClient, Client, Connection, LiveOptions, reason_of
from tests.support.control_house import RATE_HZ, hosted, noise, sound_of

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[2]
NODE = ROOT / "examples" / "node"
KEY = "0123456789abcdef-key"


@contextmanager
def served() -> Iterator[str]:
    """The address of a server in a thread of its own; it wants a key."""
    ready, address, loops = threading.Event(), [""], []
    ends: list[asyncio.Event] = []

    async def run() -> None:
        async with hosted(keys=[KEY]) as house:
            ends.append(asyncio.Event())
            loops.append(asyncio.get_running_loop())
            address[0] = house.address
            ready.set()
            await ends[0].wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    assert ready.wait(20)
    try:
        yield address[0]
    finally:
        loops[0].call_soon_threadsafe(ends[0].set)
        thread.join(20)


def test_a_session_takes_a_few_lines_without_asyncio() -> None:
    pcm_T = noise(0.8)
    with served() as address, Client(Connection(address=address, key=KEY)) as client:
        assert client.describe().model == "fake"
        with client.converse("ada", LiveOptions(picture="vp8")) as call:
            call.speak(pcm_T, "hello")
            call.end()
            call.finish()
            came = list(call)
        assert sound_of(came, "hello")[: 2 * len(pcm_T)] == pcm_T.tobytes()
        assert came[-1].status.reason == avatar_pb2.END_REASON_CLIENT
        with client.converse("ada", LiveOptions(picture="none")) as call:
            call.speak(noise(5.0))
            next(iter(call))  # and it is left where it is
        with client.converse("nobody") as call, pytest.raises(grpc.RpcError) as failed:
            list(call)
        assert reason_of(failed.value) == "NO_PORTRAIT"


def test_a_session_takes_a_few_lines_with_asyncio() -> None:
    async def run() -> None:
        pcm_T = noise(0.8)
        options = LiveOptions(picture="rgb", width=64, height=64)
        async with (
            hosted(keys=[KEY]) as house,
            AsyncClient(Connection(address=house.address, key=KEY)) as client,
        ):
            async with client.converse(b"a picture file", options) as call:
                await call.speak(pcm_T.tobytes(), "hello")
                await call.end("hello")
                await call.finish()
                came = [one async for one in call]
            assert sound_of(came, "hello")[: 2 * len(pcm_T)] == pcm_T.tobytes()
            async with client.converse("ada") as call:
                await call.say("hello")
                await call.speak(noise(9.0))
                await call.interrupt()
                await call.finish()
                kinds = [one.event.kind async for one in call if one.HasField("event")]
            assert avatar_pb2.EVENT_KIND_REFUSED in kinds

    asyncio.run(run())


def test_the_live_example_writes_a_video(tmp_path: Path) -> None:
    write_wav(tmp_path / "speech.wav", noise(1.0, rate=24_000))
    with served() as address:
        done = subprocess.run(
            [
                sys.executable,
                ROOT / "examples" / "python_live.py",
                tmp_path / "speech.wav",
                tmp_path / "out.mp4",
                f"--address={address}",
            ],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert "EVENT_KIND_SPEAK_ENDED" in done.stdout
    with av.open(tmp_path / "out.mp4") as film:
        pictures = list(film.decode(video=0))
        assert len(pictures) >= 25
        assert (pictures[0].width, pictures[0].height) == (64, 64)


def test_the_node_example_hears_what_it_said(tmp_path: Path) -> None:
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("no node and npm on this machine")
    for name in ("package.json", "live.js"):
        shutil.copy(NODE / name, tmp_path)
    install = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts"]
    done = subprocess.run(
        install, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode:
        pytest.skip("the npm registry is not reachable")
    pcm_T = noise(1.0)
    speech = tmp_path / "speech.s16le"
    speech.write_bytes(pcm_T.tobytes())
    with served() as address:
        said = subprocess.run(
            ["node", "live.js", address, ROOT / "proto", speech, str(RATE_HZ), "ada"],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert said.returncode == 0, said.stderr
    report = json.loads(said.stdout)
    assert report["parts"][0] == "session_started"
    assert report["parts"][-1] == "status"
    assert "EVENT_KIND_SPEAK_ENDED" in report["events"]
    assert report["pictures"] >= 20
    assert report["keyframes"] >= 1
    assert report["monotonic"]
    back = (tmp_path / "speech.s16le.back").read_bytes()
    assert back[: 2 * len(pcm_T)] == pcm_T.tobytes()


def environment() -> dict[str, str]:
    """What the examples find our packages and the key by."""
    return {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}", "VIVA_API_KEY": KEY}


def write_wav(path: Path, pcm_T: np.ndarray[tuple[int], np.dtype[np.int16]]) -> None:
    """A recording at 24 kHz."""
    with av.open(path, "w") as file:
        stream = file.add_stream("pcm_s16le", rate=24_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(pcm_T[None], format="s16", layout="mono")
        frame.sample_rate = 24_000
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
