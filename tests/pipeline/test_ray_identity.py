"""The same plan on 1, 2 and 4 Ray actors (and a decoder's) makes the same pictures, bit for bit."""

from collections.abc import Iterator

import pytest
import torch

from pipeline.staged_chain import ChainSettings
from tests.support.leaks import Running
from tests.support.small_chain import (
    FRAMES,
    local_chain,
    run,
    small_inputs,
    small_recipes,
    small_works,
    with_reference,
)
from tests.support.toy_stages import same

pytest.importorskip("ray")

from pipeline.janitor import Janitor
from pipeline.seating import even_seating
from pipeline.supervisor import RayHost, chain_on, ray_cluster

pytestmark = [pytest.mark.ray, pytest.mark.stream]


@pytest.fixture(autouse=True)
def nothing_left_running() -> None:
    """Ray starts and ends processes as it likes; the test looks once it has ended."""


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As in the actors: products are summed in another order by several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_one_two_and_four_actors_make_what_one_process_makes() -> None:
    """The reference changes on the way."""
    before = Running.now()
    inputs = small_inputs("a", 5)
    works = with_reference(small_works(inputs, 8), 3, 17)
    wanted = run(local_chain(1, "sequential"), inputs, works)
    settings = ChainSettings(pictures_per_chunk=4 * FRAMES)
    with Janitor() as janitor, ray_cluster(None, even_seating(5).needs, janitor):
        for num_actors in (1, 2, 4):
            host = RayHost(even_seating(num_actors + 1), janitor)
            recipes = small_recipes(num_actors)
            with chain_on(host, recipes, settings, janitor, is_own=True) as chain:
                assert same(run(chain, inputs, works), wanted), f"{num_actors} actors"
    leaked = Running.now().leaked_since(before)
    assert not leaked, f"still running: {leaked}"
