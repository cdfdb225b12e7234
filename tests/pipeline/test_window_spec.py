"""Windows of a plan: how many strides they need, and what cannot be laid side by side."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import PlanError
from pipeline.plan_parse import parse_plan
from pipeline.window_spec import WindowSpec

pytestmark = pytest.mark.unit

PLAN = """
name: windowed
mode: render
frames_per_chunk: {stride}
windows: {windows}
{more}
stages:
  - name: one
    steps:
      - {{sigma_in: 1.0, sigma_out: 0.5, rule: euler}}
      - {{sigma_in: 0.5, sigma_out: 0.0, rule: euler}}
"""


def parsed(windows: str, stride: int = 9, more: str = "") -> Any:
    return parse_plan(PLAN.format(windows=windows, stride=stride, more=more), source="here")


def test_a_plan_takes_windows_whose_stride_is_its_chunk() -> None:
    windows = parsed("{length: 12, overlap: 3, blend: exact}").windows
    assert windows == WindowSpec(length=12, overlap=3)
    assert (windows.stride(2), windows.held_back, windows.lag(2)) == (9, 1, 2)


@pytest.mark.parametrize(
    ("windows", "stride", "more", "complaint"),
    [
        ("{length: 12, overlap: 3}", 3, "", "set it to 9"),
        ("{length: 12, overlap: 12}", 9, "", "windows.overlap 12 must lie in 0..11"),
        ("{length: 12, overlap: 3, blend: soft}", 9, "", "windows.blend"),
        ("{length: 9, overlap: 3, blend: shifted, shift: 3}", 9, "", "do not overlap"),
        ("{length: 9, blend: shifted}", 9, "", "windows.shift 0"),
        ("{length: 9, shift: 3}", 9, "", "windows.shift 3"),
        ("{length: 9, blend: rolling}", 9, "", "make length a multiple of 2"),
        ("{length: 12, overlap: 3, height: 1}", 9, "", "height"),
        ("{length: 12, overlap: 3}", 9, "short: {steps: [0]}", "leave out short"),
    ],
)
def test_windows_that_do_not_fit_are_refused(
    windows: str, stride: int, more: str, complaint: str
) -> None:
    with pytest.raises(PlanError, match=complaint) as refused:
        parsed(windows, stride, more)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("length", "overlap", "held_back"), [(51, 30, 2), (51, 5, 1), (8, 4, 1), (8, 6, 3), (8, 0, 0)]
)
def test_a_window_holds_back_what_it_reaches_into(
    length: int, overlap: int, held_back: int
) -> None:
    """The design's two examples, and overlaps of none, half, and three quarters."""
    windows = WindowSpec(length=length, overlap=overlap)
    assert windows.held_back == held_back
    assert windows.lag(4) == 4 * held_back
    assert WindowSpec(length=length, overlap=overlap, blend="causal").lag(4) == held_back


@given(data=st.data(), num_frames=st.integers(0, 300))
def test_the_strides_asked_for_are_the_fewest_that_cover(
    data: st.DataObject, num_frames: int
) -> None:
    length = data.draw(st.integers(1, 40))
    windows = WindowSpec(length=length, overlap=data.draw(st.integers(0, length - 1)))
    stride, held_back = windows.stride(3), windows.held_back
    needed = windows.num_strides(num_frames, 3)

    def covered(num_strides: int) -> int:
        num_windows = num_strides - held_back
        return (num_windows - 1) * stride + length if num_windows > 0 else 0

    assert covered(needed) >= num_frames
    assert covered(needed) <= needed * stride
    if needed:
        assert covered(needed - 1) < num_frames


def test_shifted_borders_move_at_every_step_and_hold_back_where_they_cut_a_stride() -> None:
    windows = WindowSpec(length=9, blend="shifted", shift=3)
    assert [windows.offset(step) for step in range(5)] == [0, 3, 6, 0, 3]
    assert (windows.stride(5), windows.lag(5)) == (9, 3)


def test_a_rolling_window_holds_a_stride_for_each_step() -> None:
    windows = WindowSpec(length=12, blend="rolling")
    assert (windows.stride(4), windows.lag(4), windows.num_strides(7, 4)) == (3, 3, 3)
