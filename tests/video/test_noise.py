"""Noise levels follow the published rule; noise does not depend on who draws it."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.goldens import GoldenSet
from video.noise import (
    NoiseSchedule,
    _philox,
    clean_estimate,
    counter_noise,
    euler_step,
    renoise_step,
    shifted_sigmas,
    velocity_from_prediction,
)

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.golden
def test_schedules_match_the_reference(golden_set: GoldenSet) -> None:
    t = golden_set.tensors("misc")
    counts = sorted({int(k.split(".")[1][1:]) for k in t if k.startswith("sched.")})
    assert counts
    for n in counts:
        schedule = NoiseSchedule(shifted_sigmas(n))
        sigmas, times = torch.tensor(schedule.sigmas), torch.tensor(schedule.timesteps)
        torch.testing.assert_close(sigmas, t[f"sched.n{n}.sigmas"], atol=1e-6, rtol=0)
        torch.testing.assert_close(times, t[f"sched.n{n}.timesteps"], atol=1e-3, rtol=0)


def test_four_steps_are_the_published_ones() -> None:
    expected = (1.0, 0.8576923, 0.6021506, 0.0089286, 0.0)
    assert shifted_sigmas(4) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("sigmas", [(1.0,), (1.2, 0.0), (1.0, 1.0, 0.0), (0.5, -0.1), (0.0, 1.0)])
def test_schedule_refuses_levels_that_do_not_fall_from_one_to_zero(
    sigmas: tuple[float, ...],
) -> None:
    with pytest.raises(ValueError, match="sigmas"):
        NoiseSchedule(sigmas)


def test_steps_along_the_true_velocity_reach_the_data() -> None:
    data, noise = torch.randn(2, 4, 3, 5, 5)
    velocity, sigmas = noise - data, shifted_sigmas(3)
    x = noise
    for sigma_in, sigma_out in pairwise(sigmas):
        torch.testing.assert_close(clean_estimate(x, velocity, sigma_in), data)
        x = euler_step(x, velocity, sigma_in, sigma_out)
        torch.testing.assert_close(x, renoise_step(data, noise, sigma_out))
    torch.testing.assert_close(x, data)


def test_velocity_from_each_kind_of_prediction() -> None:
    data, noise, cond = torch.randn(3, 4, 3, 5, 5)
    x = renoise_step(data, noise, 0.7)
    kept = velocity_from_prediction("velocity", noise - data, x, 0.7, None)
    torch.testing.assert_close(kept, noise - data)
    made = velocity_from_prediction("residual", data - cond, x, 0.7, cond)
    torch.testing.assert_close(made, noise - data, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="kind"):
        velocity_from_prediction("x0", data, x, 0.7, None)  # type: ignore[arg-type]  # on purpose


def test_noise_is_pinned() -> None:
    """Another generator would break resumption of what was rendered before."""
    noise = counter_noise(42, 3, 1, (5, 1, 1, 1), 9).flatten()
    expected = torch.tensor([0.5294475, 1.6349319, -1.0130359, -3.0143692, -0.7528508])
    torch.testing.assert_close(noise, expected, atol=1e-6, rtol=0)


def test_philox_matches_its_published_vectors() -> None:
    def words(seed: int, counter: tuple[int, int, int, int]) -> list[int]:
        return [int(w) for w in _philox(seed, tuple(np.array(c, np.uint64) for c in counter))]

    assert words(0, (0, 0, 0, 0)) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    full = 0xFFFFFFFF
    assert words((full << 32) | full, (full,) * 4) == [
        0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD,
    ]  # fmt: skip
    pi_key = (0x299F31D0 << 32) | 0xA4093822
    counter = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
    assert words(pi_key, counter) == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**64 - 1), frame=st.integers(0, 2**31), dt=st.integers(0, 2),
    y=st.integers(0, 4), x=st.integers(0, 4), channels=st.integers(1, 9),
)  # fmt: skip
def test_any_crop_draws_the_same(
    seed: int, frame: int, dt: int, y: int, x: int, channels: int
) -> None:
    whole = counter_noise(seed, 5, 2, (9, 3, 6, 7), frame)
    part = counter_noise(seed, 5, 2, (channels, 3 - dt, 6 - y, 7 - x), frame + dt, origin_yx=(y, x))
    assert torch.equal(part, whole[:channels, dt:, y:, x:])


def test_every_coordinate_matters() -> None:
    base = counter_noise(1, 2, 3, (8, 2, 4, 4), 5)
    for other in (
        counter_noise(2, 2, 3, (8, 2, 4, 4), 5),
        counter_noise(1 + 2**40, 2, 3, (8, 2, 4, 4), 5),
        counter_noise(1, 3, 3, (8, 2, 4, 4), 5),
        counter_noise(1, 2, 4, (8, 2, 4, 4), 5),
        counter_noise(1, 2, 3, (8, 2, 4, 4), 7),
    ):
        assert not torch.isin(base, other).any()
    assert torch.unique(base).numel() == base.numel()


def test_moments_are_those_of_the_standard_normal() -> None:
    noise = counter_noise(7, 0, 0, (16, 6, 32, 32), 0).double()
    n = noise.numel()
    assert abs(float(noise.mean())) < 4 / n**0.5
    assert abs(float(noise.var()) - 1) < 4 * (2 / n) ** 0.5
    assert abs(float((noise**3).mean())) < 4 * (15 / n) ** 0.5
    assert abs(float((noise**4).mean()) - 3) < 4 * (96 / n) ** 0.5
    flat = noise.flatten(1)
    correlation = torch.corrcoef(flat) - torch.eye(16, dtype=torch.float64)
    assert float(correlation.abs().max()) < 5 / flat.shape[1] ** 0.5


@pytest.mark.parametrize("bad", [{"seed": -1}, {"chunk": 2**32}, {"step": 2**16}, {"frame": -3}])
def test_coordinates_outside_the_counter_are_refused(bad: dict[str, int]) -> None:
    place = {"seed": 0, "chunk": 0, "step": 0, "frame": 0} | bad
    with pytest.raises(ValueError, match="counter"):
        counter_noise(place["seed"], place["chunk"], place["step"], (4, 1, 2, 2), place["frame"])
