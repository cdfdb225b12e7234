"""The parts of a staged chain one by one: inbox, log, checkpoints, ring, cuts."""

from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from pipeline.checkpoint_store import CheckpointStore
from pipeline.cuts import cut_evenly
from pipeline.errors import PlanError
from pipeline.frame_ring import FrameRing, RingSpec
from pipeline.inbox import Inbox
from pipeline.message import Message, MessageError
from pipeline.outlog import OutLog
from pipeline.plan_parse import load_plan

pytestmark = pytest.mark.unit


def work(epoch: int, chunk: int, due_ns: int = 0) -> Message:
    return Message(kind="work", session=f"s{epoch}", epoch=epoch, chunk=chunk, due_ns=due_ns)


def taken(box: Inbox | OutLog) -> list[tuple[int, int]]:
    out = []
    while (message := box.take()) is not None:
        out.append((message.epoch, message.chunk))
    return out


def test_the_earliest_due_comes_first_but_never_before_its_predecessor() -> None:
    inbox = Inbox(4)
    for epoch in (1, 2, 3):
        inbox.open(epoch, -1)
    for message in (work(1, 0, 50), work(1, 1, 1), work(2, 0, 20), work(3, 0, 50), work(2, 1, 40)):
        assert inbox.put(message)
    assert len(inbox) == 5
    assert taken(inbox) == [(2, 0), (2, 1), (1, 0), (1, 1), (3, 0)]


def test_strays_and_repetitions_are_not_let_in_and_gaps_are_refused() -> None:
    inbox = Inbox(2)
    inbox.open(1, 4)
    assert not inbox.put(work(2, 0))
    assert not inbox.put(work(1, 4))
    with pytest.raises(MessageError, match="chunk 6 came after 4"):
        inbox.put(work(1, 6))
    assert inbox.put(work(1, 5))
    assert not inbox.put(work(1, 5))
    assert inbox.put(work(1, 6))
    with pytest.raises(MessageError, match="more chunks"):
        inbox.put(work(1, 7))
    assert inbox.positions() == {"1": 6}
    inbox.close(1)
    inbox.close(1)
    assert taken(inbox) == []


def test_a_fresh_stage_may_begin_with_what_there_is() -> None:
    inbox = Inbox(4)
    inbox.open(1, -1, fresh=True)
    assert inbox.positions() == {}
    assert inbox.put(work(1, 7))
    with pytest.raises(MessageError):
        inbox.put(work(1, 9))


def test_a_log_goes_back_to_where_the_receiver_is() -> None:
    log = OutLog(3)
    log.open(1)
    log.open(2)
    for message in (work(1, 0), work(2, 0), work(1, 1), work(1, 2), work(2, 1), work(1, 3)):
        log.append(message)
    assert taken(log) == [(1, 0), (2, 0), (1, 1), (1, 2), (2, 1), (1, 3)]
    log.rewind({"1": 2, "2": -1})
    assert taken(log) == [(2, 0), (2, 1), (1, 3)]
    log.rewind({})
    assert taken(log) == [(2, 0), (1, 1), (1, 2), (2, 1), (1, 3)]  # chunk 0 of 1 fell out
    log.rewind({})
    log.close(1)
    assert taken(log) == [(2, 0), (2, 1)]
    log.append(work(1, 4))
    assert len(log) == 0
    assert [m.chunk for m in log.logged(2)] == [0, 1]
    assert log.logged(1) == []


def test_a_checkpoint_gives_back_what_was_kept_last(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "state")
    assert store.load(1) == []
    tensors = {"a": torch.rand(3, 4), "none": torch.zeros(0), "half": torch.ones(2).bfloat16()}
    for chunk in (3, 7):
        state = replace(work(1, chunk), kind="state", tensors=tensors)
        store.save(1, [state, work(1, chunk - 1), work(1, chunk)])
    kept = store.load(1)
    assert [(m.kind, m.chunk) for m in kept] == [("state", 7), ("work", 6), ("work", 7)]
    assert all(torch.equal(kept[0].tensors[name], tensors[name]) for name in tensors)
    store.drop(1)
    store.drop(1)
    assert store.load(1) == []
    assert not list((tmp_path / "state").iterdir())


def saved(store: CheckpointStore, log: OutLog, chunks: range) -> None:
    """Keep a checkpoint after every fourth of these chunks, as a node does."""
    for chunk in chunks:
        log.append(replace(work(1, chunk), tensors={"x": torch.full((50,), float(chunk))}))
        if chunk % 4 == 3:
            state = Message(kind="state", epoch=1, chunk=chunk, tensors={"s": torch.ones(chunk)})
            store.save(1, [state, *log.logged(1)])


def is_whole(kept: list[Message], after: int) -> bool:
    """Whether these are the state after that chunk and the chunks before it."""
    state, *log = kept
    is_state = state.chunk == after and state.tensors["s"].numel() == after
    return (
        is_state
        and [m.chunk for m in log] == list(range(log[0].chunk, after + 1))
        and all(torch.equal(m.tensors["x"], torch.full((50,), float(m.chunk))) for m in log)
    )


def test_a_log_that_moves_on_is_kept_in_files_that_are_used_again(tmp_path: Path) -> None:
    store, log = CheckpointStore(tmp_path), OutLog(10)
    log.open(1)
    counts = []
    for first in range(0, 80, 4):
        saved(store, log, range(first, first + 4))
        kept = CheckpointStore(tmp_path).load(1)
        assert is_whole(kept, first + 3)
        assert len(kept) - 1 >= min(first + 4, 10)
        counts.append(len(list(tmp_path.iterdir())))
    assert counts[-1] == counts[6] <= 8


def test_a_successor_goes_on_with_the_files_that_it_finds(tmp_path: Path) -> None:
    log = OutLog(10)
    log.open(1)
    saved(CheckpointStore(tmp_path), log, range(20))
    for first in range(20, 60, 8):
        store, log = CheckpointStore(tmp_path), OutLog(10)
        log.open(1, store.load(1)[1:])
        saved(store, log, range(first, first + 8))
        assert is_whole(CheckpointStore(tmp_path).load(1), first + 7)
    assert len(list(tmp_path.iterdir())) <= 8


def test_a_crash_before_the_index_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, log = CheckpointStore(tmp_path), OutLog(10)
    log.open(1)
    saved(store, log, range(40))
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", Mock(side_effect=OSError("the machine is gone")))
        with pytest.raises(OSError, match="gone"):
            saved(store, log, range(40, 44))
    successor = CheckpointStore(tmp_path)
    kept = successor.load(1)
    assert is_whole(kept, 39)
    log = OutLog(10)
    log.open(1, kept[1:])
    saved(successor, log, range(40, 60))
    assert is_whole(CheckpointStore(tmp_path).load(1), 59)


def test_a_log_that_begins_anew_leaves_nothing_of_the_old_one(tmp_path: Path) -> None:
    store, log = CheckpointStore(tmp_path), OutLog(10)
    log.open(1)
    saved(store, log, range(12))
    log.open(1)
    store.save(1, [Message(kind="state", epoch=1, chunk=20), *log.logged(1)])
    assert [(m.kind, m.chunk) for m in CheckpointStore(tmp_path).load(1)] == [("state", 20)]


@pytest.mark.parametrize("name", ["1.state", "1-0.log", "1-1.log"])
@pytest.mark.parametrize("keep", [0, 2, 40, 70])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, name: str, keep: int) -> None:
    store = CheckpointStore(tmp_path)
    state = replace(work(1, 3), kind="state", tensors={"a": torch.rand(64)})
    store.save(1, [state, replace(work(1, 3), tensors={"a": torch.rand(64)})])
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(MessageError, match="damaged"):
        store.load(1)


def test_pictures_go_through_the_ring_bit_for_bit_and_its_file_goes_away(tmp_path: Path) -> None:
    spec = RingSpec(path=str(tmp_path / "ring"), num_slots=3, slot_bytes=2 * 4 * 5 * 3)
    near = FrameRing(spec, create=True)
    far = FrameRing(spec)
    rng = np.random.default_rng(0)
    for chunk in range(7):
        frames = rng.integers(0, 256, (1 + chunk % 2, 4, 5, 3), dtype=np.uint8)
        far.write(chunk, frames)
        read = near.read(chunk, frames.shape)
        far.write(chunk + 3, np.zeros((2, 4, 5, 3), np.uint8))  # the same slot, later
        assert np.array_equal(read, frames)
    with pytest.raises(ValueError, match="do not fit"):
        far.write(0, np.zeros((3, 4, 5, 3), np.uint8))
    with pytest.raises(ValueError, match="do not fit"):
        near.read(0, (3, 4, 5, 3))
    far.close()
    near.remove()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("num_stages", "counts"), [(1, [4]), (2, [2, 2]), (3, [1, 1, 2]), (4, [1, 1, 1, 1])]
)
def test_steps_are_cut_evenly(num_stages: int, counts: list[int]) -> None:
    plan = load_plan("pocket")
    cut = cut_evenly(plan, num_stages)
    assert [len(stage.steps) for stage in cut.stages] == counts
    assert cut.steps == plan.steps


@pytest.mark.parametrize("num_stages", [0, 5])
def test_more_stages_than_steps_are_refused(num_stages: int) -> None:
    with pytest.raises(PlanError, match=r"4 steps.*choose 1\.\.4"):
        cut_evenly(load_plan("pocket"), num_stages)
