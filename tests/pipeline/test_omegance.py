"""Omegance scales a change about its mean, at the levels it is told to, and nothing else."""

import pytest
import torch

from pipeline.errors import PlanError
from pipeline.plugins.omegance import Omegance
from pipeline.plugins.registry import make_plugins
from tests.support.plugged import every_placement, latents_of, plan_of
from tests.support.small_chain import small_inputs, small_works
from tests.support.toy_stages import same

pytestmark = pytest.mark.stream

SIGMAS = (1.0, 0.8, 0.5, 0.2, 0.0)
INPUTS = small_inputs("a", 5)
WORKS = small_works(INPUTS, 6)


def test_one_changes_no_bit() -> None:
    plain = latents_of(plan_of(SIGMAS), INPUTS, WORKS)
    one = latents_of(plan_of(SIGMAS, omegance={}), INPUTS, WORKS)
    assert all(torch.equal(a, b) for a, b in zip(plain, one, strict=True))


def test_the_mean_stays_and_the_deviation_is_scaled() -> None:
    stage_inputs = latents_of(plan_of((1.0, 0.0)), INPUTS, WORKS[:1])
    scaled = latents_of(plan_of((1.0, 0.0), omegance={"above": 1.5}), INPUTS, WORKS[:1])
    noise = WORKS[0].latent.latents_CTHW
    plain, made = stage_inputs[0] - noise, scaled[0] - noise
    torch.testing.assert_close(made.mean(), plain.mean(), atol=1e-6, rtol=0)
    torch.testing.assert_close(made - made.mean(), 1.5 * (plain - plain.mean()))


def test_every_level_belongs_to_one_side_of_t_mid() -> None:
    plugin = Omegance(above=0.9, below=1.1, t_mid=0.5)
    assert [plugin.omega(sigma) for sigma in (1.0, 0.500001, 0.5, 0.2)] == [0.9, 0.9, 1.1, 1.1]


def test_every_placement_makes_the_same_pictures() -> None:
    plan = plan_of(SIGMAS, omegance={"above": 0.95, "below": 1.05})
    first, *others = every_placement(plan, INPUTS, WORKS)
    assert all(same(made, first) for made in others)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"above": 3.0}, "above 3.0 must lie in"),
        ({"t_mid": 2.0}, "t_mid 2.0"),
        ({"over": 1}, "over"),
    ],
)
def test_other_options_are_refused(options: dict[str, float], complaint: str) -> None:
    with pytest.raises(PlanError, match=complaint):
        make_plugins(plan_of(SIGMAS, omegance=options))
