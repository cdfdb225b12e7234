"""Rotary positions: the reference's tables, unlimited places, and the rolling reference."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.goldens import GoldenSet
from video.rope import (
    NATIVE,
    LatentGrid,
    RopeScaling,
    axis_rotations,
    condition_rotation,
    frames_rotation,
    reference_frame,
    rotate,
)

pytestmark = pytest.mark.unit

CPU = torch.device("cpu")
LIMIT = 2e-5


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def shape_of(golden_set: GoldenSet) -> tuple[LatentGrid, int, int]:
    config = golden_set.config("dit")
    grid = LatentGrid(height=config["lat_h"], width=config["lat_w"])
    return grid, config["dim"] // config["num_heads"], config["frames_per_block"]


@pytest.mark.golden
def test_tables_match_the_reference(golden_set: GoldenSet) -> None:
    t = golden_set.tensors("misc")
    grid, head_dim, num_frames = shape_of(golden_set)
    names = sorted({key.rsplit(".", 1)[0] for key in t if key.startswith("rope.")} - {"rope"})
    assert names
    for name in names:
        kind = name.removeprefix("rope.")
        if kind.startswith("noisy_start"):
            start = int(kind.removeprefix("noisy_start"))
            table = frames_rotation(start, num_frames, grid, head_dim, CPU)
        else:
            position = 30 + int(kind.removeprefix("cond_shift"))
            table = condition_rotation(position, grid, motion=True, head_dim=head_dim, device=CPU)
        torch.testing.assert_close(table.real, t[f"{name}.cos"], atol=LIMIT, rtol=0)
        torch.testing.assert_close(table.imag, t[f"{name}.sin"], atol=LIMIT, rtol=0)


@pytest.mark.golden
def test_rotation_matches_the_reference(golden_set: GoldenSet) -> None:
    t = golden_set.tensors("misc")
    grid, head_dim, num_frames = shape_of(golden_set)
    prefix = "rope.apply_out_start"
    starts = [int(key.removeprefix(prefix)) for key in t if key.startswith(prefix)]
    assert starts
    for start in starts:
        out = rotate(t["rope.apply_in"], frames_rotation(start, num_frames, grid, head_dim, CPU))
        torch.testing.assert_close(out, t[f"{prefix}{start}"], atol=LIMIT, rtol=0)


def test_axes_share_the_rotations_of_a_head() -> None:
    assert axis_rotations(128) == (22, 21, 21)
    assert axis_rotations(64) == (12, 10, 10)


@settings(max_examples=30, deadline=None)
@given(start=st.integers(-(10**6), 10**8), offset=st.integers(-50, 50))
def test_attention_depends_on_distance_alone_however_far(start: int, offset: int) -> None:
    grid = LatentGrid(height=2, width=2)
    generator = torch.Generator().manual_seed(7)
    q, k = torch.randn(2, 1, 1, 1, 24, generator=generator)

    def score(frame: int) -> float:
        left = rotate(q, frames_rotation(frame, 1, grid, 24, CPU))
        right = rotate(k, frames_rotation(frame + offset, 1, grid, 24, CPU))
        return float((left * right).sum())

    assert math.isclose(score(start), score(0), abs_tol=1e-5)


def test_rotation_keeps_dtype_and_length() -> None:
    table = frames_rotation(5, 2, LatentGrid(height=4, width=4), 16, CPU)
    x = torch.randn(1, 8, 2, 16)
    torch.testing.assert_close(rotate(x, table).norm(dim=-1), x.norm(dim=-1))
    assert rotate(x.bfloat16(), table).dtype == torch.bfloat16
    assert rotate(x.double(), table).dtype == torch.float64


@pytest.mark.parametrize(
    ("start", "distance", "expected"),
    [(0, 15, 30), (15, 15, 30), (16, 15, 31), (3000, 17, 3017), (0, 30, 30), (3000, None, 30)],
)
def test_reference_rolls_once_the_stream_comes_near(
    start: int, distance: int | None, expected: int
) -> None:
    assert reference_frame(start, distance) == expected


HALF = {"height": 4, "width": 6}


def table(scaling: RopeScaling, head_dim: int = 24) -> torch.Tensor:
    """Rotations `[rows * cols, R]` of one frame on a grid of 2 x 3 tokens."""
    return frames_rotation(0, 1, LatentGrid(**HALF, scaling=scaling), head_dim, CPU)


def test_known_resolution_and_native_kind_scale_nothing() -> None:
    assert RopeScaling.of("native", 0.5, 1.0) == NATIVE
    for kind in ("positions", "ntk"):
        assert RopeScaling.of(kind, 0.5, 0.5) == NATIVE
        same = table(RopeScaling(kind=kind, stretch=1.0))
        assert torch.equal(same, table(NATIVE)), "bit for bit"


def test_interpolated_positions_are_the_middles_of_blocks() -> None:
    scaling = RopeScaling.of("positions", 0.5, 1.0)
    assert scaling.places(np.arange(3)).tolist() == [0.5, 2.5, 4.5]
    assert RopeScaling.of("positions", 1 / 3, 1.0).places(np.arange(2)).tolist() == [1.0, 4.0]
    # A finer grid than the known one: two tokens share what was one.
    finer = RopeScaling.of("positions", 1.0, 0.5)
    assert finer.places(np.arange(4)).tolist() == [-0.25, 0.25, 0.75, 1.25]
    # What lies halfway between two tokens of the fine grid is turned by the mean of their angles.
    fine_LR = frames_rotation(0, 1, LatentGrid(height=8, width=12), 24, CPU)
    fine = torch.unflatten(fine_LR, 0, (4, 6))
    coarse = torch.unflatten(table(scaling), 0, (2, 3))
    num_time, num_row, _ = axis_rotations(24)
    rows = slice(num_time, num_time + num_row)
    between = fine[0, 0, rows] * fine[1, 0, rows]  # angles add up to twice the middle's
    torch.testing.assert_close(coarse[0, 0, rows] ** 2, between, atol=1e-6, rtol=0)


def _angles(scaling: RopeScaling, head_dim: int) -> torch.Tensor:
    angles_LR = torch.angle(table(scaling, head_dim).to(torch.complex128))
    return torch.unflatten(angles_LR, 0, (2, 3))


@pytest.mark.parametrize("stretch", [2.0, 0.5, 3.0])
def test_ntk_turns_the_slowest_as_the_known_grid_and_the_fastest_as_always(stretch: float) -> None:
    head_dim = 48
    scaling = RopeScaling(kind="ntk", stretch=stretch)
    angles = _angles(scaling, head_dim)
    plain = _angles(NATIVE, head_dim)
    num_time, num_row, num_col = axis_rotations(head_dim)
    assert torch.equal(angles[..., :num_time], plain[..., :num_time]), "time is not scaled"
    for first, num, place in ((num_time, num_row, (1, 0)), (num_time + num_row, num_col, (0, 1))):
        now, before = angles[*place, first : first + num], plain[*place, first : first + num]
        torch.testing.assert_close(now[0], before[0])
        torch.testing.assert_close(now[-1], stretch * before[-1], atol=1e-7, rtol=1e-3)
        assert bool((now[1:] > before[1:]).all() if stretch > 1 else (now[1:] < before[1:]).all())


def test_motion_and_reference_follow_the_grid() -> None:
    grid = LatentGrid(height=16, width=16, scaling=RopeScaling(kind="positions", stretch=2.0))
    plain = replace(grid, scaling=NATIVE)
    assert grid.same_size(plain)
    assert grid != plain
    scaled, unscaled = (
        condition_rotation(30, g, motion=True, head_dim=24, device=CPU) for g in (grid, plain)
    )
    num_time = axis_rotations(24)[0]
    assert scaled.shape == unscaled.shape
    assert torch.equal(scaled[:, :num_time], unscaled[:, :num_time])
    assert bool((scaled[:, num_time:] != unscaled[:, num_time:]).any(dim=1).all())
