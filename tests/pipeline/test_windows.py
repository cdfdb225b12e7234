"""The wavefront over windows gives the bits of the whole clip done at once.

Shape legend: C = channels, T = frames, H, W = rows and columns.
"""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.window_spec import WindowSpec
from pipeline.windows import (
    BlendBuffer,
    batch,
    batch_causal,
    batch_shifted,
    blended,
    shifted_bounds,
    wavefront,
    window_starts,
)

pytestmark = pytest.mark.unit

# Frames, length, overlap: the design's shapes, below and above half a window, and odd ends.
SHAPES = [(51, 15, 5), (60, 12, 8), (33, 9, 6), (40, 10, 0), (27, 9, 1), (50, 20, 19), (23, 23, 4)]


def noise(num_frames: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, num_frames, 2, 3, generator=torch.Generator().manual_seed(seed))


def step_of_window(step: int, start: int, latents_CLHW: torch.Tensor) -> torch.Tensor:
    """A step in which every frame hears of every other of its window, and of where that is."""
    whole = latents_CLHW.mean(dim=1, keepdim=True)
    drift = latents_CLHW.roll(1, dims=1) * 0.3 + whole
    return torch.sin(latents_CLHW * (1.1 + 0.1 * step) + drift + 0.01 * start)


def test_windows_begin_at_strides_and_the_last_one_ends_with_the_clip() -> None:
    assert window_starts(30, 12, 3) == (0, 9, 18)
    assert window_starts(29, 12, 3) == (0, 9, 17)
    assert window_starts(12, 12, 3) == (0,)
    with pytest.raises(ValueError, match="make the clip longer"):
        window_starts(11, 12, 3)


def test_a_blend_goes_from_the_earlier_window_to_the_later_one() -> None:
    made = blended(torch.zeros(1, 5, 1, 1), torch.ones(1, 5, 1, 1))
    assert made.flatten().tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert blended(torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)).item() == 0.0


@pytest.mark.parametrize("blend_first", [True, False])
@pytest.mark.parametrize("num_steps", [1, 2, 4, 7])
@pytest.mark.parametrize(("num_frames", "length", "overlap"), SHAPES)
def test_the_wavefront_is_the_batch_to_the_bit(
    num_frames: int, length: int, overlap: int, num_steps: int, blend_first: bool
) -> None:
    starts, x_CTHW = window_starts(num_frames, length, overlap), noise(num_frames)
    expected = batch(x_CTHW, num_steps, starts, length, step_of_window, blend_first=blend_first)
    made, _ = wavefront(x_CTHW, num_steps, starts, length, step_of_window, blend_first=blend_first)
    assert torch.equal(made, expected)


@given(data=st.data())
def test_any_shape_gives_the_batch_to_the_bit(data: st.DataObject) -> None:
    length = data.draw(st.integers(1, 12))
    overlap = data.draw(st.integers(0, length - 1))
    num_frames = data.draw(st.integers(length, 4 * length + 3))
    num_steps = data.draw(st.integers(1, 5))
    starts, x_CTHW = window_starts(num_frames, length, overlap), noise(num_frames, seed=1)
    made, _ = wavefront(x_CTHW, num_steps, starts, length, step_of_window)
    assert torch.equal(made, batch(x_CTHW, num_steps, starts, length, step_of_window))


@pytest.mark.parametrize("num_steps", [1, 2, 4])
@pytest.mark.parametrize(
    ("num_windows", "length", "overlap"), [(7, 15, 5), (7, 51, 30), (5, 8, 4), (6, 8, 6), (4, 5, 0)]
)
def test_it_takes_the_slots_that_the_hold_back_says(
    num_windows: int, length: int, overlap: int, num_steps: int
) -> None:
    num_frames = (num_windows - 1) * (length - overlap) + length
    starts = window_starts(num_frames, length, overlap)
    held_back = WindowSpec(length=length, overlap=overlap).held_back
    _, slots = wavefront(noise(num_frames), num_steps, starts, length, step_of_window)
    assert slots == num_windows + (1 + held_back) * (num_steps - 1)


def test_the_designs_example_takes_13_slots_in_place_of_28() -> None:
    starts = window_starts(6 * 46 + 51, 51, 5)
    _, slots = wavefront(noise(6 * 46 + 51), 4, starts, 51, step_of_window)
    assert (len(starts), slots) == (7, 13)


def test_releasing_a_window_too_early_would_show() -> None:
    """The detector's own check: windows that hold back one stride less give other latents."""
    starts, x_CTHW = window_starts(60, 12, 8), noise(60)
    right = batch(x_CTHW, 4, starts, 12, step_of_window)
    early = batch_causal(x_CTHW, 4, starts, 12, step_of_window)
    assert not torch.equal(early, right)


@pytest.mark.parametrize(("num_frames", "length", "overlap"), SHAPES)
def test_a_causal_blend_is_near_the_exact_one_and_the_same_after_one_step(
    num_frames: int, length: int, overlap: int
) -> None:
    starts, x_CTHW = window_starts(num_frames, length, overlap), noise(num_frames)
    one = batch_causal(x_CTHW, 1, starts, length, step_of_window)
    assert torch.equal(one, batch(x_CTHW, 1, starts, length, step_of_window))
    exact = batch(x_CTHW, 3, starts, length, step_of_window)
    causal = batch_causal(x_CTHW, 3, starts, length, step_of_window)
    assert causal.shape == exact.shape
    assert torch.equal(causal, exact) == (len(starts) == 1 or overlap == 0)


def test_the_last_step_of_a_causal_blend_still_blends() -> None:
    """The middle frame of an overlap lies between what the two windows made of it alone."""
    starts, x_CTHW = (0, 4), noise(11)
    alone = [batch_causal(x_CTHW[:, s : s + 7], 1, (0,), 7, step_of_window) for s in starts]
    made = batch_causal(x_CTHW, 1, starts, 7, lambda step, _, x: step_of_window(step, 0, x))
    assert torch.allclose(made[:, 5], (alone[0][:, 5] + alone[1][:, 1]) / 2)


def test_shifted_windows_cover_the_clip_once_and_move() -> None:
    assert shifted_bounds(20, 8, 0) == ((0, 8), (8, 16), (16, 20))
    assert shifted_bounds(20, 8, 3) == ((0, 3), (3, 11), (11, 19), (19, 20))
    assert shifted_bounds(5, 8, 6) == ((0, 5),)
    bounds = [shifted_bounds(20, 8, offset) for offset in (0, 3, 6)]
    made = batch_shifted(noise(20), bounds, step_of_window)
    fixed = batch_shifted(noise(20), [bounds[0]] * 3, step_of_window)
    assert made.shape == fixed.shape
    assert not torch.equal(made, fixed)


def test_a_buffer_refuses_holes_and_frames_that_are_not_there() -> None:
    buffer = BlendBuffer()
    buffer.write(0, noise(6))
    with pytest.raises(ValueError, match="run windows in order"):
        buffer.write(7, noise(6))
    buffer.release(4)
    with pytest.raises(ValueError, match="run windows in order"):
        buffer.write(3, noise(6))
    with pytest.raises(ValueError, match="not written"):
        buffer.release(7)
    assert math.prod(buffer.release(6).shape) == 2 * 2 * 2 * 3
