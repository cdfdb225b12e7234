"""Every block forecast from its own history: as SortBlock without blocks, and with factors."""

import itertools
from typing import Any

import pytest
import torch

from pipeline.errors import PlanError
from pipeline.plan import Plan, StageSpec, Step
from pipeline.plugins.contract import Decision
from pipeline.plugins.registry import make_plugins
from tests.support.plugged import every_placement, latents_of, plugged_stage, with_plugins
from tests.support.small_chain import small_inputs, small_works
from tests.support.toy_stages import same

pytestmark = pytest.mark.stream

LEVELS = (1.0, 0.95, 0.9, 0.84, 0.76, 0.66, 0.5, 0.3, 0.0)
INPUTS = small_inputs("a", 5)
WORKS = small_works(INPUTS, 6)
MARKED = {"warmup": 2, "interval": 3, "cooldown": 1}
FAITHFUL = {**MARKED, "order": 3, "alpha": 1.5, "layer_exp": -0.5}


def plan_with(**plugins: dict[str, Any]) -> Plan:
    steps = tuple(
        Step(sigma_in=a, sigma_out=b, forecast=True) for a, b in itertools.pairwise(LEVELS)
    )
    plan = Plan(name="small", stages=(StageSpec(name="all", steps=steps),))
    return with_plugins(plan, **plugins)


def test_without_factors_it_is_sortblock_that_runs_no_block() -> None:
    made = latents_of(plan_with(taylorseer=MARKED), INPUTS, WORKS)
    wanted = latents_of(plan_with(sortblock={**MARKED, "rho": 0.0}), INPUTS, WORKS)
    for a, b in zip(made, wanted, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", [MARKED, FAITHFUL])
def test_every_placement_makes_the_same_pictures(options: dict[str, Any]) -> None:
    first, *others = every_placement(plan_with(taylorseer=options), INPUTS, WORKS)
    assert all(same(made, first) for made in others)


@pytest.mark.parametrize("option", [{"order": 2}, {"alpha": 1.5}, {"layer_exp": 0.5}])
def test_each_option_shows_and_none_goes_astray(option: dict[str, Any]) -> None:
    truth = torch.stack(latents_of(plan_with(), INPUTS, WORKS[:2]))
    plain = torch.stack(latents_of(plan_with(taylorseer=MARKED), INPUTS, WORKS[:2]))
    other = torch.stack(latents_of(plan_with(taylorseer={**MARKED, **option}), INPUTS, WORKS[:2]))
    assert not torch.equal(plain, other)
    assert all(float((made - truth).norm() / truth.norm()) < 0.3 for made in (plain, other))


def test_what_a_chunk_carries_is_bounded_and_gone_at_its_end() -> None:
    plan = plan_with(taylorseer=FAITHFUL)
    (plugin,) = make_plugins(plan)
    marks = plugin.marks(plan.legs(0))
    stage, work = plugged_stage(plan), WORKS[0]
    stage.prepare(INPUTS)
    sizes = []
    while not stage.is_through(work):
        (work,) = stage.advance([work])
        held = work.carried.get("taylorseer.values")
        sizes.append(0 if held is None else held.shape[0])
        assert not [key for key in work.carried if "fresh" in key]
    last_partial = max(i for i, mark in enumerate(marks) if mark is Decision.PARTIAL)
    assert max(sizes) <= 4
    assert sizes[last_partial + 1 :] == [0] * (len(sizes) - last_partial - 1)


@pytest.mark.parametrize("options", [{"order": 9}, {"layer_exp": 0.3}, {"rho": 0.5}])
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(PlanError, match=f"plug-in taylorseer: .*{next(iter(options))}"):
        make_plugins(plan_with(taylorseer=options))
