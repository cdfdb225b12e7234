"""A live session's figures: differences of counters, held against their bars."""

from dataclasses import replace
from typing import Any

import pytest
from live_figures import Run, concealed, figures, percentile

from tests.support.flash_probe import judged

pytestmark = pytest.mark.unit


def _inbound(frames: int, freezes: int, made_up: int) -> dict[str, Any]:
    video = {"framesDecoded": frames, "freezeCount": freezes, "timestamp": 40.0 * frames}
    audio = {
        "concealedSamples": made_up + 50,
        "silentConcealedSamples": 50,
        "totalSamplesReceived": 1920 * frames,
    }
    return {"video": video, "audio": audio}


_GOOD = Run(
    first_ms=900.0,
    seconds=40.0,
    before=_inbound(100, 2, 500),
    after=_inbound(1100, 2, 500),
    sync={"sync": judged({"offsetsMs": [10.0] * 20, "flashes": 20, "beeps": 20}), "seconds": 20.0},
    interrupts_ms=[120.0] * 20,
    offsets_ms=[-20.0, 30.0],
)


def _missed(run: Run) -> list[str]:
    return [figure.name for figure in figures(run) if not figure.is_met]


def test_what_was_before_the_measurement_does_not_count() -> None:
    assert not _missed(_GOOD)
    assert figures(_GOOD)[1].value == "25.00 fps"
    assert concealed(_GOOD) == 0


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"first_ms": 1501.0}, "first sound with its picture"),
        ({"after": _inbound(1100, 3, 500)}, "freezes"),
        ({"after": _inbound(1100, 2, 500 + 19_200)}, "concealed sound"),
        ({"offsets_ms": [-70.0]}, "offset by statistics, p95"),
        ({"offsets_ms": []}, "offset by statistics, p95"),
        ({"interrupts_ms": [100.0] * 18 + [300.0] * 2}, "interrupt to silence, p95 of 20"),
        ({"interrupts_ms": [float("nan")] + [100.0] * 19}, "interrupt to silence, p95 of 20"),
        (
            {"sync": {"sync": judged({"offsetsMs": [200.0] * 9, "flashes": 9, "beeps": 9}),
                      "seconds": 9.0}},
            "beep minus flash, p5 … p95",
        ),
    ],
)  # fmt: skip
def test_every_bar_can_be_missed(change: dict[str, Any], name: str) -> None:
    assert _missed(replace(_GOOD, **change)) == [name]


def test_too_few_frames_miss_the_bar() -> None:
    slow = _inbound(1100, 2, 500)
    slow["video"]["timestamp"] *= 1.1
    assert "frames" in _missed(replace(_GOOD, after=slow))


def test_the_nearest_rank_of_nothing_is_no_number() -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0], 50) == 2.0
    assert percentile([], 95) != percentile([], 95)
