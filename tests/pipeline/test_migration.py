"""Another cut in mid-stream: frames go on as if nothing had happened, states move by step."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from chain_stages import JoinedRecipe

from pipeline.chain import LocalChain
from pipeline.chain_recut import ChainRecut
from pipeline.chain_settings import ChainSettings
from pipeline.checkpoint import unpack_messages
from pipeline.cuts import cut_at
from pipeline.device import parse_devices
from pipeline.errors import ModelError
from pipeline.follower import Follower
from pipeline.migration import recut_states
from pipeline.model import Model, load_model
from pipeline.packing import unpack_state
from pipeline.placement import Placement
from pipeline.plan import Plan
from pipeline.plan_parse import load_plan
from pipeline.planner import PlacementRequest, place
from pipeline.recipe import DecodeRecipe, DenoiseRecipe, state_shares
from pipeline.sampler import pure_noise
from pipeline.session_state import SessionState
from pipeline.stage import ChunkWork, SessionInputs
from pipeline.staged_chain import StagedChain
from pipeline.step_cost import Ema, modelled_costs
from pipeline.thread_host import ThreadHost
from tests.support.planning import plan_of as even_plan
from tests.support.planning import work_of
from tests.support.tiny_model import SIZE_PX, build_tiny_model
from tests.support.toy_stages import (
    PICTURES,
    ToyRecipe,
    same,
    toy_inputs,
    toy_pictures,
    toy_works,
)
from video.chunk import VideoChunk

pytestmark = pytest.mark.stream

NAMES = ("a", "b")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model(str(build_tiny_model(tmp_path_factory.mktemp("tiny") / "tiny")))


def plan_of(cuts: list[int]) -> Plan:
    return cut_at(load_plan("pocket"), cuts)


def recipes(model: Model, cuts: list[int]) -> list[Any]:
    """A real network's steps; a toy in place of the decoder, which shows every bit of latents."""
    plan, folder = plan_of(cuts), str(model.folder)
    stages = [DenoiseRecipe(model=folder, plan=plan, index=i) for i in range(len(plan.stages))]
    return [*stages, ToyRecipe(index=4, is_decoder=True)]


def inputs_of(model: Model, session: str) -> SessionInputs:
    generator = torch.Generator().manual_seed(ord(session))
    image_BCHW = torch.rand(1, 3, SIZE_PX, SIZE_PX, generator=generator) * 2 - 1
    return model.session_inputs(image_BCHW, session=session, seed=ord(session), fps=Fraction(25))


def works_of(model: Model, plan: Plan, session: str, num_chunks: int) -> Iterator[ChunkWork]:
    """Chunks whose speech is noise of the session's own."""
    inputs = inputs_of(model, session)
    generator = torch.Generator().manual_seed(100 + ord(session))
    _, channels, _, height, width = inputs.reference_BCTHW.shape
    shape = (channels, plan.frames_per_chunk, height, width)
    pictures = plan.frames_per_chunk * model.codec.frames_per_latent
    for index in range(num_chunks):
        like = torch.zeros(shape)
        yield ChunkWork(
            session=session,
            latent=pure_noise(inputs.seed, index, index * plan.frames_per_chunk, like),
            audio_LCT=torch.randn(1, 14, pictures, generator=generator),
            cond_CTHW=torch.randn(shape, generator=generator),
        )


def undisturbed(model: Model, session: str, num_chunks: int) -> list[VideoChunk]:
    *stages, decoder = (recipe.build() for recipe in recipes(model, [2]))
    chain = LocalChain(stages, decoder)
    chain.prepare(inputs_of(model, session))
    works = works_of(model, plan_of([2]), session, num_chunks)
    return [v for work in works for v in chain.submit(work)] + chain.drain(session)


@contextmanager
def chain_of(model: Model, folder: Path, cuts: list[int], **options: Any) -> Iterator[StagedChain]:
    settings = replace(ChainSettings(pictures_per_chunk=PICTURES, transport="queue"), **options)
    folder.mkdir(exist_ok=True)
    chain = StagedChain(ThreadHost(), recipes(model, cuts), folder, settings)
    try:
        yield chain
    finally:
        chain.close()


@pytest.mark.parametrize("options", [{}, {"keep": "driver"}, {"checkpoint_chunks": 0}])
def test_two_sessions_go_on_in_another_cut_as_if_nothing_had_happened(
    model: Model, tmp_path: Path, options: dict[str, Any]
) -> None:
    num_chunks, plan = 12, plan_of([2])
    works = {name: list(works_of(model, plan, name, num_chunks)) for name in NAMES}
    made: dict[str, list[VideoChunk]] = {name: [] for name in NAMES}
    with chain_of(model, tmp_path / "chain", [2], **options) as chain:
        for name in NAMES:
            chain.prepare(inputs_of(model, name))
        for index in range(num_chunks):
            if index == 5:  # with chunks of both under way
                ChainRecut(chain).to(recipes(model, [3]))
                assert [len(s.recipe.plan.stages[s.recipe.index].steps) for s in specs(chain)] == [
                    3,
                    1,
                ]
            for name in NAMES if index % 2 else reversed(NAMES):
                made[name] += chain.submit(works[name][index])
        for name in NAMES:
            made[name] += chain.drain(name)
        assert chain.controller.replacements == []
    for name in NAMES:
        assert same(made[name], undisturbed(model, name, num_chunks))


def specs(chain: StagedChain) -> list[Any]:
    return [slot.spec for slot in chain.controller.slots[:-1]]


def test_nodes_of_the_new_cut_heal_like_those_of_the_old(model: Model, tmp_path: Path) -> None:
    """Any number of stages to any other, senders that do not stop, and deaths before and after."""
    num_chunks, plan = 24, plan_of([2])
    made: dict[str, list[VideoChunk]] = {name: [] for name in NAMES}

    def run(chain: StagedChain, name: str) -> None:
        for work in works_of(model, plan, name, num_chunks):
            made[name] += chain.submit(work)
        made[name] += chain.drain(name)

    with chain_of(model, tmp_path / "chain", [1, 2]) as chain:
        for name in NAMES:
            chain.prepare(inputs_of(model, name))
        threads = [threading.Thread(target=run, args=(chain, name)) for name in NAMES]
        for thread in threads:
            thread.start()
        for cuts in ([2], [], [1, 2, 3]):
            chain.controller.kill(0)
            chain.controller.kill(len(chain.names) - 1)
            ChainRecut(chain).to(recipes(model, cuts))
            chain.controller.kill(len(chain.names) - 1)
            chain.controller.kill(0)
        for thread in threads:
            thread.join()
        assert not [path for path in (tmp_path / "chain").glob("state[012]-*") if path.is_dir()]
    for name in NAMES:
        assert same(made[name], undisturbed(model, name, num_chunks))


def test_a_cut_that_cannot_be_built_leaves_all_as_it_was(model: Model, tmp_path: Path) -> None:
    num_chunks, plan = 8, plan_of([2])
    made = []
    with chain_of(model, tmp_path / "chain", [2]) as chain:
        chain.prepare(inputs_of(model, "a"))
        for index, work in enumerate(works_of(model, plan, "a", num_chunks)):
            if index == 4:
                odd = [*recipes(model, [3])[:-1], ToyRecipe(index=4, cannot_be_built=True)]
                with pytest.raises(ModelError, match="broken"):
                    ChainRecut(chain).to(odd)
            made += chain.submit(work)
        made += chain.drain("a")
    assert same(made, undisturbed(model, "a", num_chunks))


def toys_of(placement: Placement) -> list[Any]:
    """A toy for each step, those of one stage in one place."""
    stages = [
        JoinedRecipe(parts=tuple(ToyRecipe(index=step) for step in range(stage.first, stage.end)))
        for stage in placement.stages
        if not stage.decodes
    ]
    return [*stages, ToyRecipe(index=4, is_decoder=True)]


def test_a_chain_that_is_followed_cuts_itself_anew_when_its_times_have_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = work_of(4)
    request = PlacementRequest(
        plan=even_plan(4),
        work=work,
        costs=modelled_costs(work),
        cluster=parse_devices("cuda:80GiB x2"),
        decoder="share",
    )
    follower = Follower(request, place(request))
    settings = ChainSettings(pictures_per_chunk=PICTURES, transport="queue")
    made: dict[str, list[VideoChunk]] = {name: [] for name in NAMES}
    decisions = []
    chain = StagedChain(ThreadHost(), toys_of(follower.running), tmp_path, settings)
    try:
        slow_end = [Ema(value_ms=ms, num_samples=50) for ms in (200.0, 700.0, 10.0)]
        monkeypatch.setattr(chain.controller, "paces", lambda: slow_end)
        for name in NAMES:
            chain.prepare(toy_inputs(name))
        for second, works in enumerate(zip(*(toy_works(n, 70) for n in NAMES), strict=True)):
            decision = ChainRecut(chain).follow(follower, toys_of, float(second))
            if decision is not None and decision.placement is not None:
                decisions.append(decision)
                slow_end[:] = [Ema(value_ms=ms, num_samples=50) for ms in (400.0, 400.0, 10.0)]
            for item in works:
                made[item.session] += chain.submit(item)
        for name in NAMES:
            made[name] += chain.drain(name)
    finally:
        chain.close()
    assert len(decisions) == 1
    assert chain.names == ("0-toy0+toy1+toy2", "1-toy3", "2-toy4")
    assert [stage.end for stage in follower.running.stages] == [3, 4, 4]
    for name in NAMES:
        assert same(made[name], toy_pictures(4, name, 70))


def exported(span: range) -> SessionState:
    return SessionState.of({f"step{step}": {"keys": torch.full((2,), step)} for step in span})


@pytest.mark.parametrize("before", [[2], [3], [], [1, 2, 3]])
@pytest.mark.parametrize("after", [[2], [3], [], [1, 2, 3]])
def test_every_lane_goes_where_its_step_is(before: list[int], after: list[int]) -> None:
    edges = [0, *before, 4]
    states = [exported(range(a, b)) for a, b in pairwise(edges)]
    states.append(SessionState(numbers={"decoder/shown": 3}))
    plan = plan_of(after)
    stages = [DenoiseRecipe(model="m", plan=plan, index=i) for i in range(len(plan.stages))]
    shares = state_shares([*stages, DecodeRecipe(model="m")])
    kept = recut_states(states, shares, session="a", epoch=1, chunk=7)
    found = [unpack_state(unpack_messages(entry.data)[0]) for entry in kept.values()]
    edges = [0, *after, 4]
    for state, first, end in zip(found[:-1], edges, edges[1:], strict=False):
        expected = exported(range(first, end)).tensors
        assert state.tensors.keys() == expected.keys()
        assert all(torch.equal(state.tensors[name], expected[name]) for name in expected)
    assert found[-1].numbers == {"decoder/shown": 3}
    assert {entry.chunk for entry in kept.values()} == {7}
    assert list(kept) == [(1, position) for position in range(len(shares))]


def test_states_of_another_plan_are_refused() -> None:
    with pytest.raises(ValueError, match="nothing of step2, step3"):
        recut_states(
            [exported(range(2))], [{"step0"}, {"step2", "step3"}], session="a", epoch=1, chunk=0
        )
