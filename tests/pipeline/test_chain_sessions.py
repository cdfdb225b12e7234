"""Several sessions on one chain: shares, isolation, admission; threads in place of actors."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from pipeline.admission import DeviceCapacity, Ledger
from pipeline.chain_settings import ChainSettings
from pipeline.doorman import ChainCapacity
from pipeline.errors import ChainFull, ModelError
from pipeline.stage import ChunkWork, SessionInputs
from pipeline.staged_chain import StagedChain
from pipeline.thread_host import ThreadHost
from tests.support.toy_stages import (
    PICTURES,
    ToyRecipe,
    ToyStage,
    same,
    toy_inputs,
    toy_pictures,
    toy_recipes,
    toy_works,
)
from video.chunk import VideoChunk

pytestmark = pytest.mark.stream

NAMES = [f"s{index}" for index in range(8)]


@dataclass
class Gate:
    """Holds a stage until everything is in front of it, and notes whom it then serves."""

    opened: threading.Event = field(default_factory=threading.Event)
    served: list[str] = field(default_factory=list)


class GatedStage(ToyStage):
    def __init__(self, recipe: ToyRecipe, gate: Gate) -> None:
        super().__init__(recipe)
        self._gate = gate

    def process(self, work: ChunkWork) -> ChunkWork:
        self._gate.opened.wait(60)
        self._gate.served.append(work.session)
        return super().process(work)


@dataclass(frozen=True, kw_only=True)
class GatedRecipe:
    """A toy stage behind a gate."""

    toy: ToyRecipe
    gate: Gate

    @property
    def name(self) -> str:
        return self.toy.name

    @property
    def steps_done(self) -> int:
        return self.toy.steps_done

    def build(self) -> GatedStage:
        return GatedStage(self.toy, self.gate)


@contextmanager
def chain_of(folder: Path, recipes: list[Any], **options: Any) -> Iterator[StagedChain]:
    settings = replace(ChainSettings(pictures_per_chunk=PICTURES, transport="queue"), **options)
    chain = StagedChain(ThreadHost(), recipes, folder, settings)
    try:
        yield chain
    finally:
        chain.close()


def await_inbox(chain: StagedChain, num_messages: int) -> None:
    """Until so many messages wait in the first stage."""
    handle = chain.controller.handles()[0]
    assert handle is not None
    until_s = time.monotonic() + 60
    while handle.call("depths").result(10)["inbox"] != num_messages:
        assert time.monotonic() < until_s
        time.sleep(0.01)


def test_eight_sessions_are_served_alike_and_each_sees_what_it_sees_alone(tmp_path: Path) -> None:
    gate, num_chunks = Gate(), 40
    first, *others = toy_recipes(3)
    recipes = [GatedRecipe(toy=first, gate=gate), *others]
    with chain_of(tmp_path, recipes, window=num_chunks) as chain:
        for seed, name in enumerate(NAMES):
            chain.prepare(toy_inputs(name, seed))
        for seed, name in enumerate(NAMES):  # all of one session, then all of the next
            for work in toy_works(name, num_chunks, seed):
                chain.submit(work)
        await_inbox(chain, len(NAMES) * num_chunks - 1)  # one is at work, behind the gate
        gate.opened.set()
        made = {name: chain.drain(name) for name in NAMES}
    for cut in range(len(NAMES), len(gate.served), 7):
        served = Counter(gate.served[: cut + 1])
        assert max(served.values()) - min(served.values()) <= 2
    half = Counter(gate.served[: len(gate.served) // 2])
    assert max(half.values()) / min(half.values()) <= 1.05
    for seed, name in enumerate(NAMES):
        assert same(made[name], toy_pictures(3, name, num_chunks, seed))


def test_one_that_fails_and_one_that_is_slow_to_be_fed_hold_nobody_back(tmp_path: Path) -> None:
    gate = Gate()
    first, *others = toy_recipes(2)
    recipes = [GatedRecipe(toy=replace(first, fails_at=("bad", 0)), gate=gate), *others]
    made: dict[str, list[VideoChunk]] = {}
    with chain_of(tmp_path, recipes, window=20) as chain:
        for name in ("bad", "slow", "a", "b"):
            chain.prepare(toy_inputs(name))
        for name, count in (("bad", 20), ("slow", 1), ("a", 20), ("b", 20)):
            for work in toy_works(name, count):
                chain.submit(work)
        await_inbox(chain, 60)
        gate.opened.set()
        made["a"], made["b"] = chain.drain("a"), chain.drain("b")
        with pytest.raises(ModelError, match="cannot be made"):
            chain.drain("bad")
        made["slow"] = chain.drain("slow")
        for work in toy_works("slow", 3)[1:]:
            made["slow"] += chain.submit(work)
        made["slow"] += chain.drain("slow")
    assert Counter(gate.served) == {"bad": 1, "slow": 3, "a": 20, "b": 20}
    for name, count in (("a", 20), ("b", 20), ("slow", 3)):
        assert same(made[name], toy_pictures(2, name, count))


def test_a_session_beyond_the_room_is_refused_at_once_and_fits_when_another_ends(
    tmp_path: Path,
) -> None:
    ledger = Ledger(devices=(DeviceCapacity(name="card", busy_ms=1.0, slots=3),))
    capacity = ChainCapacity(ledger=ledger, stage_devices=("card", "card", "card"))
    refused: list[ChainFull] = []
    barrier = threading.Barrier(len(NAMES))
    with chain_of(tmp_path, toy_recipes(2), capacity=capacity) as chain:

        def ask(name: str) -> None:
            barrier.wait()
            try:
                chain.prepare(toy_inputs(name))
            except ChainFull as error:
                refused.append(error)

        threads = [threading.Thread(target=ask, args=(name,)) for name in NAMES]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        progress = chain.progress()
        assert len(progress) == 3
        assert len(refused) == len(NAMES) - 3
        assert "card has room for 3 sessions and 3 are in" in str(refused[0])
        assert refused[0].retry_after_s > 0
        name = progress[0].session
        chain.prepare(toy_inputs(name))  # the same again takes its own seat
        chain.reset(name)
        chain.prepare(toy_inputs("later"))
        made = [v for work in toy_works("later", 5) for v in chain.submit(work)]
        made += chain.drain("later")
    assert same(made, toy_pictures(2, "later", 5))


def test_a_session_that_cannot_be_opened_leaves_its_seat(tmp_path: Path) -> None:
    ledger = Ledger(devices=(DeviceCapacity(name="card", busy_ms=1.0, slots=1),))
    capacity = ChainCapacity(ledger=ledger, stage_devices=("card", "card"))
    with chain_of(tmp_path, toy_recipes(1, unwanted_seed=5), capacity=capacity) as chain:
        for _ in range(2):
            with pytest.raises(ModelError, match="not wanted"):
                chain.prepare(toy_inputs("odd", 5))
        chain.prepare(toy_inputs("fine"))


def test_what_stages_were_measured_to_take_keeps_live_sessions_out_and_renders_in(
    tmp_path: Path,
) -> None:
    """Four pictures at 400 a second show for 10 ms; a stage takes more than 6 of them."""

    def live(session: str) -> SessionInputs:
        return replace(toy_inputs(session), fps=Fraction(400), live=True)

    with chain_of(tmp_path, toy_recipes(1, sleep_s=0.006)) as chain:
        chain.prepare(live("first"))
        for work in toy_works("first", 8):
            chain.submit(work)
        chain.drain("first")
        with pytest.raises(ChainFull, match=r"0-toy0 would be busy 1[0-9]{2}%|[2-9][0-9]{2}%"):
            chain.prepare(live("second"))
        chain.prepare(toy_inputs("render"))
        chain.reset("first")


def test_live_sessions_carry_deadlines_and_renders_do_not(tmp_path: Path) -> None:
    now_ns = [10**9]
    settings = ChainSettings(pictures_per_chunk=PICTURES, transport="queue", latency_s=0.5)
    chain = StagedChain(
        ThreadHost(), toy_recipes(1), tmp_path, settings, clock_ns=lambda: now_ns[0]
    )
    try:
        chain.prepare(replace(toy_inputs("live"), live=True))
        chain.prepare(toy_inputs("render"))
        for index in range(3):
            now_ns[0] += 160_000_000
            for name in ("live", "render"):
                chain.submit(toy_works(name, 3)[index])
        for name in ("live", "render"):
            chain.drain(name)
        spans = [s for s in chain.controller.spans() if s.stage.startswith("0")]
    finally:
        chain.close()
    due = {(s.session, s.chunk): s.due_ns for s in spans}
    first_ns = 10**9 + 160_000_000
    assert [due["live", chunk] for chunk in range(3)] == [
        first_ns + chunk * 160_000_000 + 500_000_000 for chunk in range(3)
    ]
    assert {due["render", chunk] for chunk in range(3)} == {0}
