"""`viva chain`, `viva render --trace` and `--stats`: what a user sees of stages at work."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline import watch_socket
from pipeline.chain_settings import ChainSettings
from pipeline.chain_watch import watchable
from pipeline.snapshot import ChainSnapshot
from pipeline.staged_chain import StagedChain
from pipeline.thread_host import ThreadHost
from tests.support.toy_stages import PICTURES, toy_inputs, toy_recipes, toy_works
from tests.support.trace_rules import require_valid_trace
from tests.support.viva import ROOT, Outcome, run_viva

pytestmark = pytest.mark.cli

Viva = Callable[..., Outcome]


@pytest.fixture
def viva(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Viva:
    return lambda *words: run_viva([str(word) for word in words], monkeypatch, capfd)


@pytest.fixture
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where chains are looked for; others may run on this machine."""
    monkeypatch.setattr(watch_socket, "memory_folder", lambda: tmp_path)
    return tmp_path


@pytest.fixture
def running(parent: Path) -> Iterator[StagedChain]:
    folder = parent / "viva-toys"
    folder.mkdir(mode=0o700)
    settings = ChainSettings(pictures_per_chunk=PICTURES, transport="queue")
    chain = StagedChain(ThreadHost(), toy_recipes(2, sleep_s=0.001), folder, settings)
    with watchable(chain, label="toys \x1b[31m", pid=os.getpid()):
        chain.prepare(toy_inputs("a\x1b]0;b"))
        for work in toy_works("a\x1b]0;b", 12):
            chain.submit(work)
        chain.drain("a\x1b]0;b")
        yield chain
    chain.close()


@pytest.mark.usefixtures("running")
def test_a_running_chain_is_listed_and_drawn(viva: Viva) -> None:
    listed = viva("chain", "list")
    assert (listed.status, listed.stderr) == (0, "")
    assert "toys" in listed.stdout
    for words in (("toys", "--once"), ("toys",), ()):  # no terminal: once
        drawn = viva("chain", "watch", *words)
        assert (drawn.status, drawn.stderr) == (0, "")
        assert "speech ─▶ 0-toy0 ─▶ 1-toy1 ─▶ 2-toy2 ─▶ pictures" in drawn.stdout
        assert "12 chunks out, 0 under way" in drawn.stdout
        assert "efficiency" in drawn.stdout
        assert "\x1b" not in drawn.stdout  # names steer no terminal


@pytest.mark.usefixtures("running")
def test_programs_get_json(viva: Viva) -> None:
    (listed,) = json.loads(viva("chain", "list", "--json").stdout)
    seen = json.loads(viva("chain", "watch", "toys", "--once", "--json").stdout)
    assert seen["chain"] == listed["chain"]
    assert seen["chain"]["pid"] == os.getpid()
    assert [stage["name"] for stage in seen["stages"]] == ["0-toy0", "1-toy1", "2-toy2"]
    assert seen["sessions"][0]["completed"] == 12
    assert seen["timings"]["stages"][0]["num_chunks"] == 12


def test_chains_that_do_not_run_are_refused_in_one_line(viva: Viva, parent: Path) -> None:
    assert viva("chain", "list").stdout == "no chain runs here\n"
    assert viva("chain", "list", "--json").stdout == "[]\n"
    for words, says in (
        (("other",), "no chain 'other' runs here: running are none"),
        ((), "no chain runs here: running are none, viva chain watch NAME shows one"),
    ):
        refused = viva("chain", "watch", *words)
        assert (refused.status, refused.stdout) == (2, "")
        assert refused.stderr == f"viva: {says}\n"
    (parent / "viva-dead").mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(parent / "viva-dead" / "watch"))
    assert viva("chain", "watch", "dead").status == 2


def test_a_chain_that_dies_while_it_is_watched_is_a_failure(viva: Viva, parent: Path) -> None:
    (parent / "viva-dying").mkdir(mode=0o700)
    door = watch_socket.WatchDoor(parent / "viva-dying")
    real = watch_socket.Watcher.snapshots

    def dies(self: watch_socket.Watcher) -> Iterator[ChainSnapshot]:
        door.close()
        return real(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watch_socket.Watcher, "snapshots", dies)
        outcome = viva("chain", "watch", "dying", "--json")
    assert (outcome.status, outcome.stderr) == (1, "viva: chain dying died\n")


@pytest.fixture
def words(tiny_model: Path, portrait: Path, speech: Path, tmp_path: Path) -> list[str]:
    named = {"model": tiny_model, "portrait": portrait, "audio": speech, "out": tmp_path / "o.mp4"}
    words = [word for name, path in named.items() for word in (f"--{name}", str(path))]
    return ["render", *words, "--crop", "center"]


def test_a_render_writes_a_valid_trace_and_tells_its_figures(
    viva: Viva, words: list[str], tmp_path: Path
) -> None:
    trace = tmp_path / "trace.json"
    outcome = viva(*words, "--stages", "2", "--trace", trace, "--stats", "--json")
    assert outcome.status == 0, outcome.stderr
    stages = json.loads(outcome.stdout)["stats"]["stages"]
    assert len(stages) == 3
    assert stages[-1]["stage"] == "2-decode"
    assert {stage["num_chunks"] for stage in stages} == {2}  # 15 pictures, 12 a chunk
    assert sum(stage["busy"] for stage in stages) <= 1.0
    made = json.loads(trace.read_text())
    require_valid_trace(made)
    assert sum(event["ph"] == "X" for event in made["traceEvents"]) == 6
    assert [path.name for path in tmp_path.glob("trace*")] == ["trace.json"]
    again = viva(*words, "--overwrite", "--stats", "--quiet")
    assert "1-decode" in again.stdout
    assert "efficiency" in again.stdout


def test_traces_that_cannot_be_written_are_refused_before_any_work(
    viva: Viva, words: list[str], tmp_path: Path, portrait: Path
) -> None:
    (tmp_path / "there.json").touch()
    before = portrait.read_bytes()
    for trace, says in (
        (tmp_path / "there.json", "exists: choose another name, or pass --overwrite"),
        (tmp_path / "no" / "trace.json", "cannot be written (No such file or directory)"),
        (tmp_path / "o.mp4", "would replace"),
        (portrait, "would replace"),
    ):
        refused = viva(*words, "--trace", trace)
        assert refused.status == 2, refused.stderr
        assert says in refused.stderr
        assert refused.stderr.count("\n") == 1
        assert not (tmp_path / "o.mp4").exists()
    assert portrait.read_bytes() == before


def test_to_watch_needs_no_torch() -> None:
    """It takes seconds to import, and a watcher is started to see what is there now."""
    program = (
        "import sys, pipeline.watch_socket, services.chain_view; print('torch' in sys.modules)"
    )
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}"}
    told = subprocess.run(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, check=True
    )
    assert told.stdout == b"False\n"
