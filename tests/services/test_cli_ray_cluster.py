"""`viva render --ray-address`: a cluster of two nodes that share no memory, and one too small."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from tests.support.viva import start_viva

pytest.importorskip("ray")
pytestmark = [pytest.mark.ray, pytest.mark.cli]

PATIENCE_S = 600.0
RAY = str(Path(sys.executable).with_name("ray"))
ENVIRONMENT = {**os.environ, "RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}
# In a mount namespace of its own a node has its own shared memory, as on another machine.
ELSEWHERE = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs tmpfs /dev/shm && exec "$@"', "sh"]


@pytest.fixture(autouse=True)
def nothing_left_running() -> None:
    """Ray's nodes outlive a test; `cluster` ends them."""


@contextlib.contextmanager
def ray_node(*words: str, before: tuple[str, ...] = ()) -> Iterator[None]:
    """A node of one CPU, ended at the end."""
    folder = tempfile.mkdtemp(prefix="viva-test-", dir="/tmp")
    common = ["--block", "--num-cpus=1", "--object-store-memory=80000000", f"--temp-dir={folder}"]
    node = subprocess.Popen(
        [*before, RAY, "start", *common, *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=ENVIRONMENT,
        cwd="/",
        start_new_session=True,
    )
    try:
        yield
    finally:
        node.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            node.wait(60)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(node.pid, signal.SIGKILL)
        node.wait()
        shutil.rmtree(folder, ignore_errors=True)


def num_nodes(address: str) -> int:
    program = "import ray, sys; ray.init(sys.argv[1]); print(len(ray.nodes()))"
    command = [sys.executable, "-c", program, address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return int(done.stdout or 0)


def wait_until_open(host: str, port: int) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < until_s:
        with contextlib.suppress(OSError), socket.create_connection((host, port), 1.0):
            return
        time.sleep(0.2)
    raise AssertionError("Ray did not start")


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster of two nodes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    address = f"127.0.0.1:{port}"
    can_part = subprocess.run([*ELSEWHERE, "true"], capture_output=True, check=False).returncode
    with ray_node("--head", f"--port={port}", "--include-dashboard=false"):
        wait_until_open("127.0.0.1", port)
        before = () if can_part else tuple(ELSEWHERE)
        with ray_node(f"--address={address}", before=before):
            until_s = time.monotonic() + PATIENCE_S
            while num_nodes(address) < 2:
                assert time.monotonic() < until_s
            yield address


def decoded(path: Path) -> np.ndarray:
    with av.open(str(path)) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])


def test_nodes_that_share_no_memory_give_the_frames_of_one_process(
    tmp_path: Path, cluster: str, tiny_model: Path, portrait: Path, speech: Path
) -> None:
    made = []
    for words in ([], ["--chain", "ray", "--ray-address", cluster, "--strategy", "spread"]):
        out = tmp_path / f"{len(words)}.mp4"
        options = ["--model", tiny_model, "--portrait", portrait, "--audio", speech, "--out", out]
        arguments = [*map(str, options), "--crop", "center", "--quiet", *words]
        process = start_viva(["render", *arguments])
        said = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, *said) == (0, "", "")
        made.append(decoded(out))
    local, on_cluster = made
    assert np.array_equal(local, on_cluster)


def test_a_cluster_that_is_too_small_is_refused_with_the_arithmetic(
    tmp_path: Path, cluster: str, tiny_model: Path, portrait: Path, speech: Path
) -> None:
    out = tmp_path / "video.mp4"
    options = ["--model", tiny_model, "--portrait", portrait, "--audio", speech, "--out", out]
    words = ["--crop", "center", "--chain", "ray", "--ray-address", cluster, "--devices", "cpu:2"]
    process = start_viva(["render", *map(str, options), *words])
    said, complained = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, said) == (2, "")
    assert "the chain needs 2 CPU in one node" in complained
    assert complained.count("has 1 CPU, 1 CPU free") == 2
    assert complained.count("\n") == 1
    assert not list(tmp_path.iterdir())
