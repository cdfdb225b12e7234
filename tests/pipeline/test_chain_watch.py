"""A chain that runs can be watched, recorded and counted, and nobody who watches can hurt it."""

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from pipeline.chain_events import Replacement
from pipeline.chain_settings import ChainSettings
from pipeline.chain_watch import ChainWatch, Listener
from pipeline.collector import Collector
from pipeline.errors import ChainDown, ChainError
from pipeline.metrics import ChainMetrics, exposition
from pipeline.recording import Recording
from pipeline.snapshot import ChainSnapshot, Identity, pack_snapshot, unpack_snapshot
from pipeline.spans import Record, Spans
from pipeline.staged_chain import StagedChain
from pipeline.thread_host import ThreadHost
from pipeline.trace import chrome_trace
from pipeline.watch_socket import (
    MAX_WATCHERS,
    Watcher,
    chain_folders,
    find_chain,
    running_chains,
)
from tests.support.toy_stages import PICTURES, toy_inputs, toy_recipes, toy_works
from tests.support.trace_rules import require_valid_trace

pytestmark = pytest.mark.stream

NUM_STAGES = 2
NAMES = ("0-toy0", "1-toy1", "2-toy2")
IDENTITY = Identity(name="toys", label="toys", pid=os.getpid())


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    """Where chains have their folders; sockets need a short path."""
    return tmp_path


@pytest.fixture
def chain(parent: Path) -> Iterator[StagedChain]:
    folder = parent / "viva-toys"
    folder.mkdir(mode=0o700)
    settings = ChainSettings(pictures_per_chunk=PICTURES, transport="queue")
    made = StagedChain(ThreadHost(), toy_recipes(NUM_STAGES, sleep_s=0.002), folder, settings)
    yield made
    made.close()


@contextlib.contextmanager
def watched(chain: StagedChain, *listeners: Listener) -> Iterator[ChainWatch]:
    watch = ChainWatch(chain, chain.folder, IDENTITY, listeners=listeners)
    try:
        yield watch
    finally:
        watch.close()


def run(
    chain: StagedChain, session: str, num_chunks: int, *, kill_at: int = -1, live: bool = False
) -> None:
    chain.prepare(replace(toy_inputs(session), live=live))
    for index, work in enumerate(toy_works(session, num_chunks)):
        if index == kill_at:
            chain.controller.kill(1)
        chain.submit(work)
    chain.drain(session)


def test_a_watcher_sees_stages_sessions_and_replacements(chain: StagedChain, parent: Path) -> None:
    with watched(chain):
        run(chain, "a", 30, kill_at=12)
        assert [folder.name for folder in chain_folders(parent)] == ["viva-toys"]
        (seen,) = running_chains(parent)
        with Watcher(find_chain("toys", parent)) as watcher:
            assert next(watcher.snapshots()).chain == seen.chain == IDENTITY
    assert [stage.name for stage in seen.stages] == list(NAMES)
    assert seen.state == "running"
    assert [(s.session, s.submitted, s.completed) for s in seen.sessions] == [("a", 30, 30)]
    assert seen.sessions[0].due_in_ms is None
    assert (seen.num_replacements, seen.replacements[0].stage) == (1, "1-toy1")
    assert seen.stages[0].memory_bytes > 0
    assert seen.timings.stages[0].num_chunks == 30
    assert seen.timings.stages[0].compute_ms >= 2.0
    assert unpack_snapshot(pack_snapshot(seen)) == seen
    assert chain_folders(parent) == []


def test_a_chunk_that_is_being_worked_on_is_shown_there(chain: StagedChain) -> None:
    recipes = toy_recipes(1, sleep_s=0.3)
    folder = chain.folder.with_name("viva-slow")
    folder.mkdir(mode=0o700)
    settings = ChainSettings(pictures_per_chunk=PICTURES, transport="queue", window=4)
    slow = StagedChain(ThreadHost(), recipes, folder, settings)
    slow.prepare(toy_inputs("a"))
    for work in toy_works("a", 4):
        slow.submit(work)
    collector = Collector(slow)
    while not (report := collector.look().reports[0]) or not report.working:
        pass
    slow.close()
    assert [held.session for held in report.working] == ["a"]
    held = [one.chunk for one in (*report.working, *report.waiting)]
    assert held == list(range(held[0], held[0] + len(held)))


def test_watchers_are_told_when_a_chain_ends_and_when_it_dies(
    chain: StagedChain, parent: Path
) -> None:
    ended = ChainWatch(chain, chain.folder, IDENTITY)
    with Watcher(chain.folder) as watcher:
        snapshots = watcher.snapshots()
        next(snapshots)
        ended.close()
        assert [seen.state for seen in snapshots][-1] == "closed"
    with pytest.raises(ChainError, match="chain toys does not run any more"):
        Watcher(chain.folder)
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    door.bind(str(chain.folder / "watch"))
    door.listen()
    with Watcher(chain.folder, silence_s=0.05) as watcher:
        with pytest.raises(ChainDown, match=r"has said nothing for 0\.05 s: it hangs"):
            next(watcher.snapshots())
        door.accept()[0].close()
        with pytest.raises(ChainDown, match="chain toys died"):
            next(watcher.snapshots())
    door.close()
    assert running_chains(parent) == []
    with pytest.raises(ChainError, match="no chain runs here: running are none"):
        find_chain(None, parent)


def test_strangers_and_strange_folders_are_left_alone(chain: StagedChain, parent: Path) -> None:
    with watched(chain):
        assert (chain.folder / "watch").stat().st_mode & 0o077 == 0
        with pytest.raises(ChainError, match="no chain 'other' runs here: running are toys"):
            find_chain("other", parent)
        assert find_chain(None, parent) == chain.folder
        chain.folder.chmod(0o755)
        assert chain_folders(parent) == []
        (parent / "viva-link").symlink_to(chain.folder)
        (parent / "viva-empty").mkdir(mode=0o700)
        assert chain_folders(parent) == []


def test_more_watchers_than_there_is_room_for_push_the_oldest_out(chain: StagedChain) -> None:
    with watched(chain), contextlib.ExitStack() as stack:
        first = stack.enter_context(Watcher(chain.folder))
        next(first.snapshots())
        for _ in range(MAX_WATCHERS):
            next(stack.enter_context(Watcher(chain.folder)).snapshots())
        with pytest.raises(ChainDown):
            for _ in first.snapshots():
                pass


def test_one_who_reads_nothing_is_let_go_and_the_chain_goes_on(chain: StagedChain) -> None:
    with watched(chain) as watch:
        with Watcher(chain.folder) as deaf:
            deaf._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            run(chain, "a", 10)
        run(chain, "b", 10)
        watch.close()
        assert not [t for t in threading.enumerate() if t.name == "chain-look"]


def test_nobody_asks_the_stages_while_nobody_watches(chain: StagedChain) -> None:
    asked: list[int] = []
    report = Spans.report

    def counted(self: Spans, cursor: int, now_ns: int, **rest: int) -> object:
        asked.append(cursor)
        return report(self, cursor, now_ns, **rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Spans, "report", counted)
        with watched(chain):
            run(chain, "a", 10)
    assert asked == []


def test_records_come_once_and_all_of_them(chain: StagedChain) -> None:
    collector, other = Collector(chain), Collector(chain)
    chain.prepare(toy_inputs("a"))
    found: list[Record] = []
    for work in toy_works("a", 25):
        chain.submit(work)
        found += collector.look().records
    chain.drain("a")
    found += collector.look().records
    for records in (found, other.look().records):  # two who look take nothing from each other
        for stage in (*NAMES, "sink"):
            chunks = [r.chunk for r in records if r.stage == stage and hasattr(r, "arrived_ns")]
            assert chunks == list(range(25))


def test_a_stage_that_gives_no_answer_is_silent_and_asked_once(chain: StagedChain) -> None:
    collector = Collector(chain, answer_s=0.0)
    handle = chain.controller.handles()[1]
    assert handle is not None
    calls: list[str] = []

    class Never:
        def result(self, timeout_s: float) -> object:
            raise ChainDown(f"not in {timeout_s} s")

    def call(method: str, *_: object) -> Never:
        calls.append(method)
        return Never()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(handle, "call", call)
        for _ in range(5):
            assert [report is None for report in collector.look().reports] == [False, True, False]
    assert calls == ["report"]


def test_a_recording_of_a_run_with_a_fault_makes_a_valid_trace(chain: StagedChain) -> None:
    recording = Recording()
    with watched(chain, recording.add):
        run(chain, "a", 30, kill_at=12)
    trace = chrome_trace(recording.story())
    require_valid_trace(trace)
    marks = [e["name"] for e in trace["traceEvents"] if e["ph"] == "i"]
    assert len(marks) == 1
    assert marks[0].startswith("1-toy1 died, replaced in ")
    found = recording.timings()
    assert found.num_chunks == 30
    assert found.stages[0].transfer_ms is not None
    assert found.latency_ms is not None


def test_a_closed_session_leaves_nothing_in_the_stages_books(chain: StagedChain) -> None:
    chain.prepare(toy_inputs("a"))
    for work in toy_works("a", 4):
        chain.submit(work)
    chain.reset("a")
    for report in Collector(chain).look().reports:
        assert report is not None
        assert (report.waiting, report.working, report.memory_bytes) == ((), (), ())


def test_counters_count_what_happened(chain: StagedChain) -> None:
    registry = CollectorRegistry()
    metrics = ChainMetrics(registry)
    with watched(chain, metrics.observe):
        run(chain, "a", 20, live=True)
        run(chain, "b", 20, kill_at=15)
        chain.reset("a")

    def value(name: str, **labels: str) -> float:
        return registry.get_sample_value(f"viva_chain_{name}", labels) or 0.0

    assert value("chunks_total", stage="0-toy0") == 40
    assert value("stage_seconds_count", stage="0-toy0") == 40
    assert value("stage_seconds_sum", stage="0-toy0") >= 40 * 0.002
    assert value("queue_seconds_count", stage="2-toy2") == 40
    assert value("wait_seconds_total", stage="2-toy2") > 0
    assert value("sent_bytes_total", stage="source") > 0
    assert value("replacements_total", stage="1-toy1", reason="died") == 1
    assert value("lateness_seconds_count") == 20  # nobody waits for those of b
    assert value("sessions") == 1
    assert value("state", state="running") == 1
    assert value("cache_bytes", stage="0-toy0") > 0
    assert value("queue_depth", stage="0-toy0") == 0
    text = exposition(registry).decode()
    assert "# TYPE viva_chain_stage_seconds histogram" in text
    assert 'viva_chain_chunks_total{stage="0-toy0"} 40.0' in text
    assert "session=" not in text


def test_a_snapshot_stays_small_whatever_there_is(chain: StagedChain) -> None:
    for index in range(70):
        chain.prepare(toy_inputs(f"session-{index:03}-{'x' * 200}"))
    with watched(chain):
        (seen,) = running_chains(chain.folder.parent)
    assert isinstance(seen, ChainSnapshot)
    assert seen.num_sessions == 70
    assert len(seen.sessions) == 64
    assert len(pack_snapshot(seen)) < 1 << 16


def test_what_is_no_snapshot_is_refused_in_one_line() -> None:
    for data in (b"", b"{}", b"[1]", b"\xff", b'{"chain": 1}'):
        with pytest.raises(ChainError, match="watch it with the version that runs it") as refused:
            unpack_snapshot(data)
        assert "\n" not in str(refused.value)


def test_a_chain_that_is_being_cut_anew_is_looked_at_all_the_same(chain: StagedChain) -> None:
    """For a moment it has other names than stages; later it may have fewer of both."""
    collector, recording = Collector(chain), Recording()
    for names, expected in (((*NAMES, "3-more"), 3), (("0-all", "1-decode"), 2), (NAMES, 3)):
        chain.names = names
        seen = collector.look()
        recording.add(seen)
        assert len(seen.names) == len(seen.reports) == expected
    lost = Replacement(position=9, reason="died", healed_s=0.1)
    assert seen.name_of(lost) == "stage 9"
    assert set(recording.story().names) == {*NAMES, "0-all", "1-decode"}


def test_a_listener_that_fails_stops_neither_the_chain_nor_its_end(
    chain: StagedChain, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(_: object) -> None:
        raise RuntimeError("no room left")

    with watched(chain, fails):
        run(chain, "a", 5)
    assert "the chain cannot be watched: no room left" in caplog.text
