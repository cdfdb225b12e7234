"""Curves show what the log says, whatever state the log is in."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from training.curves import draw_curves, read_series, ticks, value_range
from training.errors import InputError
from training.progress import describe, describe_rate

pytestmark = pytest.mark.unit


def _log(run: Path, *records: object) -> None:
    text = "".join(json.dumps(record) + "\n" for record in records)
    (run / "log.jsonl").write_text(text)


def test_series_are_ordered_and_a_step_gone_through_again_counts_once(tmp_path: Path) -> None:
    _log(
        tmp_path, {"step": 100, "loss": 1.0}, {"step": 50, "loss": 2.0}, {"step": 100, "loss": 3.0}
    )
    (series,) = read_series(tmp_path)
    assert series.points == [(50, 2.0), (100, 3.0)]


def test_lines_that_are_none_are_passed_over(tmp_path: Path) -> None:
    _log(tmp_path, {"step": 50, "loss": 1.0}, [1], 7, {"loss": 2.0}, {"step": 60, "loss": None})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 100, "loss": NaN}\n{"step": 150, "lo')
    (series,) = read_series(tmp_path)
    assert series.points == [(50, 1.0)]


def test_a_run_without_figures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"log\.jsonl"):
        draw_curves(tmp_path)


def test_a_picture_changes_with_the_figures(tmp_path: Path) -> None:
    pictures = []
    for slope in (1.0, -1.0):
        _log(tmp_path, *({"step": s, "loss": 5 + slope * s / 100} for s in range(0, 300, 50)))
        with Image.open(draw_curves(tmp_path)) as picture:
            pictures.append(np.asarray(picture.convert("L"), np.float32))
    assert pictures[0].shape == pictures[1].shape
    assert np.abs(pictures[0] - pictures[1]).max() > 50


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60))
def test_ticks_lie_in_the_range_and_are_few(values: list[float]) -> None:
    low, high = value_range(values)
    assert low < high
    marks = ticks(low, high)
    assert 1 <= len(marks) <= 8
    slack = 1e-6 * (high - low) + 1e-9 * max(abs(low), abs(high))
    assert all(low - slack <= mark <= high + slack for mark in marks)


def test_progress_tells_rate_and_what_is_left() -> None:
    assert describe("codec", 100, 160, 400, 120.0) == "codec: 160 of 400, 2.0 s each, 8.0 min left"
    assert describe("codec", 100, 100, 400, 9.0) == "codec: 100 of 400, starting"
    assert describe_rate(30, 10.0) == "3.0/s"
