"""Real stages after a fault: exact with checkpoints, close without them."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.stage import ChunkWork, SessionInputs
from pipeline.staged_chain import ChainSettings, StagedChain
from pipeline.thread_host import ThreadHost
from tests.support.small_chain import (
    FRAMES,
    levels_apart,
    local_chain,
    run,
    small_inputs,
    small_recipes,
    small_works,
    with_reference,
)
from video.chunk import VideoChunk

pytestmark = pytest.mark.stream

NUM_STAGES, NUM_CHUNKS, FAULT_AT = 2, 18, 13


@pytest.fixture(scope="module")
def inputs() -> SessionInputs:
    return small_inputs("a", 5)


@pytest.fixture(scope="module")
def works(inputs: SessionInputs) -> list[ChunkWork]:
    """Chunks of which the seventh brings another portrait."""
    return with_reference(small_works(inputs, NUM_CHUNKS), 6, 9)


@pytest.fixture(scope="module")
def expected(inputs: SessionInputs, works: list[ChunkWork]) -> list[VideoChunk]:
    return run(local_chain(NUM_STAGES, "sequential"), inputs, works)


def after_fault(
    folder: Path, inputs: SessionInputs, works: list[ChunkWork], lost: range, **options: Any
) -> list[VideoChunk]:
    """All pictures of the session, the stages of `lost` killed on the way."""
    settings = ChainSettings(pictures_per_chunk=4 * FRAMES, transport="queue", window=2, **options)
    chain = StagedChain(ThreadHost(), small_recipes(NUM_STAGES), folder, settings)
    try:
        chain.prepare(inputs)
        made: list[VideoChunk] = []
        for index, work in enumerate(works):
            if index == FAULT_AT:
                for position in lost:
                    chain.controller.kill(position)
            made += chain.submit(work)
        return made + chain.drain(inputs.session)
    finally:
        chain.close()


@pytest.mark.parametrize(("keep", "lost"), [("shared", range(1, 2)), ("driver", range(3))], ids=str)
def test_checkpoints_hold_all_that_a_stage_knows(
    tmp_path: Path,
    inputs: SessionInputs,
    works: list[ChunkWork],
    expected: list[VideoChunk],
    keep: str,
    lost: range,
) -> None:
    """The portrait that came on the way, too."""
    made = after_fault(tmp_path, inputs, works, lost, keep=keep)
    assert levels_apart(made, expected) == 0


def test_without_checkpoints_pictures_are_close_and_none_is_missing(
    tmp_path: Path, inputs: SessionInputs
) -> None:
    works = small_works(inputs, NUM_CHUNKS)
    expected = run(local_chain(NUM_STAGES, "sequential"), inputs, works)
    options = {"checkpoint_chunks": 0, "replay_chunks": 5}
    made = after_fault(tmp_path, inputs, works, range(NUM_STAGES + 1), **options)
    undisturbed = FAULT_AT - 2
    assert levels_apart(made[:undisturbed], expected[:undisturbed]) == 0
    assert levels_apart(made, expected) <= 2


def test_without_checkpoints_all_is_exact_while_logs_reach_back(
    tmp_path: Path,
    inputs: SessionInputs,
    works: list[ChunkWork],
    expected: list[VideoChunk],
) -> None:
    everything = range(NUM_STAGES + 1)
    options = {"checkpoint_chunks": 0, "replay_chunks": NUM_CHUNKS}
    made = after_fault(tmp_path, inputs, works, everything, **options)
    assert levels_apart(made, expected) == 0
