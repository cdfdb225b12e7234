"""Crossing resolutions: noise stays white, of the strength that the new level says.

Shape legend: C = channels, T = frames, H, W = latent grid.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from video.hinge import carried_over, factor, level_after, level_before, resized, size_at
from video.noise import counter_noise, renoise_step

pytestmark = pytest.mark.unit

LOW = (16, 8, 24, 24)  # 74 thousand values: variances are known to half a percent
SIGMAS = (0.1, 0.5, 0.882, 1.0)


def noise(draw: int, shape: tuple[int, int, int, int]) -> torch.Tensor:
    return counter_noise(7, 0, draw, shape, 0).double()


def grown(shape: tuple[int, int, int, int], times: int) -> tuple[int, int, int, int]:
    return (*shape[:2], shape[2] * times, shape[3] * times)


def copied(x_CTHW: torch.Tensor, times: int) -> torch.Tensor:
    return x_CTHW.repeat_interleave(times, -2).repeat_interleave(times, -1)


def block_means(x_CTHW: torch.Tensor, times: int) -> torch.Tensor:
    return F.avg_pool2d(x_CTHW, times)


def neighbours(e_CTHW: torch.Tensor, axis: int, times: int, inside: bool) -> float:
    """Covariance of neighbours along an axis, those of one block or those across two blocks."""
    size = e_CTHW.shape[axis]
    first = [i for i in range(size - 1) if ((i + 1) % times != 0) == inside]
    left = e_CTHW.index_select(axis, torch.tensor(first))
    right = e_CTHW.index_select(axis, torch.tensor(first) + 1)
    return float((left * right).mean())


def smooth(shape: tuple[int, int, int, int]) -> torch.Tensor:
    """A latent without noise: a plane of its own in each channel."""
    channels, frames, height, width = shape
    y, x = torch.linspace(-1, 1, height)[:, None], torch.linspace(0, 2, width)
    slopes = torch.linspace(-1, 1, channels)[:, None, None, None]
    return (slopes * y + x).expand(channels, frames, height, width).double()


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("times", [2, 3])
def test_noise_carried_to_a_finer_grid_is_white_and_as_strong_as_its_level(
    sigma: float, times: int
) -> None:
    data = smooth(LOW)
    x = renoise_step(data, noise(0, LOW), sigma)
    to_sigma = level_after(sigma, times)
    made = carried_over(x, sigma, times, noise(1, grown(LOW, times)))
    left = made - (1 - to_sigma) * copied(data, times)
    assert to_sigma == pytest.approx(times * sigma / (1 + (times - 1) * sigma))
    assert float(left.var()) == pytest.approx(to_sigma**2, rel=0.015)
    assert float(left.mean()) == pytest.approx(0.0, abs=0.02 * to_sigma)
    for axis in (-1, -2):
        for inside in (True, False):
            assert abs(neighbours(left, axis, times, inside)) < 0.015 * to_sigma**2
    diagonal = float((left[..., :-1, :-1] * left[..., 1:, 1:]).mean())
    assert abs(diagonal) < 0.015 * to_sigma**2
    assert float(left.pow(4).mean()) == pytest.approx(3 * to_sigma**4, rel=0.05), "still normal"


@pytest.mark.parametrize("way", ["nearest", "bilinear"])
def test_without_the_repair_the_same_measures_fail(way: str) -> None:
    """What the hinge is for: plain upsampling makes neighbours share their noise."""
    x = noise(0, LOW).transpose(0, 1)
    options = {} if way == "nearest" else {"align_corners": False}
    plain = F.interpolate(x, scale_factor=2, mode=way, **options).transpose(0, 1)
    assert neighbours(plain, -1, 2, True) > 0.3


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("times", [2, 3])
def test_noise_carried_to_a_coarser_grid_is_white_and_as_strong_as_its_level(
    sigma: float, times: int
) -> None:
    high = grown(LOW, times)
    data = copied(smooth(LOW), times)
    x = renoise_step(data, noise(0, high), sigma)
    to_sigma = level_after(sigma, 1 / times)
    made = carried_over(x, sigma, 1 / times, torch.empty(0))
    left = made - (1 - to_sigma) * smooth(LOW)
    assert made.shape == LOW
    assert float(left.var()) == pytest.approx(to_sigma**2, rel=0.02)
    for axis in (-1, -2):
        assert abs(neighbours(left, axis, 1 << 20, True)) < 0.02 * to_sigma**2


def test_data_comes_through_a_hinge_unharmed() -> None:
    data = smooth(LOW)
    zeros = torch.zeros(grown(LOW, 2)).double()
    torch.testing.assert_close(carried_over(data, 0.0, 2, zeros), copied(data, 2))
    kept = carried_over((1 - 0.6) * data, 0.6, 2, zeros)
    torch.testing.assert_close(kept, (1 - level_after(0.6, 2)) * copied(data, 2))


@pytest.mark.parametrize("sigma", SIGMAS)
def test_up_and_down_again_gives_the_latent_back(sigma: float) -> None:
    x = renoise_step(smooth(LOW), noise(0, LOW), sigma)
    up = carried_over(x, sigma, 2, noise(1, grown(LOW, 2)))
    down = carried_over(up, level_after(sigma, 2), 0.5, torch.empty(0))
    torch.testing.assert_close(down, x)


def test_a_ratio_of_one_changes_nothing() -> None:
    x = noise(0, LOW)
    assert carried_over(x, 0.7, 1.0, torch.empty(0)) is x
    assert resized(x, 1.0) is x
    assert size_at(24, 1.0) == 24
    for sigma in (0.0, 0.3, 1.0):
        assert level_after(sigma, 1.0) == level_before(sigma, 1.0) == sigma


@settings(max_examples=60, deadline=None)
@given(sigma=st.floats(0.0, 1.0), ratio=st.sampled_from([0.25, 1 / 3, 0.5, 2.0, 3.0, 4.0]))
def test_levels_go_there_and_back(sigma: float, ratio: float) -> None:
    there = level_after(sigma, ratio)
    assert 0.0 <= there <= 1.0 + 1e-12
    assert (there - sigma) * (ratio - 1.0) >= -1e-12
    assert level_before(there, ratio) == pytest.approx(sigma, abs=1e-9)
    assert level_after(level_before(sigma, ratio), ratio) == pytest.approx(sigma, abs=1e-9)


def test_levels_are_those_of_the_published_plan() -> None:
    assert level_before(0.9375, 2) == pytest.approx(0.882, abs=5e-4)
    assert level_before(1.0, 2) == level_after(1.0, 2) == 1.0


@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_clean_route_draws_all_noise_anew(sigma: float) -> None:
    """The clean estimate is resized and put back to a level: white whatever the estimate was."""
    data = smooth(LOW)
    up = resized(data, 2)
    made = renoise_step(up, noise(3, grown(LOW, 2)), sigma)
    left = made - (1 - sigma) * up
    assert float(left.var()) == pytest.approx(sigma**2, rel=0.015)
    for inside in (True, False):
        assert abs(neighbours(left, -1, 2, inside)) < 0.015 * sigma**2


def test_a_clean_latent_is_resized_smoothly_and_back_by_means() -> None:
    data = smooth((2, 3, 6, 8))
    up = resized(data, 2)
    assert up.shape == (2, 3, 12, 16)
    steps = up.diff(dim=-1)[..., 2:-2]
    torch.testing.assert_close(steps, steps[..., :1].expand_as(steps), msg="a plane stays one")
    constant = torch.full((2, 3, 6, 8), 0.7)
    torch.testing.assert_close(resized(constant, 2), torch.full((2, 3, 12, 16), 0.7))
    torch.testing.assert_close(resized(copied(data, 3), 1 / 3), data)
    torch.testing.assert_close(resized(up, 0.5), block_means(up, 2))


def test_sides_at_a_resolution() -> None:
    assert [size_at(24, r) for r in (1.0, 0.5, 1 / 3, 0.25)] == [24, 12, 8, 6]
    assert factor(2.0) == (2, True)
    assert factor(0.25) == (4, False)


@pytest.mark.parametrize("ratio", [1.5, 0.7, 0.4])
def test_a_ratio_that_is_no_whole_number_is_refused(ratio: float) -> None:
    x = torch.zeros(LOW)
    with pytest.raises(ValueError, match="whole number"):
        resized(x, ratio)
    with pytest.raises(ValueError, match="whole number"):
        carried_over(x, 0.5, ratio, x)
    with pytest.raises(ValueError, match="whole number"):
        size_at(24, ratio)


def test_a_grid_without_such_a_part_is_refused() -> None:
    x = torch.zeros(1, 1, 6, 9)
    with pytest.raises(ValueError, match="no blocks of 2"):
        resized(x, 0.5)
    with pytest.raises(ValueError, match="no blocks of 2"):
        carried_over(x, 0.5, 0.5, x)
    with pytest.raises(ValueError, match=r"9 has no 0\.5"):
        size_at(9, 0.5)


def test_noise_of_another_shape_is_refused() -> None:
    x = torch.zeros(1, 1, 4, 4)
    with pytest.raises(ValueError, match="draw it in their shape"):
        carried_over(x, 0.5, 2, x)
