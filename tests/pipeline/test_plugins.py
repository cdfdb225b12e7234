"""What every plug-in is held to: refusals by name, its own memory, nothing of other lanes."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch

from pipeline.chain import LocalChain
from pipeline.cuts import cut_at
from pipeline.denoise_stage import DenoiseStage
from pipeline.errors import PlanError
from pipeline.plan import PluginSpec
from pipeline.plugins.contract import Decision, PlainPlugin, Plugin, StepContext
from pipeline.plugins.referee import PluginFault
from pipeline.plugins.registry import PLUGINS, make_plugins
from pipeline.stage import ChunkWork
from tests.support.plugged import plan_of, plugged_chain
from tests.support.small_chain import (
    CUTS,
    PlainCodec,
    denoiser,
    run,
    small_inputs,
    small_works,
)
from tests.support.toy_stages import same
from video.block_cache import BlockRunner

pytestmark = pytest.mark.stream

# Made-up plug-ins use what they are given or not.
# ruff: noqa: ARG002

SIGMAS = (1.0, 0.8, 0.5, 0.2, 0.0)
PLAN = plan_of(SIGMAS)
INPUTS = small_inputs("a", 5)
WORKS = small_works(INPUTS, 5)


def stage_with(*plugins: Plugin) -> DenoiseStage:
    return DenoiseStage(replace(denoiser(), plugins=plugins), PLAN, 0)


def steps_of(stage: DenoiseStage, works: Sequence[ChunkWork] = WORKS[:1]) -> list[ChunkWork]:
    stage.prepare(INPUTS)
    return [stage.process(work) for work in works]


class Meddler(PlainPlugin):
    """Does nothing until a test gives it bad manners."""

    name = "meddler"


class Skipping(Meddler):
    def before_step(self, ctx: StepContext) -> Decision:
        return Decision.SKIP if ctx.leg.index == 1 else Decision.FULL


class Shrinking(Meddler):
    def transform_velocity(self, ctx: StepContext, velocity_CTHW: torch.Tensor) -> torch.Tensor:
        return velocity_CTHW[:, :1]


class Mispredicting(Skipping):
    skips = True

    def predict(self, ctx: StepContext) -> torch.Tensor:
        return torch.zeros(1)


class Shouting(Meddler):
    def network_sigma(self, ctx: StepContext) -> float:
        return 700.0


class Squatting(Meddler):
    def after_step(self, ctx: StepContext, velocity_CTHW: torch.Tensor) -> None:
        ctx.lane_memory["omegance.count"] = torch.zeros(1)


class Running(Meddler):
    def block_runner(self, ctx: StepContext) -> BlockRunner:
        return lambda block, x, times, attend, text: block(x, times, attend, text)


class AlsoRunning(Running):
    name = "other"


@pytest.mark.parametrize(
    ("plugins", "complaint"),
    [
        ((Skipping(),), "plug-in meddler skips step 1 but says that it skips none"),
        ((Shrinking(),), r"plug-in meddler made a velocity of \(4, 1, 4, 6\)"),
        ((Mispredicting(),), r"plug-in meddler made a velocity of \(1,\)"),
        ((Shouting(),), "plug-in meddler tells the network sigma 700"),
        ((Squatting(),), "remembers 'omegance.count'"),
        ((Running(), AlsoRunning()), "plug-ins meddler and other would both run the blocks"),
    ],
)
def test_a_plugin_that_misbehaves_is_named(plugins: tuple[Plugin, ...], complaint: str) -> None:
    with pytest.raises(PluginFault, match=complaint) as refused:
        steps_of(stage_with(*plugins))
    assert "\n" not in str(refused.value)


def test_a_plugin_that_runs_the_blocks_as_they_are_changes_no_bit() -> None:
    plain, ran = steps_of(stage_with()), steps_of(stage_with(Running()))
    assert torch.equal(plain[0].latent.latents_CTHW, ran[0].latent.latents_CTHW)


def test_an_unknown_plugin_is_refused_with_the_known_ones() -> None:
    with pytest.raises(PlanError, match=r"plug-in 'fly' is unknown: use one of .*omegance.*sortbl"):
        make_plugins(plan_of(SIGMAS, fly={}))


@pytest.mark.parametrize("name", sorted(PLUGINS))
def test_every_plugin_refuses_options_that_it_does_not_have(name: str) -> None:
    with pytest.raises(PlanError, match=f"plug-in {name}: option 'nonsense' is unknown") as refused:
        make_plugins(plan_of(SIGMAS, **{name: {"nonsense": 1}}))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", sorted(PLUGINS))
def test_no_plugin_may_be_named_twice(name: str) -> None:
    twice = replace(PLAN, plugins=(PluginSpec(name=name), PluginSpec(name=name)))
    with pytest.raises(PlanError, match=f"plug-in {name} is named twice"):
        make_plugins(twice)


def test_two_that_keep_steps_from_running_are_refused() -> None:
    steps = tuple(replace(step, forecast=True) for step in PLAN.steps)
    plan = replace(PLAN, stages=(replace(PLAN.stages[0], steps=steps),))
    both = (PluginSpec(name="sortblock"), PluginSpec(name="clusca"))
    with pytest.raises(PlanError, match="sortblock and clusca would both decide"):
        make_plugins(replace(plan, plugins=both))


@dataclass(frozen=True)
class Counting(PlainPlugin):
    """Adds to the velocity how often it was at this step, and at this chunk's steps, before.

    `seen` is what a test looks at: what each step of each session found in both memories.
    """

    seen: list[tuple[str, int, int, float, float]] = field(default_factory=list)
    name = "counting"

    def transform_velocity(self, ctx: StepContext, velocity_CTHW: torch.Tensor) -> torch.Tensor:
        of_lane, of_chunk = (
            float(memory.get("counting.times", torch.zeros(())))
            for memory in (ctx.lane_memory, ctx.chunk_memory)
        )
        self.seen.append((ctx.session, ctx.chunk, ctx.leg.index, of_lane, of_chunk))
        ctx.lane_memory["counting.times"] = torch.tensor(of_lane + 1.0)
        ctx.chunk_memory["counting.times"] = torch.tensor(of_chunk + 1.0)
        return velocity_CTHW + 0.01 * of_lane + 0.02 * of_chunk


def counted(kind: Any, num_stages: int) -> tuple[LocalChain, Counting]:
    plugin = Counting()
    network = replace(denoiser(), plugins=(plugin,))
    cut = cut_at(PLAN, CUTS[num_stages])
    return LocalChain.from_plan(cut, network, PlainCodec(), schedule=kind), plugin  # type: ignore[arg-type]  # its state is its own kind


@pytest.mark.parametrize(("kind", "stages"), [("sequential", 1), ("pipelined", 4), ("lanes", 1)])
def test_a_step_sees_its_own_lane_and_its_own_chunk_alone(kind: str, stages: int) -> None:
    """At step k of chunk n the lane was used n times, the chunk k times, whatever is beside."""
    chain, plugin = counted(kind, stages)
    other = small_inputs("b", 6)
    for inputs in (INPUTS, other):
        chain.prepare(inputs)
    for mine, theirs in zip(WORKS, small_works(other, 5), strict=True):
        chain.submit(mine)
        chain.submit(theirs)
    for session in ("a", "b"):
        chain.drain(session)
    assert len(plugin.seen) == 2 * len(WORKS) * len(PLAN.steps)
    for _, chunk, step, of_lane, of_chunk in plugin.seen:
        assert (of_lane, of_chunk) == (chunk, step)


def test_memories_go_along_when_a_session_moves_on_the_way() -> None:
    whole = run(counted("sequential", 1)[0], INPUTS, WORKS)
    first, second = counted("pipelined", 3)[0], counted("pipelined", 4)[0]
    first.prepare(INPUTS)
    made = [video for work in WORKS[:3] for video in first.submit(work)]
    state = first.export_state("a")
    second.prepare(INPUTS)
    second.import_state("a", state)
    made += [video for work in WORKS[3:] for video in second.submit(work)]
    assert same(made + second.drain("a"), whole)


def test_without_its_memories_a_session_would_go_on_otherwise() -> None:
    """The test above can fail: the counts show in the pictures."""
    whole = run(counted("sequential", 1)[0], INPUTS, WORKS)
    plain = run(plugged_chain(PLAN), INPUTS, WORKS)
    assert not same(whole, plain)


def test_invalidate_forgets_a_plugins_own_entries_alone() -> None:
    memory = {"counting.times": torch.zeros(()), "countingmore.x": torch.zeros(())}
    Counting().invalidate(memory, "a break")
    assert set(memory) == {"countingmore.x"}


def test_a_step_changes_no_memory_of_the_chunk_that_came() -> None:
    """A batch that fails is done again, chunk by chunk, from what came."""
    stage = stage_with(Counting())
    stage.prepare(INPUTS)
    (once,) = stage.advance([WORKS[0]])
    assert float(once.carried["counting.times"]) == 1.0
    assert not WORKS[0].carried
