"""The linear core: exact where the components suffice, honest about what it drops."""

import pytest
import torch

from video.motion_field import EASE, MotionField, ease, fit_motion_field

pytestmark = pytest.mark.unit


def _core(components: int) -> MotionField:
    return MotionField(grid=2, side=8, components=components, frames_per_latent=4)


def _low_rank_fields(rank: int, count: int = 60) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    basis = torch.randn(rank, 4, 3, 8, 8, generator=generator)
    weights = torch.randn(count, rank, generator=generator)
    return torch.einsum("nr,rfqhw->nfqhw", weights, basis) + 0.5


def test_fields_of_low_rank_are_reproduced() -> None:
    core, fields = _core(3), _low_rank_fields(3)
    assert fit_motion_field(core, fields) == pytest.approx(1.0, abs=1e-4)
    again = core.decode(core.encode(fields[:, None]))[:, 0]
    torch.testing.assert_close(again, fields, atol=2e-3, rtol=1e-3)


def test_too_few_components_keep_less_energy_and_the_figure_says_so() -> None:
    core = _core(2)
    kept = fit_motion_field(core, _low_rank_fields(6))
    assert 0.2 < kept < 0.95


def test_latents_have_about_unit_size() -> None:
    core, fields = _core(3), _low_rank_fields(3, count=400)
    fit_motion_field(core, fields)
    latents = core.encode(fields[:, None])
    assert latents.shape == (400, 3, 1, 2, 2)
    assert 0.7 < float(latents.std()) < 1.3


def test_a_side_that_is_no_multiple_of_the_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple"):
        MotionField(grid=3, side=8, components=1, frames_per_latent=4)


def _steps(*heights: float) -> torch.Tensor:
    """Fields of latents that stand still, each at another height: all change is at the borders."""
    return torch.tensor(heights)[None, :, None, None, None, None].expand(1, -1, 4, 3, 2, 2)


def test_a_jump_between_latents_is_spread_over_the_frames_after_it() -> None:
    eased, last = ease(_steps(0.0, 1.0), torch.zeros(1, 3, 2, 2))
    frames = eased[0, :, :, 0, 0, 0].flatten()
    torch.testing.assert_close(frames[4:], 1.0 - EASE ** torch.arange(1.0, 5.0))
    torch.testing.assert_close(last, eased[:, -1, -1])


def test_what_stands_still_stays_and_any_cut_is_the_same() -> None:
    still, _ = ease(_steps(2.0, 2.0), torch.full((1, 3, 2, 2), 2.0))
    assert torch.equal(still, _steps(2.0, 2.0))
    fields, start = torch.randn(1, 5, 4, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    whole, end = ease(fields, start)
    first, between = ease(fields[:, :2], start)
    second, last = ease(fields[:, 2:], between)
    assert torch.equal(torch.cat((first, second), dim=1), whole)
    assert torch.equal(last, end)
