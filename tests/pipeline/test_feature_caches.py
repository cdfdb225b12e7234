"""SortBlock and ClusCa: what they run, and that every placement makes the same of it."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.errors import PlanError
from pipeline.plan import Plan, StageSpec, Step
from pipeline.plugins.contract import Decision
from pipeline.plugins.registry import make_plugins
from pipeline.plugins.sortblock import SortBlock
from pipeline.route import ShortRoute
from pipeline.stage import ChunkWork, SessionInputs
from pipeline.staged_chain import ChainSettings, StagedChain
from pipeline.thread_host import ThreadHost
from tests.support.plugged import (
    every_placement,
    latents_of,
    plugged_chain,
    plugged_recipes,
    plugged_stage,
    with_plugins,
)
from tests.support.small_chain import FRAMES, levels_apart, run, small_inputs, small_works
from tests.support.toy_stages import same
from video.block_cache import SomeBlocks

pytestmark = pytest.mark.stream

FULL, PARTIAL = Decision.FULL, Decision.PARTIAL
LEVELS = (1.0, 0.95, 0.9, 0.84, 0.76, 0.66, 0.5, 0.3, 0.0)
EACH: dict[str, dict[str, Any]] = {
    "sortblock": {"rho": 0.5, "warmup": 2, "interval": 3, "cooldown": 1},
    "clusca": {"clusters": 4, "weight": 0.1, "warmup": 2, "interval": 3, "cooldown": 1},
}
INPUTS = small_inputs("a", 5)
WORKS = small_works(INPUTS, 6)


def plan_with(**plugins: dict[str, Any]) -> Plan:
    """Eight Euler steps that may all run in part."""
    steps = tuple(
        Step(sigma_in=a, sigma_out=b, forecast=True) for a, b in itertools.pairwise(LEVELS)
    )
    plan = Plan(name="small", stages=(StageSpec(name="all", steps=steps),))
    return with_plugins(plan, **plugins)


def apart(made: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(made, wanted, strict=True))


def test_marks_are_full_at_the_ends_and_refresh_in_between() -> None:
    legs = plan_with().legs(0)
    marks = SortBlock(warmup=2, interval=3, cooldown=1).marks(legs)
    assert marks == (FULL, FULL, PARTIAL, PARTIAL, FULL, PARTIAL, PARTIAL, FULL)
    two = SortBlock(warmup=3, interval=2, cooldown=2).marks(legs)
    assert two == (FULL, FULL, FULL, PARTIAL, FULL, PARTIAL, FULL, FULL)


def test_two_steps_are_full_after_a_break() -> None:
    plan = plan_with()
    steps = [replace(s, adapter="x") if k > 3 else s for k, s in enumerate(plan.steps)]
    broken = replace(plan, stages=(StageSpec(name="all", steps=tuple(steps)),))
    marks = SortBlock(warmup=2, interval=3, cooldown=1).marks(broken.legs(0))
    assert marks == (FULL, FULL, PARTIAL, PARTIAL, FULL, FULL, PARTIAL, FULL)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sortblock", {"rho": 1.0, "warmup": 2, "cooldown": 1}),
        ("clusca", {"clusters": 4096, "warmup": 8}),
    ],
)
def test_running_everything_changes_nothing(name: str, options: dict[str, Any]) -> None:
    plain = latents_of(plan_with(), INPUTS, WORKS)
    assert apart(latents_of(plan_with(**{name: options}), INPUTS, WORKS), plain) == 0.0


@pytest.mark.parametrize("name", sorted(EACH))
def test_running_in_part_stays_near(name: str) -> None:
    plain = latents_of(plan_with(), INPUTS, WORKS)
    error = apart(latents_of(plan_with(**{name: EACH[name]}), INPUTS, WORKS), plain)
    assert 0.0 < error < 0.5


@pytest.mark.parametrize("name", sorted(EACH))
def test_every_placement_makes_the_same_pictures(name: str) -> None:
    first, *others = every_placement(plan_with(**{name: EACH[name]}), INPUTS, WORKS)
    assert all(same(made, first) for made in others)


@pytest.mark.parametrize("name", sorted(EACH))
def test_lanes_of_two_sessions_make_what_each_makes_alone(name: str) -> None:
    plan = plan_with(**{name: EACH[name]})
    sessions = (INPUTS, small_inputs("b", 6))
    alone = [latents_of(plan, inputs, small_works(inputs, 4)) for inputs in sessions]
    together = side_by_side(plan, sessions)
    for made, wanted in zip(together, alone, strict=True):
        assert apart(made, wanted) <= 1e-5


def side_by_side(plan: Plan, sessions: Sequence[SessionInputs]) -> list[list[torch.Tensor]]:
    """Chunks of all sessions, each step of all in one call."""
    stage = plugged_stage(plan)
    made: list[list[torch.Tensor]] = [[] for _ in sessions]
    for inputs in sessions:
        stage.prepare(inputs)
    for works in zip(*(small_works(inputs, 4) for inputs in sessions), strict=True):
        going = list(works)
        while not all(stage.is_through(work) for work in going):
            going = stage.advance(going)
        for latents, work in zip(made, going, strict=True):
            latents.append(work.latent.latents_CTHW)
    return made


@pytest.mark.parametrize("name", sorted(EACH))
def test_lanes_of_one_session_make_nearly_the_same_pictures(name: str) -> None:
    plan = plan_with(**{name: EACH[name]})
    alone = run(plugged_chain(plan), INPUTS, WORKS)
    assert levels_apart(run(plugged_chain(plan, "lanes"), INPUTS, WORKS), alone) <= 1


@pytest.mark.parametrize("name", sorted(EACH))
def test_a_session_goes_on_elsewhere_with_chunks_under_way(name: str) -> None:
    plan = plan_with(**{name: EACH[name]})
    whole = run(plugged_chain(plan), INPUTS, WORKS)
    first, second = plugged_chain(plan, "pipelined", 3), plugged_chain(plan, "pipelined", 4)
    first.prepare(INPUTS)
    made = [video for work in WORKS[:3] for video in first.submit(work)]
    second.prepare(INPUTS)
    second.import_state("a", first.export_state("a"))
    made += [video for work in WORKS[3:] for video in second.submit(work)]
    assert same(made + second.drain("a"), whole)


@pytest.mark.parametrize("name", sorted(EACH))
def test_stages_that_send_each_other_messages_make_the_same_pictures(
    name: str, tmp_path: Path
) -> None:
    """What was seen of blocks travels over sockets, in checkpoints and back."""
    plan = plan_with(**{name: EACH[name]})
    settings = ChainSettings(pictures_per_chunk=4 * FRAMES, transport="unix", checkpoint_chunks=2)
    folder = tmp_path / "c"
    folder.mkdir()
    chain = StagedChain(ThreadHost(), plugged_recipes(plan, 3), folder, settings)
    try:
        assert same(run(chain, INPUTS, WORKS), run(plugged_chain(plan), INPUTS, WORKS))
    finally:
        chain.close()


def layers_run(works: Sequence[ChunkWork], monkeypatch: pytest.MonkeyPatch) -> list[frozenset[int]]:
    """Which layers each partial pass was told to run, in order."""
    seen: list[frozenset[int]] = []
    init = SomeBlocks.__init__

    def note(self: SomeBlocks, memory: Any, layers: frozenset[int]) -> None:
        seen.append(layers)
        init(self, memory, layers)

    monkeypatch.setattr(SomeBlocks, "__init__", note)
    latents_of(plan_with(sortblock=EACH["sortblock"]), INPUTS, works)
    return seen


def test_later_chunks_run_the_blocks_that_the_first_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks that follow are made to differ wildly, so that they would choose otherwise."""
    wild = [replace(work, cond_CTHW=(9.0 * k) * work.cond_CTHW) for k, work in enumerate(WORKS)]
    seen = layers_run(wild, monkeypatch)
    per_chunk = [seen[k : k + 4] for k in range(0, len(seen), 4)]
    assert len(per_chunk) == len(WORKS)
    assert all(chosen == per_chunk[0] for chosen in per_chunk)
    assert all(len(layers) == 1 for layers in per_chunk[0])


@pytest.mark.parametrize("name", sorted(EACH))
def test_what_was_seen_is_bounded_and_dropped_after_its_last_use(name: str) -> None:
    plan = plan_with(**{name: EACH[name]})
    stage = plugged_stage(plan)
    stage.prepare(INPUTS)
    (work,) = WORKS[:1]
    sizes = []
    while not stage.is_through(work):
        (work,) = stage.advance([work])
        sizes.append(sum(tensor.numel() for tensor in work.carried.values()))
    assert sizes[1] == sizes[4] > 0
    assert sizes[-1] == 0
    assert not work.carried


@pytest.mark.parametrize("name", sorted(EACH))
@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"short": ShortRoute(steps=(0, 7))}, "leave short out"),
        ({"forecast": False}, "set forecast: true"),
        ({"guidance": 2.0}, "is guided"),
        ({"rule": "renoise"}, "draws fresh noise"),
    ],
)
def test_plans_in_which_chunks_would_differ_are_refused(
    name: str, changes: dict[str, Any], complaint: str
) -> None:
    plan = plan_with(**{name: {}})
    if "short" in changes:
        plan = replace(plan, **changes)
    else:
        steps = tuple(replace(step, **changes) for step in plan.steps)
        plan = replace(plan, stages=(StageSpec(name="all", steps=steps),))
    with pytest.raises(PlanError, match=complaint):
        make_plugins(plan)


@pytest.mark.parametrize(
    ("plugins", "complaint"),
    [
        ({"sortblock": {"rho": 2.0}}, "rho 2.0"),
        ({"sortblock": {"warmup": 1}}, "warmup 1"),
        ({"clusca": {"clusters": 0}}, "clusters 0"),
        ({"clusca": {"weight": -1.0}}, "weight -1.0"),
        ({"clusca": {"g": 0.1}}, "g"),
        ({"sortblock": {}, "clusca": {}}, "keep one of them"),
    ],
)
def test_other_options_are_refused(plugins: dict[str, Any], complaint: str) -> None:
    with pytest.raises(PlanError, match=complaint):
        make_plugins(plan_with(**plugins))
