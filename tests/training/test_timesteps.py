"""Levels are fitted by going downhill, and the many-step plan that they aim at covers the same."""

import pytest

from pipeline.plan_parse import load_plan
from training.timesteps import finer, fit_levels, telling

pytestmark = pytest.mark.unit


def test_the_lowest_point_of_a_bowl_is_found() -> None:
    lowest = (0.93, 0.41)

    def bowl(told: tuple[float, ...]) -> float:
        return sum((a - b) ** 2 for a, b in zip(told, lowest, strict=True))

    fit = fit_levels(bowl, (1.0, 0.6))
    assert fit.told == pytest.approx(lowest, abs=0.01)
    assert fit.after < 0.01 * fit.before


def test_levels_stay_within_0_and_1() -> None:
    fit = fit_levels(lambda told: -told[0], (0.97,))
    assert fit.told == (1.0,)


def test_nothing_is_moved_where_nothing_is_gained() -> None:
    fit = fit_levels(lambda _: 1.0, (0.9, 0.5))
    assert fit.told == (0.9, 0.5)
    assert fit.before == fit.after == 1.0


def test_many_steps_end_where_the_plans_steps_end() -> None:
    plan = load_plan("pocket")
    fine = finer(plan, 4)
    assert len(fine.steps) == 4 * len(plan.steps)
    assert [step.sigma_in for step in fine.steps[::4]] == [step.sigma_in for step in plan.steps]


def test_the_fitted_plan_tells_the_levels_and_keeps_its_steps() -> None:
    plan = load_plan("pocket")
    told = telling(telling(plan, [0.9] * 4), [0.8] * 4)
    assert told.steps == plan.steps
    assert [spec.options["sigmas"] for spec in told.plugins] == [[0.8] * 4]
