"""Picture and sound of a live session, measured where they are seen and heard, and interrupts.

A loaded machine is no failure here: the bars are what people still accept, and the planted fault
is held against the same run without it. The strict bars are for `benchmarks/live_browser.py`.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import Browser, Page, chromium_binary
from tests.support.demo_page import Visitor
from tests.support.fake_model import FakeModel, FakeSettings
from tests.support.flash_picture import beeps
from tests.support.flash_probe import Sync, judged
from tests.support.live_gateway import served
from tests.support.skewed_model import SkewedModel
from tests.support.wav import tone, write_wav

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium_binary() is None, reason="no Chromium here: apt install chromium"),
]

_LIGHT = FakeSettings(width=128, height=128)
_SKEW_FRAMES = 5  # 200 ms at 25 frames a second
# ITU-R BT.1359: beyond this nobody accepts it.
_ACCEPTED_MS = (-90.0, 185.0)


@dataclass(frozen=True, slots=True)
class Interrupted:
    """One interrupt: milliseconds to silence, and the epochs seen behind it."""

    silent_ms: float
    epochs_after: tuple[int, ...]
    epochs_before: tuple[int, ...]


async def _sync(page: Page, visitor: Visitor, sound: Path) -> Sync:
    """Offsets of five beeps."""
    await visitor.play_file(sound)
    await page.wait_for("probe.offsets().length >= 5", deadline_s=30)
    return judged(await page.evaluate("probe.summary()"))


async def _interrupt(page: Page, visitor: Visitor, sound: Path) -> Interrupted:
    """Speak, interrupt, and watch for a second."""
    await page.evaluate("probe.forget()")
    await visitor.play_file(sound)
    await page.wait_for("probe.loudMs.length > 150", deadline_s=30)
    seen: dict[str, Any] = await page.evaluate(
        "(async () => { const before = probe.frames.length; const button ="
        " document.querySelector('.interrupt');"
        " const silentMs = await probe.untilSilent(() => button.click(), 500);"
        " const epochs = (from, to) => [...new Set(probe.frames.slice(from, to)"
        ".filter((f) => f.index !== null).map((f) => f.epoch))];"
        " const silent = probe.frames.length;"
        " await new Promise((resolve) => setTimeout(resolve, 500));"
        " return {silentMs, before: epochs(0, before), after: epochs(silent)}; })()"
    )
    return Interrupted(
        silent_ms=float(seen["silentMs"]),
        epochs_before=tuple(seen["before"]),
        epochs_after=tuple(seen["after"]),
    )


async def _true_run(folder: Path) -> tuple[Sync, list[Interrupted]]:
    beep = write_wav(folder / "beeps.wav", beeps(48_000, 24.0, every_s=0.8), 48_000)
    hum = write_wav(folder / "hum.wav", tone(48_000, 20.0), 48_000)
    async with served(FakeModel(_LIGHT)) as server, Browser() as page:
        visitor = Visitor(page, server.url)
        await visitor.arrive()
        await visitor.start()
        await visitor.measure()
        sync = await _sync(page, visitor, beep)
        return sync, [await _interrupt(page, visitor, hum) for _ in range(2)]


async def _planted_run(folder: Path) -> Sync:
    beep = write_wav(folder / "beeps.wav", beeps(48_000, 24.0, every_s=0.8), 48_000)
    async with served(SkewedModel(_SKEW_FRAMES, _LIGHT)) as server, Browser() as page:
        visitor = Visitor(page, server.url)
        await visitor.arrive()
        await visitor.start()
        await visitor.measure()
        return await _sync(page, visitor, beep)


def test_flash_and_beep_come_together_and_a_planted_offset_fails(tmp_path: Path) -> None:
    true, interrupts = asyncio.run(_true_run(tmp_path))
    planted = asyncio.run(_planted_run(tmp_path))
    figures = f"true {true}, planted {planted}, {interrupts}"
    assert _ACCEPTED_MS[0] <= true.median_ms <= _ACCEPTED_MS[1], figures
    assert not planted.is_good, figures
    assert planted.median_ms - true.median_ms == pytest.approx(-200, abs=120), figures
    for one in interrupts:
        assert one.silent_ms <= 1000, figures
        assert len(one.epochs_after) == 1, figures
        assert one.epochs_after[0] > max(one.epochs_before), figures
