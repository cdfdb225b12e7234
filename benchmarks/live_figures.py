"""What a visit to the demo page comes to: figures with the bars they are held against."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Raw measurements: `before` and `after` are inbound statistics by kind, `sync` a judgement.

    `offsets_ms` are sound minus picture by the browser's own clock, `sync` at eye and ear.
    """

    first_ms: float
    seconds: float
    before: dict[str, Any]
    after: dict[str, Any]
    sync: dict[str, Any] | None
    interrupts_ms: Sequence[float]
    offsets_ms: Sequence[float]


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the report."""

    name: str
    value: str
    bar: str
    is_met: bool


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest rank; NaN of nothing or where something is NaN."""
    if not values or any(math.isnan(value) for value in values):
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share / 100 * len(ordered)) - 1)]


def figures(run: Run) -> list[Figure]:
    """Every figure that was measured, in the order of the issue."""
    seconds = _grown(run, "video", "timestamp") / 1000
    fps = _grown(run, "video", "framesDecoded") / seconds
    freezes = _grown(run, "video", "freezeCount")
    keys_per_5s = 5 * _grown(run, "video", "keyFramesDecoded") / seconds
    stats_ms = percentile([abs(offset) for offset in run.offsets_ms], 95)
    silence_ms = percentile(run.interrupts_ms, 95)
    found = [
        Figure("first sound with its picture", f"{run.first_ms:.0f} ms", "≤ 1500 ms",
               run.first_ms <= 1500),
        Figure("frames", f"{fps:.2f} fps", "≥ 24 fps", fps >= 24),
        Figure("freezes", f"{freezes:.0f}", "0", freezes == 0),
        Figure("concealed sound", f"{concealed(run):.2%}", "< 1 %", concealed(run) < 0.01),
        Figure("key frames in 5 s", f"{keys_per_5s:.2f}", "< 1", keys_per_5s < 1),
        Figure("offset by statistics, p95", f"{stats_ms:.0f} ms", "< 60 ms", stats_ms < 60),
    ]  # fmt: skip
    if run.sync is not None:
        found.append(_truth(run.sync))
    if run.interrupts_ms:
        name = f"interrupt to silence, p95 of {len(run.interrupts_ms)}"
        found.append(Figure(name, f"{silence_ms:.0f} ms", "≤ 250 ms", silence_ms <= 250))
    return found


def concealed(run: Run) -> float:
    """Share of the sound that was made up for lost packets, silence not counted."""
    made_up = _grown(run, "audio", "concealedSamples")
    made_up -= _grown(run, "audio", "silentConcealedSamples")
    return max(0.0, made_up) / max(1.0, _grown(run, "audio", "totalSamplesReceived"))


def _truth(found: dict[str, Any]) -> Figure:
    """Beep minus flash, where they are heard and seen."""
    sync = found["sync"]
    value = (
        f"{sync.low_ms:+.0f} … {sync.high_ms:+.0f} ms, median {sync.median_ms:+.0f} "
        f"({sync.num_pairs} pairs in {found['seconds']:.0f} s)"
    )
    return Figure("beep minus flash, p5 … p95", value, "-45 … +100 ms", sync.is_good)


def _grown(run: Run, kind: str, name: str) -> float:
    return float(run.after[kind].get(name, 0)) - float(run.before[kind].get(name, 0))
