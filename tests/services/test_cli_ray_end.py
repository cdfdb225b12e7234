"""However a render on Ray ends while it streams, no process, memory or half a video is left."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.services.conftest import noise, write_wav
from tests.support.chain_folders import chain_folders
from tests.support.long_render import start_long_render, wait_for_partial

pytest.importorskip("ray")
pytestmark = [pytest.mark.ray, pytest.mark.cli]


@pytest.fixture(autouse=True)
def nothing_left_running() -> None:
    """The test looks itself, at what Ray started."""


@pytest.mark.parametrize(
    ("number", "to_group", "status"),
    [
        pytest.param(signal.SIGINT, True, 130, id="ctrl-c"),
        pytest.param(signal.SIGTERM, False, 143, id="term"),
        pytest.param(signal.SIGKILL, False, -9, id="kill"),
    ],
)
def test_nothing_is_left(
    tmp_path: Path,
    tiny_model: Path,
    portrait: Path,
    number: signal.Signals,
    to_group: bool,
    status: int,
) -> None:
    words = ("--chain", "ray", "--stages", "2", "--spares", "1")
    sound, out = write_wav(tmp_path / "long.wav", noise(120.0)), tmp_path / "out" / "video.mp4"
    process = start_long_render(
        out, tiny_model, portrait, sound, *words, preexec_fn=lambda: os.setpgid(0, 0)
    )
    with killed_at_the_end(process):
        look_how_it_ends(process, out, number, to_group, status)


@contextlib.contextmanager
def killed_at_the_end(process: "subprocess.Popen[str]") -> Iterator[None]:
    try:
        yield
    finally:
        process.kill()
        process.communicate()


def look_how_it_ends(
    process: "subprocess.Popen[str]",
    out: Path,
    number: signal.Signals,
    to_group: bool,
    status: int,
) -> None:
    wait_for_partial(process, out.parent)
    driver = psutil.Process(process.pid)
    family = driver.children(recursive=True)
    folders = chain_folders(driver)
    assert len(family) > 5
    assert {folder.parent.name for folder in folders} == {"shm", "tmp"}
    (os.killpg if to_group else os.kill)(process.pid, number)
    said, complained = process.communicate(timeout=120)
    assert process.returncode == status
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]
    until_s = time.monotonic() + 60
    while any(folder.exists() for folder in folders) and time.monotonic() < until_s:
        time.sleep(0.05)
    assert not [folder for folder in folders if folder.exists()]
    if number != signal.SIGKILL:
        assert (said, list(out.parent.iterdir())) == ("", [])
        assert len(complained.splitlines()) <= 1
        assert "Traceback" not in complained
