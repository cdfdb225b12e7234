"""A late live chunk leaves out inner steps once rings are full, and nothing else changes."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.chain import LocalChain, Schedule
from pipeline.cuts import cut_at
from pipeline.decode_stage import DecodeStage
from pipeline.denoise_stage import DenoiseStage
from pipeline.errors import PlanError
from pipeline.plan import Plan
from pipeline.plugins.bypass import is_late
from pipeline.plugins.registry import make_plugins
from pipeline.stage import ChunkWork
from pipeline.staged_chain import ChainSettings, StagedChain
from pipeline.thread_host import ThreadHost
from tests.support.plugged import plan_of, plugged_chain, plugged_stage, with_plugins
from tests.support.small_chain import (
    FRAMES,
    SmallRecipe,
    decode_stage,
    denoiser,
    run,
    small_inputs,
    small_works,
)
from tests.support.toy_stages import same

pytestmark = pytest.mark.stream

SIGMAS = (1.0, 0.8, 0.5, 0.2, 0.0)
BATCH = small_inputs("a", 5)
LIVE = replace(BATCH, live=True)
FULL_AT = 4  # chunks that fill a ring
LATE, EARLY = -0.1, 1.0


def bypass_plan(**options: Any) -> Plan:
    return plan_of(SIGMAS, bypass=options)


def works_with(slacks: Sequence[float | None]) -> list[ChunkWork]:
    works = small_works(BATCH, len(slacks))
    return [replace(work, slack_s=s) for work, s in zip(works, slacks, strict=True)]


def made_by(plan: Plan, slacks: Sequence[float | None], inputs: Any = LIVE) -> list[ChunkWork]:
    stage = plugged_stage(plan)
    stage.prepare(inputs)
    return [stage.process(work) for work in works_with(slacks)]


def bypassed(made: Sequence[ChunkWork]) -> list[int]:
    return [work.num_bypassed for work in made]


def test_late_chunks_leave_out_inner_steps_once_the_rings_are_full() -> None:
    slacks = [LATE] * 6 + [EARLY] + [LATE]
    made = made_by(bypass_plan(), slacks)
    assert bypassed(made) == [0, 0, 0, 0, 2, 2, 0, 2]


def test_only_the_late_chunk_and_those_after_it_change() -> None:
    slacks = [EARLY] * 9
    slacks[6] = LATE
    plain = made_by(replace(bypass_plan(), plugins=()), slacks)
    made = made_by(bypass_plan(), slacks)
    same_latents = [
        torch.equal(a.latent.latents_CTHW, b.latent.latents_CTHW)
        for a, b in zip(plain, made, strict=True)
    ]
    assert same_latents[:6] == [True] * 6
    assert not any(same_latents[6:])
    # Without one chunk of the past the later ones are still near what they would have been.
    later = [(a.latent.latents_CTHW - b.latent.latents_CTHW).abs().mean() for a, b in
             zip(plain[7:], made[7:], strict=True)]  # fmt: skip
    assert max(float(one) for one in later) < 0.2


def test_the_chunk_goes_on_from_the_estimate_that_is_kept() -> None:
    """The rule in words: (1 - s') x0 + s' e, with x0 and e from the first step alone."""
    slacks = [EARLY] * 4 + [LATE]
    stage = plugged_stage(bypass_plan())
    stage.prepare(LIVE)
    works = works_with(slacks)
    for work in works[:4]:
        stage.process(work)
    (after_first,) = stage.advance([works[4]])
    noise = works[4].latent.latents_CTHW
    level = after_first.latent.sigma
    clean = (after_first.latent.latents_CTHW - level * noise) / (1 - level)
    for level in SIGMAS[2:4]:
        (after_first,) = stage.advance([after_first])
        wanted = (1 - level) * clean + level * noise
        torch.testing.assert_close(after_first.latent.latents_CTHW, wanted, atol=1e-5, rtol=1e-5)
    assert after_first.num_bypassed == 2


def test_the_network_runs_less_by_what_is_counted() -> None:
    stage = plugged_stage(bypass_plan())
    stage.prepare(LIVE)
    made = [stage.process(work) for work in works_with([LATE] * 6)]
    assert stage.num_evaluations("a") == 4 * 6 - sum(bypassed(made))


@pytest.mark.parametrize("slack", [None, EARLY])
def test_without_lateness_not_a_bit_changes(slack: float | None) -> None:
    made = made_by(bypass_plan(), [slack] * 6)
    plain = made_by(replace(bypass_plan(), plugins=()), [slack] * 6)
    pairs = zip(made, plain, strict=True)
    assert all(torch.equal(a.latent.latents_CTHW, b.latent.latents_CTHW) for a, b in pairs)


def test_a_session_that_nobody_watches_leaves_nothing_out() -> None:
    assert bypassed(made_by(bypass_plan(), [LATE] * 6, BATCH)) == [0] * 6


def test_at_most_so_many_chunks_in_a_row_are_without_a_step() -> None:
    made = made_by(bypass_plan(max_in_row=2), [EARLY] * 4 + [LATE] * 6)
    assert bypassed(made) == [0] * 4 + [2, 2, 0, 2, 2, 0]


def test_a_chunk_that_is_done_again_counts_once() -> None:
    stage = plugged_stage(bypass_plan(max_in_row=1))
    stage.prepare(LIVE)
    works = works_with([EARLY] * 4 + [LATE] * 2)
    for work in works[:4]:
        stage.process(work)
    first, again = stage.process(works[4]), stage.process(works[4])
    assert torch.equal(first.latent.latents_CTHW, again.latent.latents_CTHW)
    assert bypassed([first, again, stage.process(works[5])]) == [2, 2, 0]


@pytest.mark.parametrize("schedule", ["sequential", "pipelined"])
@pytest.mark.parametrize("num_stages", [2, 4])
def test_with_equal_slack_every_cut_makes_the_same_pictures(
    schedule: Schedule, num_stages: int
) -> None:
    slacks = [EARLY] * 4 + [LATE, LATE, EARLY, LATE, EARLY]
    plan, works = bypass_plan(), works_with(slacks)
    one: LocalChain = plugged_chain(plan)
    assert same(run(plugged_chain(plan, schedule, num_stages), LIVE, works), run(one, LIVE, works))


@given(st.floats(-10, 10), st.floats(0, 5))
def test_late_is_less_time_than_the_reserve(slack: float, reserve: float) -> None:
    assert is_late(slack, reserve) is (slack < reserve)
    assert not is_late(None, reserve)


@dataclass(frozen=True, slots=True, kw_only=True)
class BypassRecipe(SmallRecipe):
    plan: Plan
    index: int
    batch: Any = field(default=None)

    def build(self) -> DenoiseStage | DecodeStage:
        if self.index == len(self.plan.stages):
            return decode_stage()
        network = replace(denoiser(), plugins=make_plugins(self.plan))
        return DenoiseStage(network, self.plan, self.index)


@pytest.mark.parametrize("reserve_s", [0.0, 50.0])
def test_nodes_tell_stages_how_much_time_is_left(tmp_path: Path, reserve_s: float) -> None:
    """With a reserve that no deadline leaves, steps are left out; pictures come all the same."""
    plan = cut_at(bypass_plan(reserve_s=reserve_s), [2])
    recipes = [BypassRecipe(plan=plan, index=index) for index in range(3)]
    settings = ChainSettings(
        pictures_per_chunk=4 * FRAMES, transport="queue", latency_s=30.0, checkpoint_chunks=0
    )
    chain = StagedChain(ThreadHost(), recipes, tmp_path, settings)
    try:
        chain.prepare(LIVE)
        made = [video for work in small_works(LIVE, 8) for video in chain.submit(work)]
        made += chain.drain("a")
        left_out = sum(span.num_bypassed for span in chain.controller.spans())
    finally:
        chain.close()
    assert [video.pts for video in made] == [12 * i for i in range(8)]
    plain = run(plugged_chain(bypass_plan()), BATCH, small_works(BATCH, 8))
    assert same(made[:FULL_AT], plain[:FULL_AT])
    assert same(made, plain) is (reserve_s == 0.0)
    # Three late chunks in a row, of which each has two inner steps; then one whole.
    assert left_out == (0 if reserve_s == 0.0 else 6)


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        (replace(bypass_plan(), mode="render"), "nobody waits for a render"),
        (plan_of((1.0, 0.5, 0.0), bypass={}), "2 steps have none between"),
        (bypass_plan(reserve_s=-1.0), "reserve_s"),
        (bypass_plan(max_in_row=0), "max_in_row"),
        (bypass_plan(reserve=1.0), "reserve"),
    ],
)
def test_plans_and_options_without_sense_are_refused(plan: Plan, reason: str) -> None:
    with pytest.raises(PlanError, match=f"plug-in bypass: .*{reason}"):
        make_plugins(plan)


def test_forecast_and_bypass_are_not_both_at_work() -> None:
    with pytest.raises(PlanError, match="would both decide"):
        make_plugins(with_plugins(bypass_plan(), forecast={}, bypass={}))
