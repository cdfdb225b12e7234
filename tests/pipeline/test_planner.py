"""Placing a plan: on any number of devices, by nodes, as written, and refused with arithmetic."""

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.chain_work import usable_bytes
from pipeline.device import parse_devices
from pipeline.errors import PlanError
from pipeline.outlook import outlook
from pipeline.placement import Placement
from pipeline.planner import PlacementRequest, place
from pipeline.step_cost import BatchProfile, modelled_costs
from tests.support.planning import plan_of, work_of

pytestmark = pytest.mark.unit


def request(num_steps: int, devices: str, **asked: object) -> PlacementRequest:
    work = work_of(num_steps)
    fields: dict[str, object] = {
        "plan": plan_of(num_steps),
        "work": work,
        "costs": modelled_costs(work),
        "cluster": parse_devices(devices),
    }
    return PlacementRequest(**{**fields, **asked})  # type: ignore[arg-type]  # built by name


def spots(placement: Placement) -> list[tuple[int, int, str]]:
    return [(s.first, s.end, f"{s.device.node}/{s.device.name}") for s in placement.stages]


def test_one_step_a_card_and_the_decoder_on_its_own_is_timestep_forcing() -> None:
    placement = place(request(4, "cuda:80GiB x5"))
    assert [(a, b) for a, b, _ in spots(placement)] == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 4)]
    assert len(placement.devices) == 5
    assert placement.bottleneck_ms == pytest.approx(100.0)
    seen = outlook(placement, work_of(4), Fraction(25))
    assert seen.fps == pytest.approx(120.0)
    assert seen.latency_ms == pytest.approx(425.0 + 4 * 0.5)
    assert dict(seen.bubbles)[placement.stages[-1].device] == pytest.approx(0.75)


def test_one_card_runs_all_steps_as_lanes() -> None:
    placement = place(request(4, "cuda:80GiB"))
    assert spots(placement) == [(0, 4, "node0/cuda:0"), (4, 4, "node0/cuda:0")]
    assert placement.stages[0].num_lanes == 4
    assert sum(stage.fraction for stage in placement.stages) == pytest.approx(1.0)


def test_no_more_devices_are_taken_than_help() -> None:
    assert len(place(request(2, "cuda:80GiB x9")).devices) == 3


def test_lanes_on_one_device_are_batched_only_if_the_profile_says_it_pays() -> None:
    work = work_of(4)
    slow = modelled_costs(work, BatchProfile(ratios=(1.0, 2.0, 3.0, 4.0)))
    quick = modelled_costs(work, BatchProfile(ratios=(1.0, 1.2, 1.4, 1.6)))
    assert not place(request(4, "cuda:80GiB", costs=slow)).stages[0].batched
    stage = place(request(4, "cuda:80GiB", costs=quick)).stages[0]
    assert stage.batched
    assert stage.time_ms == pytest.approx(160.0)
    assert stage.latency_ms == pytest.approx(640.0)


def test_more_stages_than_devices_share_them_by_their_time() -> None:
    placement = place(request(4, "cuda:80GiB x2", num_stages=3, decoder="share"))
    assert len(placement.stages) == 4
    assert len(placement.devices) == 2
    for device in placement.devices:
        assert sum(stage.fraction for stage in placement.on(device)) == pytest.approx(1.0)
        assert placement.need(device).total(1) <= usable_bytes(device)
    assert [len(stage.steps) for stage in placement.cut_plan().stages] == [1, 1, 2]


def test_packing_takes_one_node_and_spreading_takes_all() -> None:
    devices = "cuda:80GiB x2 / cuda:80GiB x5 / cuda:80GiB x8"
    packed = place(request(4, devices))
    assert {device.node for device in packed.devices} == {"node1"}
    spread = place(request(4, devices, strategy="spread"))
    assert {device.node for device in spread.devices} == {"node0", "node1", "node2"}


def test_a_packed_chain_over_two_nodes_crosses_once() -> None:
    nodes = [s.device.node for s in place(request(4, "cuda:80GiB x2 / cuda:80GiB x3")).stages]
    assert sum(a != b for a, b in pairwise(nodes)) == 1


def test_a_fast_card_gets_more_steps_than_a_slow_one() -> None:
    placement = place(request(4, "cuda:80GiB@300, cuda:80GiB@100", decoder="share"))
    lanes = {stage.device.flops: stage.num_lanes for stage in placement.stages[:-1]}
    assert lanes == {300e12: 3, 100e12: 1}


def test_a_plan_that_names_devices_is_followed() -> None:
    plan = plan_of(2, device="cuda:1")
    placement = place(request(2, "cuda:80GiB x3", plan=plan))
    assert spots(placement) == [(0, 2, "node0/cuda:1"), (2, 2, "node0/cuda:0")]
    with pytest.raises(PlanError, match="names devices for its 1 stages, so it is not cut into 2"):
        place(request(2, "cuda:80GiB x3", plan=plan, num_stages=2))
    with pytest.raises(PlanError, match=r"'cuda:7' is not there: the cluster has 3 x cuda"):
        place(request(2, "cuda:80GiB x3", plan=plan_of(2, device="cuda:7")))


def test_more_stages_than_steps_are_refused() -> None:
    with pytest.raises(PlanError, match=r"has 4 steps, which cannot be cut into 5 stages"):
        place(request(4, "cuda:80GiB x9", num_stages=5))


def test_a_step_too_large_for_any_device_is_refused_with_the_sum() -> None:
    line = place_error(request(4, "cuda:80GiB x9", num_sessions=30))
    # 16 GB of weights, and 2 + 1 GB for each session: 106 GB in all.
    sums = ("98.7 GiB for 30 sessions", "weights 14.9 GiB", "1 lane of 1.9 GiB", "sink 0.9 GiB")
    for part in (*sums, "80.0 GiB, 72.0 GiB usable", "20 would fit"):
        assert part in line
    assert "\n" not in line


def test_all_steps_too_many_for_one_device_are_refused_with_what_it_holds() -> None:
    line = place_error(request(4, "cuda:80GiB", num_sessions=10))
    assert "one device holds 2 steps (3 steps need 80.1 GiB" in line
    assert "add devices" in line


def place_error(asked: PlacementRequest) -> str:
    with pytest.raises(PlanError) as caught:
        place(asked)
    return str(caught.value)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 6), st.integers(1, 6), st.integers(1, 30), st.sampled_from([None, 1, 2, 3]),
)  # fmt: skip
def test_what_is_placed_fits_covers_every_step_once_and_what_is_not_says_why(
    num_steps: int, num_devices: int, num_sessions: int, num_stages: int | None
) -> None:
    asked = request(
        num_steps,
        f"cuda:40GiB x{num_devices}",
        num_sessions=num_sessions,
        num_stages=num_stages,
    )
    try:
        placement = place(asked)
    except PlanError as error:
        reason = str(error)
        is_told = "GiB" in reason or "cannot be cut" in reason
    else:
        reason, is_told = "", True
    assert is_told
    assert "\n" not in reason
    if reason:
        return
    covered = [step for stage in placement.stages for step in range(stage.first, stage.end)]
    assert covered == list(range(num_steps))
    assert placement.stages[-1].decodes
    assert placement.cut_plan().steps == asked.plan.steps
    if num_stages is not None:
        assert len(placement.cut_plan().stages) == num_stages
    for device in placement.devices:
        assert placement.need(device).total(num_sessions) <= usable_bytes(device)
        assert placement.need(device).slots(device) >= num_sessions
