"""Gates: what is outside, not a number or not measured at all is missed."""

import pytest

from pipeline.gates import GATES, missed

pytestmark = pytest.mark.unit


def test_figures_inside_their_gates_miss_none() -> None:
    figures = {"envelope_corr": 0.6, "pause_opening_share": 0.1, "anything": 9.0}
    assert missed("recording", figures) == []


@pytest.mark.parametrize("corr", [0.49, float("nan")])
def test_what_is_outside_or_no_number_is_missed(corr: float) -> None:
    figures = {"envelope_corr": corr, "pause_opening_share": 0.1}
    assert missed("recording", figures) == ["envelope_corr"]


@pytest.mark.parametrize("kind", sorted(GATES))
def test_nothing_measured_misses_every_gate(kind: str) -> None:
    assert missed(kind, {}) == list(GATES[kind])


@pytest.mark.parametrize(("lag", "fails"), [(-2, True), (-1, False), (1, False), (2, True)])
def test_a_lag_of_one_frame_is_allowed(lag: int, fails: bool) -> None:
    assert ("lag_frames" in missed("speech", {"lag_frames": lag})) is fails
