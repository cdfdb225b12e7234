"""A chain of Ray actors: faults change no picture, and whatever dies, nothing stays behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pipeline.staged_chain import ChainSettings, StagedChain
from tests.support.leaks import Running
from tests.support.toy_stages import (
    PICTURES,
    same,
    toy_inputs,
    toy_pictures,
    toy_recipes,
    toy_works,
)
from tests.support.viva import ROOT
from video.chunk import VideoChunk

pytest.importorskip("ray")

from pipeline.supervisor import RayHandle, open_ray_chain

pytestmark = [pytest.mark.ray, pytest.mark.stream]

SETTINGS = ChainSettings(pictures_per_chunk=PICTURES)


@pytest.fixture(autouse=True)
def nothing_left_running() -> None:
    """Ray starts and ends processes as it likes; `chain` looks once it has ended."""


@pytest.fixture(scope="module")
def chain() -> Iterator[StagedChain]:
    before = Running.now()
    recipes = toy_recipes(2, sleep_s=0.002)
    with open_ray_chain(recipes, SETTINGS, num_spares=1) as opened:
        yield opened
    leaked = Running.now().leaked_since(before)
    assert not leaked, f"still running: {leaked}"


def pid_of(chain: StagedChain, position: int) -> int:
    """The process at a position, once it has one."""
    until_s = time.monotonic() + 120
    while time.monotonic() < until_s:
        handle = chain.controller.handles()[position]
        if isinstance(handle, RayHandle) and handle.pid is not None:
            return handle.pid
        time.sleep(0.02)
    raise AssertionError(f"no process at position {position}")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_stage_that_dies_or_hangs_is_replaced_and_no_session_notices(
    chain: StagedChain, number: signal.Signals
) -> None:
    works = {name: toy_works(name, 40, seed) for name, seed in (("a", 1), ("b", 2))}
    made: dict[str, list[VideoChunk]] = {name: [] for name in works}
    replaced = len(chain.controller.replacements)
    for name, seed in (("a", 1), ("b", 2)):
        chain.prepare(toy_inputs(name, seed))
    for index in range(40):
        if index == 17:
            os.kill(pid_of(chain, 1), number)
        for name in works:
            made[name] += chain.submit(works[name][index])
    for name in works:
        made[name] += chain.drain(name)
        chain.reset(name)
    assert same(made["a"], toy_pictures(2, "a", 40, 1))
    assert same(made["b"], toy_pictures(2, "b", 40, 2))
    lost = chain.controller.replacements[replaced:]
    reason = "hung" if number == signal.SIGSTOP else "died"
    assert [(replacement.position, replacement.reason) for replacement in lost] == [(1, reason)]


PROGRAM = """
import os, sys, time
from pipeline.staged_chain import ChainSettings
from pipeline.supervisor import open_ray_chain
from tests.support.toy_stages import PICTURES, toy_recipes
with open_ray_chain(toy_recipes(1), ChainSettings(pictures_per_chunk=PICTURES)) as chain:
    print("up", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_nothing_outlives_the_driver(number: signal.Signals) -> None:
    before = _left(set())
    driver = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}", "OMP_NUM_THREADS": "1"},
        text=True,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert driver.stdout is not None
    assert driver.stdout.readline() == "up\n"
    family = psutil.Process(driver.pid).children(recursive=True)
    assert len(family) > 5
    driver.send_signal(number)
    driver.communicate()
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not [p.name() for p in alive if p.status() != psutil.STATUS_ZOMBIE]
    until_s = time.monotonic() + 30
    while time.monotonic() < until_s and _left(before):
        time.sleep(0.05)
    assert not _left(before)


def _left(before: set[Path]) -> set[Path]:
    folders = ("/dev/shm", "/tmp")  # noqa: S108 - only looked at
    return {path for folder in folders for path in Path(folder).glob("viva-*")} - before
