"""The way of a chunk through a plan: all steps or the short route, hinges, and what is refused."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.plan import Plan, StageSpec, Step
from pipeline.route import Leg, ShortRoute, arriving_level, leaving_level
from video.hinge import level_after, level_before

pytestmark = pytest.mark.unit

LOW_END = level_before(0.8333, 2)  # arrives at .8333 on the finer grid
EULER = (
    Step(sigma_in=1.0, sigma_out=0.882, resolution=0.5),
    Step(sigma_in=0.882, sigma_out=LOW_END, resolution=0.5),
    Step(sigma_in=0.8333, sigma_out=0.625),
    Step(sigma_in=0.625, sigma_out=0.0),
)
RENOISE = (
    Step(sigma_in=1.0, sigma_out=0.882, rule="renoise", resolution=0.5),
    Step(sigma_in=0.882, sigma_out=0.8333, rule="renoise", resolution=0.5),
    Step(sigma_in=0.8333, sigma_out=0.625, rule="renoise"),
    Step(sigma_in=0.625, sigma_out=0.0, rule="renoise"),
)


def plan_of(steps: tuple[Step, ...], short: ShortRoute | None = None) -> Plan:
    return Plan(name="p", stages=(StageSpec(name="all", steps=steps),), short=short)


def way(legs: tuple[Leg, ...]) -> list[int]:
    return [leg.index for leg in legs]


def joined(legs: tuple[Leg, ...], steps: tuple[Step, ...]) -> None:
    """Each leg arrives exactly where the next one starts; the last one is clean."""
    for leg, after in pairwise(legs):
        assert leg.next_index == after.index
        assert leg.to_sigma == after.step.sigma_in
        assert leg.to_resolution == after.step.resolution
        assert arriving_level(leg.step, after.step.resolution) == pytest.approx(
            after.step.sigma_in, abs=1e-6
        )
        assert not leg.is_last
    assert (legs[-1].next_index, legs[-1].to_sigma) == (len(steps), 0.0)
    assert legs[-1].step.sigma_out == 0.0
    assert legs[-1].is_last
    assert not legs[-1].is_hinge


@pytest.mark.parametrize("steps", [EULER, RENOISE], ids=["euler", "renoise"])
def test_all_steps_lead_from_noise_to_clean_over_one_hinge(steps: tuple[Step, ...]) -> None:
    plan = plan_of(steps)
    for chunk in (0, 1, 1000):
        legs = plan.legs(chunk)
        assert way(legs) == [0, 1, 2, 3]
        assert [leg.is_hinge for leg in legs] == [False, True, False, False]
        joined(legs, steps)


def test_euler_leaves_a_grid_at_the_level_that_grows_into_the_next() -> None:
    leg = plan_of(EULER).legs(0)[1]
    assert leg.step.sigma_out == LOW_END
    assert leg.to_sigma == 0.8333
    assert level_after(LOW_END, 2) == pytest.approx(0.8333)


def test_renoise_leaves_a_grid_at_the_level_of_the_next() -> None:
    leg = plan_of(RENOISE).legs(0)[1]
    assert leg.step.sigma_out == leg.to_sigma == 0.8333


@pytest.mark.parametrize("steps", [EULER, RENOISE], ids=["euler", "renoise"])
@pytest.mark.parametrize("chosen", [(0, 2), (0, 3), (0, 1, 3), (0, 2, 3)])
def test_later_chunks_take_the_short_route_and_arrive_where_its_steps_start(
    steps: tuple[Step, ...], chosen: tuple[int, ...]
) -> None:
    plan = plan_of(steps, ShortRoute(steps=chosen, from_chunk=2))
    assert way(plan.legs(0)) == way(plan.legs(1)) == [0, 1, 2, 3]
    for chunk in (2, 3, 1000):
        assert tuple(way(plan.legs(chunk))) == chosen
        joined(plan.legs(chunk), steps)
        assert sum(leg.is_hinge for leg in plan.legs(chunk)) == 1


def test_a_short_route_may_end_early_and_is_clean_then() -> None:
    plan = plan_of(EULER, ShortRoute(steps=(0, 2)))
    assert plan.legs(1)[-1].step.sigma_out == 0.0
    assert plan.legs(0)[2].step.sigma_out == 0.625


def test_a_plan_of_one_resolution_has_no_hinges() -> None:
    steps = (Step(sigma_in=1.0, sigma_out=0.6), Step(sigma_in=0.6, sigma_out=0.0))
    legs = plan_of(steps).legs(0)
    assert [leg.step for leg in legs] == list(steps)
    assert not any(leg.is_hinge for leg in legs)


def test_high_low_high_crosses_two_hinges() -> None:
    steps = (
        Step(sigma_in=1.0, sigma_out=0.9),
        Step(sigma_in=level_after(0.9, 0.5), sigma_out=0.5, resolution=0.5),
        Step(sigma_in=level_after(0.5, 2), sigma_out=0.0),
    )
    legs = plan_of(steps).legs(0)
    assert [leg.is_hinge for leg in legs] == [True, True, False]
    joined(legs, steps)


@given(sigma=st.floats(0.05, 0.95), ratio=st.sampled_from([0.25, 0.5, 2.0, 4.0]))
def test_leaving_and_arriving_undo_each_other(sigma: float, ratio: float) -> None:
    """Whatever level the next step starts from, its chunk is sent off to arrive there."""
    here, there = (1.0, ratio) if ratio < 1 else (1 / ratio, 1.0)
    before = Step(sigma_in=1.0, sigma_out=0.0, resolution=here)
    after = Step(sigma_in=sigma, sigma_out=0.0, resolution=there)
    left = Step(sigma_in=1.0, sigma_out=leaving_level(before, after), resolution=here)
    assert arriving_level(left, there) == pytest.approx(sigma, abs=1e-9)


REFUSED = [
    (
        (*EULER[:1], Step(sigma_in=0.882, sigma_out=0.0, resolution=0.5)),
        None,
        "last step has resolution 0.5",
    ),
    # The level as it would be without the hinge: the right one is named.
    (
        (*EULER[:1], Step(sigma_in=0.882, sigma_out=0.8333, resolution=0.5), *EULER[2:]),
        None,
        f"0.8333, {level_after(0.8333, 2):.7f} after the hinge",
    ),
    ((*RENOISE[:2], Step(sigma_in=0.9, sigma_out=0.0)), None, "0.8333 but step 2 starts at 0.9"),
    (
        (Step(sigma_in=1.0, sigma_out=0.5, resolution=0.7), Step(sigma_in=0.5, sigma_out=0.0)),
        None,
        "whole number",
    ),
    (EULER, ShortRoute(steps=(0, 4)), "of 4"),
    (EULER, ShortRoute(steps=(0, 1)), "lower resolution"),
    (EULER, ShortRoute(steps=(1, 2)), "begin with step 0"),
    (EULER, ShortRoute(steps=(0, 1, 2, 3, 4)), "of 4"),
]


@pytest.mark.parametrize(("steps", "short", "reason"), REFUSED)
def test_a_plan_that_leads_nowhere_is_refused_with_the_reason(
    steps: tuple[Step, ...], short: ShortRoute | None, reason: str
) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        plan_of(steps, short)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("steps", [(), (0, 0), (2, 1), (0, 2, 1)])
def test_a_short_route_that_turns_back_or_goes_nowhere_is_refused(steps: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="rising"):
        ShortRoute(steps=steps)


@pytest.mark.parametrize("from_chunk", [0, -1, 1 << 21])
def test_the_first_chunk_takes_all_steps(from_chunk: int) -> None:
    with pytest.raises(ValueError, match="from_chunk"):
        ShortRoute(steps=(0, 2), from_chunk=from_chunk)
