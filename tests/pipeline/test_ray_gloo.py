"""Ray actors joined by torch.distributed: the same pictures, also when one of them is killed."""

import os
import signal
from collections.abc import Iterator

import pytest

from pipeline.staged_chain import ChainSettings, StagedChain
from pipeline.watch_settings import WatchSettings
from tests.support.leaks import Running
from tests.support.ray_nodes import pid_of
from tests.support.toy_stages import (
    PICTURES,
    same,
    toy_inputs,
    toy_pictures,
    toy_recipes,
    toy_works,
)

pytest.importorskip("ray")

from pipeline.supervisor import open_ray_chain

pytestmark = [pytest.mark.ray, pytest.mark.stream]

# A machine with other work may let a live process wait for longer than usual.
WATCH = WatchSettings(hung_s=60.0)
SETTINGS = ChainSettings(pictures_per_chunk=PICTURES, transport="gloo", watch=WATCH)
SIDE = 64


@pytest.fixture(autouse=True)
def nothing_left_running() -> None:
    """Ray starts and ends processes as it likes; `chain` looks once it has ended."""


@pytest.fixture
def chain() -> Iterator[StagedChain]:
    before = Running.now()
    with open_ray_chain(toy_recipes(2, sleep_s=0.002), SETTINGS) as opened:
        yield opened
    leaked = Running.now().leaked_since(before)
    assert not leaked, f"still running: {leaked}"


def test_a_stage_that_is_killed_is_joined_again_and_no_bit_changes(chain: StagedChain) -> None:
    made = []
    chain.prepare(toy_inputs("a"))
    for index, work in enumerate(toy_works("a", 40, side=SIDE)):
        if index == 17:
            os.kill(pid_of(chain, 1), signal.SIGKILL)
        made += chain.submit(work)
    made += chain.drain("a")
    assert same(made, toy_pictures(2, "a", 40, side=SIDE))
    assert [(lost.position, lost.reason) for lost in chain.controller.replacements] == [(1, "died")]
