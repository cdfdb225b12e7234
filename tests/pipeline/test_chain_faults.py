"""Whatever dies, whenever and however much at once: sessions go on and no picture changes."""

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.chain_events import Gap, NodeLost, Replacement
from pipeline.chain_state import ChainState
from pipeline.errors import ChainDown, ChainDraining, ChainError
from pipeline.host import NodeSpec
from pipeline.stage import ChunkWork
from pipeline.staged_chain import StagedChain
from pipeline.thread_host import ThreadHandle, ThreadHost
from tests.support.toy_chains import chain_of, stream
from tests.support.toy_stages import (
    ToyRecipe,
    ToyStage,
    same,
    toy_inputs,
    toy_pictures,
    toy_recipes,
    toy_works,
)

pytestmark = pytest.mark.stream

SEEDS = {"a": 1, "b": 2, "c": 3}
NUM_FAULTS = 20


def kill_all(chain: StagedChain) -> None:
    """What the end of a machine is: every stage gone at once, and all that they knew."""
    for position in range(chain.controller.num_nodes):
        chain.controller.kill(position)


@pytest.mark.parametrize(("keep", "seed"), [("shared", 1), ("driver", 2)])
def test_twenty_faults_of_one_to_all_stages_change_no_picture(
    tmp_path: Path, keep: str, seed: int
) -> None:
    rng = random.Random(seed)  # noqa: S311 - faults, no secrets
    num_chunks = 6 * NUM_FAULTS
    when = set(rng.sample(range(1, num_chunks), NUM_FAULTS))

    with chain_of(tmp_path, toy_recipes(3, sleep_s=0.0005), keep=keep) as chain:

        def fault(index: int) -> None:
            if index in when:
                for position in rng.sample(range(4), rng.choice((1, 1, 1, 2, 3, 4))):
                    chain.controller.kill(position)

        made = stream(chain, SEEDS, num_chunks, fault)
        assert chain.controller.state is ChainState.RUNNING
        told = chain.events()
        replaced = [event for event in told if isinstance(event, Replacement)]
        assert len(replaced) >= NUM_FAULTS // 2
        assert len(replaced) == sum(isinstance(event, NodeLost) for event in told)
    for name, seed_of in SEEDS.items():
        assert same(made[name], toy_pictures(3, name, num_chunks, seed_of))


@pytest.mark.parametrize("num_stages", [1, 7])
def test_a_machine_that_goes_again_and_again_takes_no_picture_with_it(
    tmp_path: Path, num_stages: int
) -> None:
    """With copies in the driver nothing of a stage is left but what the driver has."""
    with chain_of(tmp_path, toy_recipes(num_stages), keep="driver") as chain:
        made = stream(chain, SEEDS, 60, lambda i: kill_all(chain) if i % 20 == 9 else None)
        assert not list(tmp_path.rglob("*.state"))
    for name, seed in SEEDS.items():
        assert same(made[name], toy_pictures(num_stages, name, 60, seed))


def test_a_chain_moves_to_another_host_with_all_its_sessions(tmp_path: Path) -> None:
    with chain_of(tmp_path, toy_recipes(3), keep="driver") as chain:
        made = stream(
            chain, SEEDS, 40, lambda i: chain.move_to(ThreadHost()) if i in (1, 22) else None
        )
        assert {r.reason for r in chain.controller.replacements} == {"left behind"}
        assert chain.controller.state is ChainState.RUNNING
    for name, seed in SEEDS.items():
        assert same(made[name], toy_pictures(3, name, 40, seed))


class DoomedHost(ThreadHost):
    """A machine that takes stages once, and none any more after that."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self._room = room

    def spawn(self, spec: NodeSpec) -> ThreadHandle:
        if not self._room:
            raise ChainError("no machine is left")
        self._room -= 1
        return super().spawn(spec)


def test_a_chain_whose_place_is_gone_is_placed_again_elsewhere(tmp_path: Path) -> None:
    hosts = [DoomedHost(4), DoomedHost(4)]
    with chain_of(
        tmp_path,
        toy_recipes(3),
        host=DoomedHost(4),
        another_host=lambda: hosts.pop(),
        keep="driver",
    ) as chain:
        made = stream(chain, SEEDS, 60, lambda i: kill_all(chain) if i in (20, 40) else None)
    assert not hosts
    for name, seed in SEEDS.items():
        assert same(made[name], toy_pictures(3, name, 60, seed))


def test_a_chain_that_finds_no_place_says_why(tmp_path: Path) -> None:
    with chain_of(tmp_path, toy_recipes(1), host=DoomedHost(2), keep="driver") as chain:
        with pytest.raises(ChainDown, match="no machine is left"):
            stream(chain, SEEDS, 60, lambda i: kill_all(chain) if i == 20 else None)
        assert chain.controller.state is ChainState.FAILED
        with pytest.raises(ChainDown, match="no machine is left"):
            chain.move_to(ThreadHost())


def test_a_session_that_came_from_elsewhere_survives_its_new_machine_too(tmp_path: Path) -> None:
    works, folder = toy_works("a", 40), tmp_path / "other"
    folder.mkdir()
    with chain_of(tmp_path, toy_recipes(2)) as first:
        first.prepare(toy_inputs("a"))
        made = [v for work in works[:13] for v in first.submit(work)]
        state = first.export_state("a")
    with chain_of(folder, toy_recipes(2), keep="driver") as second:
        second.prepare(toy_inputs("a"))
        second.import_state("a", state)
        for index, work in enumerate(works[13:]):
            if index in (0, 2, 11):
                kill_all(second)
            made += second.submit(work)
        made += second.drain("a")
    assert same(made, toy_pictures(2, "a", 40))


class GatedHost(ThreadHost):
    """Makes stages only while the gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()

    def spawn(self, spec: NodeSpec) -> ThreadHandle:
        assert self.gate.wait(60)
        return super().spawn(spec)


class Clock:
    """Time that passes when told."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


def wait_for(holds: Callable[[], bool]) -> None:
    tick = threading.Event()
    for _ in range(6000):
        if holds():
            return
        tick.wait(0.01)
    raise AssertionError("it never came")


def test_a_late_session_is_told_while_the_stage_is_missing_and_when_it_is_back(
    tmp_path: Path,
) -> None:
    host, clock = GatedHost(), Clock()
    with chain_of(tmp_path, toy_recipes(2), host=host, clock_ns=clock) as chain:
        for name in ("a", "idle"):
            chain.prepare(toy_inputs(name))
        works = toy_works("a", 10)
        for work in works[:5]:
            chain.submit(work)
        chain.drain("a")
        assert not chain.events()
        host.gate.clear()
        chain.controller.kill(1)
        wait_for(lambda: chain.controller.handles()[1] is None)
        chain.submit(works[5])
        (lost,) = chain.events()
        assert lost == NodeLost(position=1, name="1-toy1", reason="died")
        clock.now_ns = 2_000_000_000  # chunk 5 was due after 6 * 160 ms
        (begun,) = chain.events()
        assert begun == Gap(
            session="a",
            first_chunk=5,
            last_chunk=5,
            cause="stage 1-toy1 died",
            late_s=1.04,
            is_over=False,
        )
        assert not chain.events()
        host.gate.set()
        chain.drain("a")
        wait_for(lambda: chain.controller.state is ChainState.RUNNING)
        healed, over = sorted(chain.events(), key=lambda event: isinstance(event, Gap))
        assert isinstance(healed, Replacement)
        assert isinstance(over, Gap)
        assert (over.session, over.last_chunk, over.late_s, over.is_over) == ("a", 5, 1.04, True)


def test_a_chain_that_is_shut_down_lets_out_what_it_took_and_takes_nothing_more(
    tmp_path: Path,
) -> None:
    works = toy_works("a", 10)
    with chain_of(tmp_path, toy_recipes(3, sleep_s=0.02)) as chain:
        chain.prepare(toy_inputs("a"))
        made = [v for work in works[:5] for v in chain.submit(work)]
        chain.begin_drain()
        chain.controller.kill(1)  # a chain that drains heals, too
        with pytest.raises(ChainDraining, match="takes nothing new"):
            chain.submit(works[5])
        with pytest.raises(ChainDraining, match="takes nothing new"):
            chain.prepare(toy_inputs("b"))
        assert chain.shut_down(60)
        assert chain.controller.state is ChainState.CLOSED
        made += chain.drain("a")
        with pytest.raises(ChainDown, match="closed"):
            chain.prepare(toy_inputs("b"))
    assert same(made, toy_pictures(3, "a", 5))


def test_whoever_waits_for_room_hears_of_the_end_at_once(tmp_path: Path) -> None:
    host = GatedHost()
    with chain_of(tmp_path, toy_recipes(1), host=host, window=1) as chain:
        chain.prepare(toy_inputs("a"))
        host.gate.clear()
        chain.controller.kill(0)
        works = toy_works("a", 2)
        chain.submit(works[0])  # which cannot come out before the gate opens
        timer = threading.Timer(0.2, chain.begin_drain)
        timer.start()
        with pytest.raises(ChainDraining):
            chain.submit(works[1])
        timer.join()
        host.gate.set()


def test_a_shut_down_has_an_end_even_if_a_stage_has_none(tmp_path: Path) -> None:
    with chain_of(tmp_path, toy_recipes(1, sleep_s=0.8)) as chain:
        chain.prepare(toy_inputs("a"))
        for work in toy_works("a", 3):
            chain.submit(work)
        assert not chain.shut_down(0.05)
        assert chain.controller.state is ChainState.CLOSED


class MadStage(ToyStage):
    """Fails in a way that is no session's fault."""

    def process(self, work: ChunkWork) -> ChunkWork:
        if work.latent.index == 5:
            raise AttributeError("this stage is mad")
        return super().process(work)


@dataclass(frozen=True, slots=True, kw_only=True)
class MadRecipe(ToyRecipe):
    def build(self) -> ToyStage:
        return MadStage(self)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_stage_that_fails_by_itself_is_replaced_until_that_is_of_no_use(tmp_path: Path) -> None:
    recipes = [MadRecipe(index=0), *toy_recipes(1)[1:]]
    with chain_of(tmp_path, recipes) as chain:
        with pytest.raises(ChainDown, match=r"0-toy0 was lost \d+ times in a row"):
            stream(chain, {"a": 1}, 20)
        assert chain.controller.state is ChainState.FAILED


def test_without_checkpoints_a_young_session_is_made_again_exactly(tmp_path: Path) -> None:
    """As long as every log reaches back to the session's first chunk."""
    with chain_of(tmp_path, toy_recipes(3), checkpoint_chunks=0, replay_chunks=30) as chain:
        made = stream(chain, SEEDS, 30, lambda i: kill_all(chain) if i in (1, 11, 25) else None)
        assert not list(tmp_path.rglob("*.state"))
    for name, seed in SEEDS.items():
        assert same(made[name], toy_pictures(3, name, 30, seed))
