"""The output size rule against the reference's rows, and what it promises for any picture."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.goldens import GoldenSet
from video.size import output_size

pytestmark = pytest.mark.unit


@pytest.mark.golden
def test_rows_of_the_reference(golden_set: GoldenSet) -> None:
    rows = golden_set.tensors("misc")["size.rows"].tolist()
    wrong = [row for row in rows if output_size(*row[:3]) != tuple(row[3:])]
    assert rows
    assert not wrong


@given(
    height=st.integers(1, 5000), width=st.integers(1, 5000), area=st.integers(64 * 64, 1_000_000)
)
def test_size_is_whole_cells_within_the_area(height: int, width: int, area: int) -> None:
    out_height, out_width = output_size(height, width, area)
    assert out_height >= 64
    assert out_width >= 64
    assert out_height % 64 == out_width % 64 == 0
    assert out_height * out_width <= area


def test_turning_the_picture_turns_the_size() -> None:
    assert output_size(400, 720, 288_000) == output_size(720, 400, 288_000)[::-1]


@pytest.mark.parametrize(
    ("height", "width", "area"), [(0, 100, 288_000), (100, -1, 288_000), (100, 100, 64 * 64 - 1)]
)
def test_unusable_input_is_named(height: int, width: int, area: int) -> None:
    with pytest.raises(ValueError, match=f"{width}x{height} px in an area of {area} px"):
        output_size(height, width, area)
