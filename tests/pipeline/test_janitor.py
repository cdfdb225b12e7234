"""The janitor clears away when its owner closes it, and when its owner is killed."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipeline.janitor import Janitor, end_process, start_ticks
from tests.support.viva import ROOT

pytestmark = pytest.mark.unit


def sleeper() -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])


def test_folders_and_processes_go_when_it_closes(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    (folder / "deep").mkdir(parents=True)
    kept = tmp_path / "kept"
    kept.mkdir()
    victim = sleeper()
    with Janitor() as janitor:
        janitor.remove_later(folder)
        janitor.remove_later(tmp_path / "never made")
        janitor.end_later(victim.pid)
    assert not folder.exists()
    assert kept.exists()
    assert victim.wait(10) == -9


def test_they_go_when_the_owner_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "left"
    folder.mkdir()
    program = (
        "import os, pathlib, signal, sys; from pipeline.janitor import Janitor\n"
        f"Janitor().remove_later(pathlib.Path({str(folder)!r}))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    owner = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False)
    assert owner.returncode == -9
    until_s = time.monotonic() + 20
    while folder.exists() and time.monotonic() < until_s:
        time.sleep(0.02)
    assert not folder.exists()


def test_a_process_that_only_has_the_number_is_spared() -> None:
    victim = sleeper()
    end_process(victim.pid, start_ticks(victim.pid) - 1)
    assert psutil.Process(victim.pid).is_running()
    end_process(victim.pid, start_ticks(victim.pid))
    assert victim.wait(10) == -9
    end_process(victim.pid, 1)
