"""How many sessions a chain carries, by what chunks took."""

import pytest

from pipeline.capacity import capacity

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("times_s", "sessions"),
    [([0.1], 4), ([0.2, 0.21, 5.0], 1), ([0.04] * 3, 10), ([3.0], 1), ([0.24], 1), ([0.19], 2)],
)
def test_what_fits_into_most_of_real_time(times_s: list[float], sessions: int) -> None:
    assert capacity(times_s, 0.48).sessions == sessions


def test_work_is_seconds_of_the_chain_for_a_second_of_video() -> None:
    assert capacity([0.1, 0.12, 0.3], 0.48).work_s == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("times_s", "chunk_s", "share"),
    [([], 0.48, 0.85), ([0.0], 0.48, 0.85), ([0.1], 0.0, 0.85), ([0.1], 0.48, 0.0)],
)
def test_no_measurement_is_no_capacity(times_s: list[float], chunk_s: float, share: float) -> None:
    with pytest.raises(ValueError, match=r"measurement|share"):
        capacity(times_s, chunk_s, share)
