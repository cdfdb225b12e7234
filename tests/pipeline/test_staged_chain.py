"""A staged chain on threads: windows, order, faults, errors; the same code that Ray actors run."""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.chain_state import ChainState
from pipeline.errors import ChainDown, ModelError
from pipeline.staged_chain import ChainSettings, StagedChain
from pipeline.thread_host import ThreadHost
from tests.support.toy_stages import (
    PICTURES,
    ToyRecipe,
    same,
    toy_inputs,
    toy_pictures,
    toy_recipes,
    toy_works,
)
from video.chunk import VideoChunk

pytestmark = pytest.mark.stream

TRANSPORTS = ("queue", "unix", "tcp", "gloo")
# How large latents are: by gloo go those that are large.
SIDES = {"gloo": 64}


@contextmanager
def chain_of(folder: Path, recipes: list[ToyRecipe], **options: Any) -> Iterator[StagedChain]:
    settings = replace(ChainSettings(pictures_per_chunk=PICTURES, transport="queue"), **options)
    threads = threading.active_count()
    chain = StagedChain(ThreadHost(), recipes, folder, settings)
    try:
        yield chain
    finally:
        chain.close()
    assert threading.active_count() == threads
    assert not [path for path in folder.rglob("*") if path.is_socket() or "frames" in path.name]


def submit_all(chain: StagedChain, session: str, num_chunks: int) -> None:
    for work in toy_works(session, num_chunks):
        chain.submit(work)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "chain"
    made.mkdir()
    return made


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("num_stages", [1, 4])
def test_it_makes_what_one_process_makes(folder: Path, transport: str, num_stages: int) -> None:
    side = SIDES.get(transport, 2)
    with chain_of(folder, toy_recipes(num_stages), transport=transport) as chain:
        chain.prepare(toy_inputs("a"))
        made = [v for work in toy_works("a", 30, side=side) for v in chain.submit(work)]
        assert len(made) >= 30 - (num_stages + 3)  # the window is all that may be under way
        made += chain.drain("a")
    assert same(made, toy_pictures(num_stages, "a", 30, side=side))


@pytest.mark.parametrize("checkpoint_chunks", [1, 4])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_killed_stages_are_replaced_and_not_a_bit_changes(
    folder: Path, transport: str, checkpoint_chunks: int
) -> None:
    rng = random.Random(3)  # noqa: S311 - faults, no secrets
    side = SIDES.get(transport, 2)
    works = {name: toy_works(name, 60, seed, side) for name, seed in (("a", 1), ("b", 2))}
    made: dict[str, list[VideoChunk]] = {"a": [], "b": []}
    num_killed = 0
    options = {"transport": transport, "checkpoint_chunks": checkpoint_chunks}
    with chain_of(folder, toy_recipes(3, sleep_s=0.001), **options) as chain:
        for name, seed in (("a", 1), ("b", 2)):
            chain.prepare(toy_inputs(name, seed))
        for index in range(60):
            if index % 9 == 5:  # one, two neighbours, ..., all four
                victims = rng.sample(range(4), 1 + num_killed % 4)
                for victim in victims:
                    chain.controller.kill(victim)
                num_killed += len(victims)
            for name in works:
                made[name] += chain.submit(works[name][index])
        for name in works:
            made[name] += chain.drain(name)
        # A stage that is killed again before its successor is there is replaced once.
        assert 10 < len(chain.controller.replacements) <= num_killed
        assert chain.controller.state is ChainState.RUNNING
    assert same(made["a"], toy_pictures(3, "a", 60, 1, side))
    assert same(made["b"], toy_pictures(3, "b", 60, 2, side))


def test_a_stage_that_fails_a_chunk_ends_that_session_alone(folder: Path) -> None:
    recipes = toy_recipes(3)
    recipes[1] = replace(recipes[1], fails_at=("bad", 5))
    with chain_of(folder, recipes) as chain:
        for name in ("good", "bad"):
            chain.prepare(toy_inputs(name))
        made = []
        with pytest.raises(ModelError, match="chunk 5 cannot be made"):
            submit_all(chain, "bad", 40)
        for work in toy_works("good", 20):
            made += chain.submit(work)
        made += chain.drain("good")
        chain.reset("bad")
        chain.prepare(toy_inputs("bad"))
        again = [v for work in toy_works("bad", 5) for v in chain.submit(work)]
        again += chain.drain("bad")
    assert same(made, toy_pictures(3, "good", 20))
    assert same(again, toy_pictures(3, "bad", 5))


def test_a_session_opened_again_sees_nothing_of_its_former_self(folder: Path) -> None:
    with chain_of(folder, toy_recipes(3, sleep_s=0.005)) as chain:
        for length in (1, 4, 9):
            chain.prepare(toy_inputs("a"))
            for work in toy_works("a", length):
                chain.submit(work)  # and left under way
        chain.prepare(toy_inputs("a", 7))
        made = [v for work in toy_works("a", 9, 7) for v in chain.submit(work)]
        made += chain.drain("a")
    assert same(made, toy_pictures(3, "a", 9, 7))


def test_a_slow_decoder_holds_the_source_back(folder: Path) -> None:
    recipes = toy_recipes(2)
    recipes[-1] = replace(recipes[-1], sleep_s=0.02)
    with chain_of(folder, recipes, window=3) as chain:
        chain.prepare(toy_inputs("a"))
        done = 0
        for index, work in enumerate(toy_works("a", 20)):
            done += len(chain.submit(work))
            assert index + 1 - done <= 3
        assert done + len(chain.drain("a")) == 20


def test_sessions_share_the_chain_evenly(folder: Path) -> None:
    """Eight senders as fast as they can: nobody is a window ahead of anybody for long."""
    names = [f"s{i}" for i in range(8)]
    made: dict[str, list[VideoChunk]] = {name: [] for name in names}
    counts: list[list[int]] = []

    def run(name: str) -> None:
        for work in toy_works(name, 25):
            made[name] += chain.submit(work)
            counts.append([len(made[n]) for n in names])
        made[name] += chain.drain(name)

    with chain_of(folder, toy_recipes(2, sleep_s=0.002)) as chain:
        for name in names:
            chain.prepare(toy_inputs(name))
        threads = [threading.Thread(target=run, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert all(same(made[name], toy_pictures(2, name, 25)) for name in names)
    assert max(max(row) - min(row) for row in counts) <= 2 * 5


def test_a_session_moves_to_another_chain_with_pictures_still_waiting(folder: Path) -> None:
    works = toy_works("a", 30)
    with chain_of(folder, toy_recipes(3)) as first:
        first.prepare(toy_inputs("a"))
        made = [v for work in works[:13] for v in first.submit(work)]
        state = first.export_state("a")
        first.submit(works[13])  # what happens to the first one later must not reach the twin
    other = folder / "other"
    other.mkdir()
    with chain_of(other, toy_recipes(3)) as second:
        second.prepare(toy_inputs("a"))
        second.import_state("a", state)
        for index, work in enumerate(works[13:]):
            if index in (1, 9):  # before the first checkpoint of its own, and later
                second.controller.kill(1)
            made += second.submit(work)
        made += second.drain("a")
    assert same(made, toy_pictures(3, "a", 30))


def test_a_stage_that_cannot_be_built_is_told_at_once(folder: Path) -> None:
    recipes = toy_recipes(2)
    recipes[1] = replace(recipes[1], cannot_be_built=True)
    with pytest.raises(ModelError, match="this toy is broken"), chain_of(folder, recipes):
        pass


def test_a_session_that_cannot_be_opened_leaves_nothing(folder: Path) -> None:
    recipes = toy_recipes(2)
    recipes[1] = replace(recipes[1], unwanted_seed=13)
    with chain_of(folder, recipes) as chain:
        with pytest.raises(ModelError, match="not wanted"):
            chain.prepare(toy_inputs("a", 13))
        assert not list(folder.rglob("frames*"))
        chain.prepare(toy_inputs("a"))
        made = [v for work in toy_works("a", 3) for v in chain.submit(work)] + chain.drain("a")
    assert same(made, toy_pictures(2, "a", 3))


def test_a_chain_that_dies_again_and_again_gives_up(folder: Path) -> None:
    with chain_of(folder, toy_recipes(2, sleep_s=0.2)) as chain:
        chain.prepare(toy_inputs("a"))
        chain.submit(toy_works("a", 1)[0])
        until_s = time.monotonic() + 30
        while chain.controller.state is not ChainState.FAILED and time.monotonic() < until_s:
            chain.controller.kill(0)
            time.sleep(0.01)
        with pytest.raises(ChainDown, match="gives up"):
            chain.drain("a")


def test_a_chain_in_which_nothing_moves_says_so(folder: Path) -> None:
    with chain_of(folder, toy_recipes(1, sleep_s=0.6), stall_s=0.2) as chain:
        chain.prepare(toy_inputs("a"))
        chain.submit(toy_works("a", 1)[0])
        with pytest.raises(ChainDown, match=r"for 0\.2 s"):
            chain.drain("a")


def test_chunks_out_of_order_are_refused(folder: Path) -> None:
    with chain_of(folder, toy_recipes(1)) as chain:
        chain.prepare(toy_inputs("a"))
        with pytest.raises(ValueError, match="in order"):
            chain.submit(toy_works("a", 2)[1])
