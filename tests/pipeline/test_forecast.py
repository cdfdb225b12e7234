"""The forecasting plug-in: the same pictures in every placement, and as many calls as marked."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.chain import LocalChain, Schedule
from pipeline.cuts import cut_at
from pipeline.decode_stage import DecodeStage
from pipeline.denoise_stage import DenoiseStage
from pipeline.errors import PlanError
from pipeline.plan import Plan, StageSpec, Step
from pipeline.plugins.contract import Decision
from pipeline.plugins.registry import make_plugins
from pipeline.route import ShortRoute
from pipeline.staged_chain import ChainSettings, StagedChain
from pipeline.thread_host import ThreadHost
from tests.support.plugged import latents_of, with_plugins
from tests.support.small_chain import (
    FRAMES,
    PlainCodec,
    SmallRecipe,
    decode_stage,
    denoiser,
    levels_apart,
    run,
    small_inputs,
    small_works,
)
from tests.support.toy_stages import same
from video.chunk import VideoChunk
from video.noise import shifted_sigmas

pytestmark = pytest.mark.stream

INPUTS = small_inputs("a", 5)
NUM_CHUNKS = 6  # the rings hold four
CUTS = {
    12: {1: [], 2: [5], 3: [3, 4], 4: [1, 6, 11]},
    30: {1: [], 2: [14], 3: [4, 20], 4: [3, 4, 29]},
}


def forecast_plan(num_steps: int, **options: Any) -> Plan:
    """A plan of the published schedule, every step of which may be forecast."""
    levels = pairwise(shifted_sigmas(num_steps, 3.0))
    steps = tuple(Step(sigma_in=a, sigma_out=b, forecast=True) for a, b in levels)
    plan = Plan(name="small", stages=(StageSpec(name="all", steps=steps),))
    return with_plugins(plan, forecast=options)


def network_of(plan: Plan) -> Any:
    return replace(denoiser(), plugins=make_plugins(plan))


def chain_of(plan: Plan, schedule: Schedule = "sequential", num_stages: int = 1) -> LocalChain:
    cut = cut_at(plan, CUTS[len(plan.steps)][num_stages])
    return LocalChain.from_plan(cut, network_of(plan), PlainCodec(), schedule=schedule)  # type: ignore[arg-type]  # its state is its own kind


@cache
def expected(num_steps: int) -> list[VideoChunk]:
    """One process, one chunk after the other."""
    return run(chain_of(forecast_plan(num_steps)), INPUTS, small_works(INPUTS, NUM_CHUNKS))


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastRecipe(SmallRecipe):
    """A stage of the small chain with the plan's plug-ins."""

    plan: Plan
    index: int
    batch: Any = field(default=None)

    def build(self) -> DenoiseStage | DecodeStage:
        if self.index == len(self.plan.stages):
            return decode_stage()
        return DenoiseStage(network_of(self.plan), self.plan, self.index)


@contextmanager
def staged(folder: Path, plan: Plan, num_stages: int) -> Iterator[StagedChain]:
    cut = cut_at(plan, CUTS[len(plan.steps)][num_stages])
    recipes = [ForecastRecipe(plan=cut, index=index) for index in range(num_stages + 1)]
    settings = ChainSettings(pictures_per_chunk=4 * FRAMES, transport="queue", checkpoint_chunks=2)
    chain = StagedChain(ThreadHost(), recipes, folder, settings)
    try:
        yield chain
    finally:
        chain.close()


@pytest.mark.parametrize("num_steps", [12, 30])
@pytest.mark.parametrize("schedule", ["sequential", "pipelined"])
@pytest.mark.parametrize("num_stages", [1, 2, 3, 4])
def test_every_cut_makes_the_same_pictures(
    num_steps: int, schedule: Schedule, num_stages: int
) -> None:
    chain = chain_of(forecast_plan(num_steps), schedule, num_stages)
    assert same(run(chain, INPUTS, small_works(INPUTS, NUM_CHUNKS)), expected(num_steps))


def test_lanes_make_the_same_pictures_but_for_rounding() -> None:
    made = run(chain_of(forecast_plan(12), "lanes"), INPUTS, small_works(INPUTS, NUM_CHUNKS))
    assert levels_apart(made, expected(12)) <= 1


def test_history_rides_along_between_stages_on_threads(tmp_path: Path) -> None:
    with staged(tmp_path, forecast_plan(12, order=3), 3) as chain:
        made = run(chain, INPUTS, small_works(INPUTS, NUM_CHUNKS))
    wanted = run(chain_of(forecast_plan(12, order=3)), INPUTS, small_works(INPUTS, NUM_CHUNKS))
    assert same(made, wanted)


@pytest.mark.parametrize("schedule", ["sequential", "pipelined"])
def test_a_session_moves_between_cuts_with_chunks_and_histories_under_way(
    schedule: Schedule,
) -> None:
    works, plan = small_works(INPUTS, NUM_CHUNKS), forecast_plan(12)
    first, second = chain_of(plan, "pipelined", 4), chain_of(plan, schedule, 2)
    for chain in (first, second):
        chain.prepare(INPUTS)
    made = [video for work in works[:4] for video in first.submit(work)]
    state = first.export_state("a")
    assert any("forecast.values" in key for key in state.tensors)
    second.import_state("a", state)
    made += [video for work in works[4:] for video in second.submit(work)]
    assert same(made + second.drain("a"), expected(12))


@pytest.mark.parametrize("num_steps", [12, 30])
@pytest.mark.parametrize("num_stages", [1, 4])
def test_the_network_runs_as_often_as_the_marks_say(num_steps: int, num_stages: int) -> None:
    plan = forecast_plan(num_steps)
    (plugin,) = make_plugins(plan)
    marks = plugin.marks(plan.legs(0))
    chain = chain_of(plan, "sequential", num_stages)
    run(chain, INPUTS, small_works(INPUTS, NUM_CHUNKS))
    num_full = sum(mark is Decision.FULL for mark in marks)
    assert chain.num_evaluations("a") == NUM_CHUNKS * num_full
    assert marks[-1] is Decision.FULL
    assert num_full == {12: 7, 30: 12}[num_steps]


def test_what_a_chunk_carries_is_bounded_and_gone_after_the_last_forecast() -> None:
    plan = forecast_plan(12)
    stage = DenoiseStage(network_of(plan), plan, 0)
    stage.prepare(INPUTS)
    work = small_works(INPUTS, 1)[0]
    held = []
    while not stage.is_through(work):
        (work,) = stage.advance([work])
        values = work.carried.get("forecast.values")
        held.append(0 if values is None else len(values))
    # Full are 0, 1, 5 and the last four; order 2 remembers three.
    assert held == [1, 2, 2, 2, 2, 3, 3, 3, 0, 0, 0, 0]


def test_an_interval_of_one_is_the_plan_without_forecast() -> None:
    works = small_works(INPUTS, 3)
    with_it = latents_of(forecast_plan(12, interval=1, order=3), INPUTS, works)
    without = latents_of(replace(forecast_plan(12), plugins=()), INPUTS, works)
    assert all(torch.equal(a, b) for a, b in zip(with_it, without, strict=True))


@pytest.mark.parametrize("target", ["velocity", "clean"])
def test_forecasting_comes_nearer_than_repeating_nothing_of_it(target: str) -> None:
    """Orders, bases and targets all change what comes out, and none goes astray."""
    works = small_works(INPUTS, 2)
    truth = latents_of(replace(forecast_plan(30), plugins=()), INPUTS, works)
    made = {
        order: latents_of(forecast_plan(30, order=order, target=target), INPUTS, works)
        for order in (0, 1, 2)
    }
    assert not torch.equal(made[0][0], made[1][0])
    assert not torch.equal(made[1][0], made[2][0])
    for latents in made.values():
        error = torch.stack(latents) - torch.stack(truth)
        assert float(error.norm() / torch.stack(truth).norm()) < 0.1


def test_a_break_begins_anew_and_is_marked() -> None:
    """Another guidance is another function; the step before it tells nothing of it."""
    plan = forecast_plan(12, warmup=1, interval=4, cooldown=1)
    steps = tuple(replace(s, guidance=1.0 if i < 6 else 2.0) for i, s in enumerate(plan.steps))
    broken = replace(plan, stages=(StageSpec(name="all", steps=steps),))
    (plugin,) = make_plugins(broken)
    marks = plugin.marks(broken.legs(0))
    full = [index for index, mark in enumerate(marks) if mark is Decision.FULL]
    assert full == [0, 4, 6, 10, 11]


def test_a_short_way_is_marked_by_its_own_steps() -> None:
    options = {"warmup": 3, "interval": 3, "cooldown": 1}
    plan = replace(forecast_plan(12, **options), short=ShortRoute(steps=(0, 1, 2, 3, 7, 8, 11)))
    (plugin,) = make_plugins(plan)
    marks = [mark is Decision.FULL for mark in plugin.marks(plan.legs(1))]
    assert marks == [True, True, True, False, False, True, True]
    works = small_works(INPUTS, 3)
    chain = chain_of(plan, "pipelined", 4)
    assert same(run(chain, INPUTS, works), run(chain_of(plan), INPUTS, works))


def test_steps_that_may_not_be_forecast_are_computed() -> None:
    plan = forecast_plan(12, interval=3, cooldown=1)
    steps = tuple(replace(s, forecast=i > 7) for i, s in enumerate(plan.steps))
    (plugin,) = make_plugins(replace(plan, stages=(StageSpec(name="all", steps=steps),)))
    marks = plugin.marks(replace(plan, stages=(StageSpec(name="all", steps=steps),)).legs(0))
    assert [i for i, mark in enumerate(marks) if mark is Decision.SKIP] == [8, 9]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [({"forecast": False}, "no step may be forecast"), ({"rule": "renoise"}, "draws fresh noise")],
)
def test_plans_that_cannot_be_forecast_are_refused(changed: dict[str, Any], reason: str) -> None:
    plan = forecast_plan(12)
    steps: Sequence[Step] = [replace(step, **changed) for step in plan.steps]
    with pytest.raises(PlanError, match=f"plug-in forecast: .*{reason}"):
        make_plugins(replace(plan, stages=(StageSpec(name="all", steps=tuple(steps)),)))


@pytest.mark.parametrize(
    "options", [{"order": 9}, {"basis": "sines"}, {"target": "audio"}, {"intervall": 3}]
)
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(PlanError, match="plug-in forecast"):
        make_plugins(forecast_plan(12, **options))
