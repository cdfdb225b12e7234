"""Following measured times: no cut for noise, one for a lasting change, and how to get there."""

import numpy as np
import pytest

from pipeline.device import parse_devices
from pipeline.placement import Placement
from pipeline.planner import PlacementRequest, place
from pipeline.recut import MIN_CHUNKS_BETWEEN, Decision, Recutter, migration
from pipeline.step_cost import MIN_SAMPLES, Ema, StepCost, modelled_costs
from tests.support.planning import plan_of, work_of

pytestmark = pytest.mark.unit


def request(devices: str = "cuda:80GiB x2") -> PlacementRequest:
    work = work_of(4)
    return PlacementRequest(
        plan=plan_of(4),
        work=work,
        costs=modelled_costs(work),
        cluster=parse_devices(devices),
        decoder="share",
    )


def stream(
    recutter: Recutter, running: Placement, step_ms: list[float], chunks: int, jitter: float
) -> tuple[Recutter, list[Decision]]:
    """Measure so many chunks, and look after every tenth."""
    draws, decisions = np.random.default_rng(4), []
    for number in range(chunks):
        for stage in running.stages:
            true_ms = 25.0 if stage.decodes else sum(step_ms[stage.first : stage.end])
            spread = 1 + jitter * (2 * draws.random() - 1)
            recutter = recutter.observed(stage, true_ms * spread)
        if number % 10 == 9:
            recutter, decision = recutter.look(request(), running, number)
            decisions.append(decision)
    return recutter, decisions


def test_a_chain_whose_times_only_jitter_is_left_alone() -> None:
    running = place(request())
    _, decisions = stream(Recutter(costs=request().costs), running, [100.0] * 4, 400, jitter=0.2)
    assert all(decision.placement is None for decision in decisions)


def test_a_lasting_change_moves_a_step_once_and_only_after_a_while() -> None:
    running = place(request())
    assert [(s.first, s.end) for s in running.stages] == [(0, 2), (2, 4), (4, 4)]
    slow_end = [100.0, 100.0, 300.0, 400.0]
    recutter, decisions = stream(Recutter(costs=request().costs), running, slow_end, 150, 0.05)
    cuts = [decision for decision in decisions if decision.placement is not None]
    assert len(cuts) == 1
    assert decisions.index(cuts[0]) >= MIN_CHUNKS_BETWEEN // 10 - 1
    after = cuts[0].placement
    assert after is not None
    # What two steps of one stage cost apart is not seen: the stage's time is shared among them.
    assert [(s.first, s.end) for s in after.stages if not s.decodes] == [(0, 3), (3, 4)]
    _, decisions = stream(recutter, after, slow_end, 300, jitter=0.05)
    assert all(decision.placement is None for decision in decisions)


def test_a_migration_moves_every_lane_that_changes_place_between_two_chunks() -> None:
    before, after = place(request()), place(request("cuda:80GiB x4"), running=place(request()))
    steps = migration(before, after, boundary=7)
    exported = [step for move in steps if move.action == "export" for step in move.steps]
    imported = [step for move in steps if move.action == "import" for step in move.steps]
    where = {step: s.device for s in before.stages for step in range(s.first, s.end)}
    moved = {
        step for s in after.stages for step in range(s.first, s.end) if s.device != where[step]
    }
    assert moved <= set(exported)
    assert exported == imported
    order = [move.action for move in steps]
    assert order.index("start") < order.index("fence") < order.index("export")
    assert order.index("import") < order.index("join") < order.index("resume") < order.index("stop")
    assert {m.boundary for m in steps if m.action == "fence"} == {7}
    assert {m.boundary for m in steps if m.action == "resume"} == {8}
    assert migration(before, before, boundary=7) == ()


def test_of_equal_devices_a_run_stays_where_its_lanes_are() -> None:
    wide = request("cuda:80GiB x4")
    before = place(wide)
    assert place(wide, running=before) == before
    reversed_cluster = parse_devices("cuda:80GiB x4")
    shuffled = PlacementRequest(
        plan=wide.plan,
        work=wide.work,
        costs=wide.costs,
        cluster=type(reversed_cluster)(devices=reversed_cluster.devices[::-1]),
        decoder="share",
    )
    assert place(shuffled, running=before) == before


def test_an_average_follows_its_times_and_a_cost_waits_for_some() -> None:
    average = Ema()
    for sample_ms in (10.0, 20.0, 30.0):
        average = average.after(sample_ms)
    assert average.value_ms == pytest.approx(20.0)
    for _ in range(50):
        average = average.after(5.0)
    assert average.value_ms == pytest.approx(5.0, abs=0.01)
    device = parse_devices("cuda:80GiB").devices[0]
    cost = StepCost(flops=40e12)
    for _ in range(MIN_SAMPLES - 1):
        cost = cost.observed(device, 7.0)
        assert cost.ms(device) == pytest.approx(100.0)
    assert cost.observed(device, 7.0).ms(device) == pytest.approx(7.0)
    with pytest.raises(ValueError, match="-1"):
        average.after(-1.0)
