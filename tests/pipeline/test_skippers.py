"""Skippers: their tests on made sequences, and that every chunk of a session skips the same."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.chain import LocalChain, Schedule
from pipeline.cuts import cut_at
from pipeline.errors import PlanError
from pipeline.plan import Plan, StageSpec, Step
from pipeline.plugins.adaptive import changes_of, moves_evenly
from pipeline.plugins.contract import Decision
from pipeline.plugins.registry import make_plugins
from pipeline.plugins.taocache import gone_on, likeness
from pipeline.plugins.teacache import polynomial_at, relative_l1, time_embedding
from pipeline.route import ShortRoute
from tests.support.plugged import latents_of, plugged_stage, with_plugins
from tests.support.small_chain import PlainCodec, denoiser, run, small_inputs, small_works
from tests.support.toy_stages import same
from video.noise import shifted_sigmas

pytestmark = pytest.mark.stream

INPUTS = small_inputs("a", 5)
NUM_CHUNKS = 5  # the rings hold four
CUTS: dict[int, list[int]] = {1: [], 2: [5], 3: [3, 4], 4: [1, 6, 11]}
SKIPPERS: Mapping[str, Mapping[str, Any]] = {
    "adaptive": {"threshold": 0.2},
    "teacache": {"threshold": 0.3},
    "taocache": {"from_sigma": 0.9, "min_cosine": 0.0, "max_ratio": 5.0, "max_skips": 2},
}
each_skipper = pytest.mark.parametrize("name", [*SKIPPERS])


def skip_plan(name: str, num_steps: int = 12, **options: Any) -> Plan:
    levels = pairwise(shifted_sigmas(num_steps, 3.0))
    steps = tuple(Step(sigma_in=a, sigma_out=b, forecast=True) for a, b in levels)
    plan = Plan(name="small", stages=(StageSpec(name="all", steps=steps),))
    return with_plugins(plan, **{name: {**SKIPPERS[name], **options}})


def chain_of(plan: Plan, schedule: Schedule = "sequential", num_stages: int = 1) -> LocalChain:
    network = replace(denoiser(), plugins=make_plugins(plan))
    cut = cut_at(plan, CUTS[num_stages])
    return LocalChain.from_plan(cut, network, PlainCodec(), schedule=schedule)  # type: ignore[arg-type]  # its state is its own kind


def calls_by_chunk(plan: Plan) -> list[int]:
    stage = plugged_stage(plan)
    stage.prepare(INPUTS)
    counts = [0]
    for work in small_works(INPUTS, NUM_CHUNKS):
        stage.process(work)
        counts.append(stage.num_evaluations("a"))
    return [after - before for before, after in pairwise(counts)]


def skipped_steps(chain: LocalChain, name: str) -> list[int]:
    """Steps whose lanes say that they are skipped."""
    tensors = chain.export_state("a").tensors
    key = f"/plugins/{name}.skip"
    return sorted(
        int(k.removeprefix("step").removesuffix(key))
        for k, value in tensors.items()
        if k.endswith(key) and bool(value)
    )


@each_skipper
def test_every_chunk_of_a_session_skips_the_same_steps(name: str) -> None:
    plan = skip_plan(name)
    chain = chain_of(plan)
    chain.prepare(INPUTS)
    seen = []
    for work in small_works(INPUTS, NUM_CHUNKS):
        chain.submit(work)
        seen.append(skipped_steps(chain, name))
    calls = calls_by_chunk(plan)
    assert all(steps == seen[0] for steps in seen)
    assert set(calls) == {12 - len(seen[0])}
    assert 3 <= calls[0] < 12


@each_skipper
@pytest.mark.parametrize("schedule", ["sequential", "pipelined"])
@pytest.mark.parametrize("num_stages", [1, 2, 4])
def test_every_cut_makes_the_same_pictures(name: str, schedule: Schedule, num_stages: int) -> None:
    works = small_works(INPUTS, NUM_CHUNKS)
    made = run(chain_of(skip_plan(name), schedule, num_stages), INPUTS, works)
    assert same(made, run(chain_of(skip_plan(name)), INPUTS, works))


@each_skipper
def test_a_session_moves_between_cuts_and_skips_on(name: str) -> None:
    works, plan = small_works(INPUTS, NUM_CHUNKS), skip_plan(name)
    first, second = chain_of(plan, "pipelined", 4), chain_of(plan, "pipelined", 2)
    for chain in (first, second):
        chain.prepare(INPUTS)
    made = [video for work in works[:4] for video in first.submit(work)]
    second.import_state("a", first.export_state("a"))
    made += [video for work in works[4:] for video in second.submit(work)]
    made += second.drain("a")
    assert same(made, run(chain_of(plan), INPUTS, works))


@each_skipper
def test_sessions_decide_for_themselves(name: str) -> None:
    """What one session skips says nothing of another that shares the stage."""
    plan, other = skip_plan(name), small_inputs("b", 6)
    stage = plugged_stage(plan)
    for inputs in (INPUTS, other):
        stage.prepare(inputs)
    pairs = zip(small_works(INPUTS, 3), small_works(other, 3), strict=True)
    together = [stage.process(work).latent.latents_CTHW for pair in pairs for work in pair]
    apart = latents_of(plan, other, small_works(other, 3))
    assert all(torch.equal(a, b) for a, b in zip(together[1::2], apart, strict=True))


@each_skipper
def test_first_and_last_steps_are_computed_and_marks_leave_the_others_open(name: str) -> None:
    plan = skip_plan(name, warmup=2, max_skips=64)
    (plugin,) = make_plugins(plan)
    marks = plugin.marks(plan.legs(0))
    assert marks == (Decision.FULL, Decision.FULL, *[None] * 9, Decision.FULL)
    (bounded,) = make_plugins(skip_plan(name))
    assert len(bounded.marks(plan.legs(0))) == 12


@each_skipper
def test_at_most_max_skips_follow_each_other(name: str) -> None:
    plan = skip_plan(name, max_skips=1)
    chain = chain_of(plan)
    chain.prepare(INPUTS)
    chain.submit(small_works(INPUTS, 1)[0])
    steps = skipped_steps(chain, name)
    assert steps
    assert all(b - a > 1 for a, b in pairwise(steps))


@each_skipper
def test_a_short_way_keeps_rings_whole_in_every_cut(name: str) -> None:
    plan = replace(skip_plan(name), short=ShortRoute(steps=(0, 1, 3, 4, 6, 7), from_chunk=2))
    works = small_works(INPUTS, NUM_CHUNKS)
    made = run(chain_of(plan, "pipelined", 4), INPUTS, works)
    assert same(made, run(chain_of(plan), INPUTS, works))


@each_skipper
def test_nothing_is_skipped_where_it_may_not_be(name: str) -> None:
    plan = skip_plan(name)
    steps = tuple(replace(s, forecast=i == 5) for i, s in enumerate(plan.steps))
    one = replace(plan, stages=(StageSpec(name="all", steps=steps),))
    assert min(calls_by_chunk(one)) >= 11
    none = tuple(replace(s, forecast=False) for s in plan.steps)
    with pytest.raises(PlanError, match=f"plug-in {name}: no step may be skipped"):
        make_plugins(replace(plan, stages=(StageSpec(name="all", steps=none),)))


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("adaptive", "threshold", 0.0), ("adaptive", "max_skips", 0), ("teacache", "threshold", 99),
        ("teacache", "polynomial", []), ("teacache", "signal", "audio"),
        ("taocache", "from_sigma", 0), ("taocache", "min_cosine", 2),
        ("taocache", "max_ratio", 0.5), ("taocache", "target", "noise"),
        ("adaptive", "treshold", 0.1), ("teacache", "rho", 1), ("taocache", "sigma", 0.5),
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused_by_name(name: str, option: str, value: Any) -> None:
    with pytest.raises(PlanError, match=option):
        make_plugins(skip_plan(name, **{option: value}))


def test_two_that_decide_are_refused() -> None:
    plan = skip_plan("adaptive")
    both = with_plugins(plan, adaptive={}, teacache={})
    with pytest.raises(PlanError, match="adaptive and teacache would both decide"):
        make_plugins(both)


@given(st.floats(0.01, 10), st.floats(-0.3, 0.3))
def test_even_motion_passes_the_third_order_test_and_a_jerk_does_not(
    pace: float, growth: float
) -> None:
    line = [pace * (1 + growth), pace, pace * (1 - growth)]
    assert moves_evenly(line, 0.01)
    assert not moves_evenly([2.0 * pace, *line[1:2], 2.0 * pace], 0.5)


def test_changes_are_mean_and_absolute_newest_first() -> None:
    still, moved = torch.zeros(2, 2), torch.tensor([[1.0, -3.0], [0.0, 0.0]])
    assert changes_of([still, moved, moved, still]) == [1.0, 0.0, 1.0]
    assert not moves_evenly([1.0, 1.0], 9.0)


def test_relative_l1_and_polynomial_are_as_published() -> None:
    before = torch.tensor([1.0, -3.0])
    assert relative_l1(before * 1.5, before) == pytest.approx(0.5)
    assert polynomial_at([2.0, 0.0, 1.0], 3.0) == pytest.approx(19.0)
    assert polynomial_at([-1.0, 0.0], 3.0) == 0.0


def test_time_moves_more_where_the_level_falls_faster() -> None:
    near = relative_l1(time_embedding(0.9), time_embedding(0.91))
    far = relative_l1(time_embedding(0.7), time_embedding(0.91))
    assert 0 < near < far


def test_a_higher_threshold_skips_more() -> None:
    few, many = (calls_by_chunk(skip_plan("teacache", threshold=t))[0] for t in (0.1, 0.6))
    assert many < few
    few, many = (calls_by_chunk(skip_plan("adaptive", threshold=t))[0] for t in (0.01, 5.0))
    assert many < few


def test_the_times_embedding_alone_decides_before_any_latent_is_known() -> None:
    plan = skip_plan("teacache", signal="time", threshold=1.0)
    assert 2 <= calls_by_chunk(plan)[0] < 12
    assert len(set(calls_by_chunk(plan))) == 1


def geometric(factor: float) -> Callable[[int], torch.Tensor]:
    base, change = torch.randn(2, 8, generator=torch.Generator().manual_seed(1))
    return lambda n: base + change * sum(factor**k for k in range(n))


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.0, 1.3])
def test_what_grows_by_a_factor_is_foretold_exactly(factor: float) -> None:
    of = geometric(factor)
    values = [of(n) for n in range(3)]
    cosine, ratio = likeness(values, [0.0, 1.0, 2.0])
    assert cosine == pytest.approx(1.0, abs=1e-4)
    assert ratio == pytest.approx(factor, rel=1e-3)
    made = gone_on(values, [0.0, 1.0, 2.0], cosine * ratio, 4.0)
    torch.testing.assert_close(made, of(4), atol=1e-3, rtol=1e-3)


def test_changes_over_uneven_gaps_are_compared_for_each_step() -> None:
    straight = [torch.full((4,), float(n)) for n in (0, 1, 4)]
    assert likeness(straight, [0.0, 1.0, 4.0]) == pytest.approx((1.0, 1.0))
    turned = [torch.tensor([0.0, 0.0]), torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0])]
    assert likeness(turned, [0.0, 1.0, 2.0])[0] == pytest.approx(0.0)
    assert torch.equal(gone_on(turned[:1], [0.0], 1.0, 3.0), turned[0])


def test_later_chunks_go_on_by_the_first_ones_factor() -> None:
    chain = chain_of(skip_plan("taocache"))
    factors = []
    chain.prepare(INPUTS)
    for work in small_works(INPUTS, 3):
        chain.submit(work)
        state = chain.export_state("a").tensors
        factors.append({k: float(v) for k, v in state.items() if k.endswith("taocache.factor")})
    assert factors[0]
    assert factors[0] == factors[1] == factors[2]
