"""Brings the flash probe of tests/browser into a page, and judges what it measured."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.browser import Page

_FOLDER = Path(__file__).parents[1] / "browser"
# ITU-R BT.1359 and the trade's own alarms: sound at most 45 ms early and 100 ms late.
EARLIEST_MS, LATEST_MS = -45.0, 100.0


@dataclass(frozen=True, slots=True)
class Sync:
    """Beep minus flash, in ms: negative is sound before picture."""

    num_pairs: int
    num_flashes: int
    num_beeps: int
    median_ms: float
    low_ms: float
    high_ms: float

    @property
    def is_good(self) -> bool:
        """Whether 95 of 100 pairs lie within what nobody notices, and most flashes were paired."""
        is_seen = self.num_pairs >= max(3, self.num_flashes // 2)
        return is_seen and self.low_ms >= EARLIEST_MS and self.high_ms <= LATEST_MS


def judged(summary: dict[str, Any]) -> Sync:
    """Order a probe's summary into figures; nothing seen is not good."""
    offsets_ms = sorted(float(value) for value in summary["offsetsMs"])
    return Sync(
        num_pairs=len(offsets_ms),
        num_flashes=int(summary["flashes"]),
        num_beeps=int(summary["beeps"]),
        median_ms=percentile(offsets_ms, 50),
        low_ms=percentile(offsets_ms, 5),
        high_ms=percentile(offsets_ms, 95),
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """Nearest rank of ordered values; NaN of none."""
    if not ordered:
        return math.nan
    rank = math.ceil(share / 100 * len(ordered)) - 1
    return ordered[min(len(ordered) - 1, max(0, rank))]


async def install(page: Page, *modules: str) -> None:
    """Load modules of tests/browser into the page as properties of `window.measure`.

    The page must have been loaded with its content security policy off.
    """
    for name in ("flash_probe.js", *modules):
        source = (_FOLDER / name).read_text()
        await page.evaluate(
            "(async source => { const url = URL.createObjectURL(new Blob([source],"
            " {type: 'text/javascript'}));"
            " window.measure = {...window.measure, ...await import(url)}; })"
            f"({json.dumps(source)})"
        )


async def start_probe(page: Page, video: str = "video") -> None:
    """Begin to measure at the video that matches: `window.probe`."""
    await page.evaluate(
        f"(async () => {{ window.probe = await new measure.FlashProbe("
        f"document.querySelector({video!r})).start(); }})()"
    )
