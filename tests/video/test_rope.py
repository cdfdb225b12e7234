"""Rotary positions: the reference's tables, unlimited places, and the rolling reference."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.goldens import GoldenSet
from video.rope import (
    LatentGrid,
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
