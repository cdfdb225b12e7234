"""A chain of Ray actors: faults change no picture, and whatever dies, nothing stays behind."""

import contextlib
import itertools
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pipeline.chain_events import Replacement
from pipeline.chain_watch import watchable
from pipeline.controller import WatchSettings
from pipeline.recording import Recording
from pipeline.staged_chain import ChainSettings, StagedChain
from pipeline.trace import chrome_trace
from pipeline.watch_socket import Watcher
from tests.support.leaks import Running
from tests.support.ray_nodes import pid_of
from tests.support.toy_chains import stream
from tests.support.toy_stages import (
    PICTURES,
    same,
    toy_inputs,
    toy_pictures,
    toy_recipes,
    toy_works,
)
from tests.support.trace_rules import require_valid_trace
from tests.support.viva import ROOT
from video.chunk import VideoChunk

pytest.importorskip("ray")

from pipeline.supervisor import open_ray_chain

pytestmark = [pytest.mark.ray, pytest.mark.stream]

# A machine with far too much to do makes nodes silent for long; those that are stopped are seen at
# once all the same.
SETTINGS = ChainSettings(pictures_per_chunk=PICTURES, watch=WatchSettings(hung_s=60.0))


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


def test_it_can_be_watched_and_recorded_across_processes(chain: StagedChain) -> None:
    recording = Recording()
    with watchable(chain, label="toys", pid=os.getpid(), listeners=[recording.add]):
        chain.prepare(toy_inputs("watched"))
        with Watcher(chain.folder) as watcher:
            for work in toy_works("watched", 20):
                chain.submit(work)
            chain.drain("watched")
            seen = next(s for s in watcher.snapshots() if s.sessions[0].completed == 20)
        chain.reset("watched")
    assert [stage.name for stage in seen.stages] == list(chain.names)
    assert not any(stage.is_silent for stage in seen.stages)
    assert [s.session for s in seen.sessions] == ["watched"]
    require_valid_trace(chrome_trace(recording.story()))
    found = recording.timings()
    assert [stage.num_chunks for stage in found.stages] == [20, 20, 20]
    assert all(stage.transfer_ms is not None for stage in found.stages)


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


def test_faults_in_a_row_change_nothing_and_leave_nothing(chain: StagedChain) -> None:
    """Seven faults, one of them of two stages at once, while three sessions stream."""
    rng = random.Random(5)  # noqa: S311 - faults, no secrets
    seeds = {"a": 1, "b": 2, "c": 3}
    replaced = len(chain.controller.replacements)
    before = Running.now()
    num_fds, num_files = psutil.Process().num_fds(), len(list(chain.folder.rglob("*")))
    chain.events()
    victims = [rng.sample(range(3), 2 if index == 3 else 1) for index in range(7)]
    when = {7 * index + 5: positions for index, positions in enumerate(victims)}

    def fault(index: int) -> None:
        for pid in [pid_of(chain, position) for position in when.get(index, [])]:
            os.kill(pid, signal.SIGSTOP if index == 12 else signal.SIGKILL)

    made = stream(chain, seeds, 56, fault)
    for name, seed in seeds.items():
        chain.reset(name)
        assert same(made[name], toy_pictures(2, name, 56, seed))
    lost = chain.controller.replacements[replaced:]
    assert sorted(r.position for r in lost) == sorted(itertools.chain(*victims)), lost
    told = chain.events()
    assert [event for event in told if isinstance(event, Replacement)] == lost
    for position in range(3):
        pid_of(chain, position)
    assert len(list(chain.folder.rglob("*"))) == num_files
    assert psutil.Process().num_fds() <= num_fds + len(victims)
    # A spare may be on its way, or the last dead one on its way out.
    until_s = time.monotonic() + 60
    while len(Running.now().processes) > len(before.processes) and time.monotonic() < until_s:
        time.sleep(0.05)
    assert len(Running.now().processes) <= len(before.processes)


PROGRAM = """
import signal, sys, time
from pipeline.errors import ChainDraining
from pipeline.staged_chain import ChainSettings
from pipeline.supervisor import open_ray_chain
from tests.support.toy_stages import PICTURES, toy_inputs, toy_recipes, toy_works
with open_ray_chain(toy_recipes(1), ChainSettings(pictures_per_chunk=PICTURES)) as chain:
    signal.signal(signal.SIGTERM, lambda *_: chain.begin_drain())
    chain.prepare(toy_inputs("a"))
    print(chain.folder, flush=True)
    num_sent = num_made = 0
    try:
        for work in toy_works("a", 100_000):
            num_made += len(chain.submit(work))
            num_sent += 1
            time.sleep(0.005)
    except ChainDraining:
        assert chain.shut_down(60)
        num_made += len(chain.drain("a"))
        print(num_sent - num_made, flush=True)
"""


def ray_folder(family: list[psutil.Process]) -> Path:
    """The folder of the Ray that these processes are of: they name it in their command lines."""
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            found = re.search(r"(/tmp/viva-ray-\w+)", " ".join(process.cmdline()))
            if found:
                return Path(found[1])
    raise AssertionError("no process names a folder of Ray's")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_nothing_outlives_the_driver(number: signal.Signals) -> None:
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
    folder = Path(driver.stdout.readline().strip())
    assert folder.is_dir()
    family = psutil.Process(driver.pid).children(recursive=True)
    assert len(family) > 5
    folders = [folder, ray_folder(family)]
    driver.send_signal(number)
    out, _ = driver.communicate()
    if number == signal.SIGTERM:  # all that was sent came out
        assert (out, driver.returncode) == ("0\n", 0)
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not [p.name() for p in alive if p.status() != psutil.STATUS_ZOMBIE]
    until_s = time.monotonic() + 30
    while time.monotonic() < until_s and any(path.exists() for path in folders):
        time.sleep(0.05)
    assert not [path for path in folders if path.exists()]
