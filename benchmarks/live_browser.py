"""Measures a live session where it is seen and heard: in Chromium, at the demo page.

    python benchmarks/live_browser.py [--server pocket|fake] [--seconds 60] [--sync-seconds 300]
                                      [--interrupts 20] [--plan NAME] [--picture FILE.webp]

`pocket` is the real `viva serve` with its model process. `fake` is the same gateway with a model
that flashes with each beep: only it can say where picture and sound truly are, so the offset at eye
and ear is measured there. Run it alone on an idle machine: the browser is on it, too.
"""

import argparse
import asyncio
import contextlib
import signal
import sys
import tempfile
import wave
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image
from report import ROOT, table, write_report

sys.path.insert(0, str(ROOT))

from live_figures import Figure, Run, figures

from tests.support.browser import Browser, Page
from tests.support.demo_page import Visitor
from tests.support.fake_model import FakeModel, FakeSettings
from tests.support.flash_picture import beeps
from tests.support.flash_probe import judged
from tests.support.live_gateway import served
from tests.support.wav import speech_wav, tone, write_wav

RATE = 48_000
START_S = 180.0
WARM_UP_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is measured, and for how long."""

    server: str
    seconds: float
    sync_seconds: float
    interrupts: int
    plan: str
    picture: Path | None


@contextlib.asynccontextmanager
async def real_server(plan: str, log: BinaryIO) -> AsyncIterator[str]:
    """`viva serve` on a free port: its address once the model is warm; ended by SIGTERM."""
    command = [str(Path(sys.executable).parent / "viva"), "serve", "--port", "0", "--no-spare"]
    process = await asyncio.create_subprocess_exec(
        *command,
        *(["--plan", plan] if plan else []),
        stdout=asyncio.subprocess.PIPE,
        stderr=log,
    )
    assert process.stdout is not None  # noqa: S101 - asked for above
    try:
        line = await asyncio.wait_for(process.stdout.readline(), START_S)
        if not line:
            raise SystemExit(f"viva serve ended before it was ready: {last_words(log)}")
        yield line.decode().strip()
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), 30)
        if process.returncode is None:
            process.kill()
            await process.wait()


def last_words(log: BinaryIO) -> str:
    """The last line of a server's log."""
    log.seek(0)
    return (log.read().decode(errors="replace").strip().splitlines() or ["it said nothing"])[-1]


@contextlib.asynccontextmanager
async def server(settings: Settings) -> AsyncIterator[str]:
    """The address of the server asked for."""
    if settings.server == "pocket":
        with tempfile.TemporaryFile() as log:
            async with real_server(settings.plan, log) as url:
                yield url
    else:
        async with served(FakeModel(FakeSettings(width=512, height=512))) as fake:
            yield fake.url


class Measuring:
    """One visit, measured."""

    def __init__(self, settings: Settings, page: Page, url: str, folder: Path) -> None:
        """Sound files are written to `folder`."""
        self._settings, self._page, self._folder = settings, page, folder
        self._visitor = Visitor(page, url)

    async def run(self) -> Run:
        """All measurements, one after the other in one session."""
        await self._visitor.arrive()
        await self._visitor.start()
        await self._visitor.measure()
        first_ms = await self._first_sound_ms()
        before, after = await self._steady()
        sync = await self._sync() if self._settings.server == "fake" else None
        interrupts_ms = [await self._interrupt() for _ in range(self._settings.interrupts)]
        return Run(
            first_ms=first_ms,
            seconds=self._settings.seconds,
            before=before,
            after=after,
            sync=sync,
            interrupts_ms=interrupts_ms,
            offsets_ms=await self._page.evaluate("window.offsetsMs"),
        )

    async def _first_sound_ms(self) -> float:
        """From the first piece of a sound sent to its first sample heard, with its picture."""
        hum = self._hum()
        await self._page.evaluate(
            "(() => { const send = WebSocket.prototype.send;"
            " WebSocket.prototype.send = function (text) {"
            " if (text.includes('agent.speak\"')) window.firstSentMs ??= performance.now();"
            " return send.call(this, text); }; })()"
        )
        await self._page.evaluate("probe.forget()")
        await self._visitor.play_file(hum)
        heard = "window.firstSentMs && probe.firstLoudMs(window.firstSentMs)"
        heard_ms = await self._page.wait_for(heard, deadline_s=30)
        await self._stop_speaking()
        return float(heard_ms) - float(await self._page.evaluate("window.firstSentMs"))

    async def _steady(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The browser's statistics before and after so many seconds of speech."""
        speech = speech_wav(self._folder / "speech.wav")
        await self._visitor.play_file(self._repeated(speech))
        await asyncio.sleep(WARM_UP_S)
        before = await self._stats()
        await self._page.evaluate(
            "(() => { window.offsetsMs = []; window.sampling = setInterval(async () => {"
            " const stats = new (await import('/web/receiver_stats.js')).ReceiverStats("
            "() => measuredPeer); await stats.sample();"
            " const s = await stats.sample(); if (s?.avOffsetMs != null)"
            " window.offsetsMs.push(s.avOffsetMs); }, 1000); })()"
        )
        await asyncio.sleep(self._settings.seconds)
        if self._settings.picture is not None:
            await self._take_picture(self._settings.picture)
        await self._page.evaluate("clearInterval(window.sampling)")
        after = await self._stats()
        await self._stop_speaking()
        return before, after

    async def _sync(self) -> dict[str, Any]:
        """Flashes and beeps, once a second."""
        seconds = self._settings.sync_seconds
        sound = write_wav(self._folder / "beeps.wav", beeps(RATE, seconds + 10), RATE)
        await self._page.evaluate("probe.forget()")
        await self._visitor.play_file(sound)
        await asyncio.sleep(seconds)
        summary = await self._page.evaluate("probe.summary()")
        await self._stop_speaking()
        sync = judged(summary)
        return {"sync": sync, "seconds": seconds}

    async def _interrupt(self) -> float:
        """Milliseconds from the press to silence."""
        await self._page.evaluate("probe.forget()")
        await self._visitor.play_file(self._hum())
        await self._page.wait_for("probe.loudMs.length > 400", deadline_s=30)
        silent_ms = await self._page.evaluate(
            "probe.untilSilent(() => document.querySelector('.interrupt').click())"
        )
        return float("nan") if silent_ms is None else float(silent_ms)

    async def _take_picture(self, path: Path) -> None:
        """The page while it speaks, for the README."""
        shot = await self._page.screenshot(self._folder / "page.png")
        with Image.open(shot) as picture:
            picture.convert("RGB").save(path, quality=88)

    async def _stop_speaking(self) -> None:
        await self._page.evaluate("document.querySelector('.interrupt').click()")
        await asyncio.sleep(1.5)

    async def _stats(self) -> dict[str, Any]:
        """Inbound statistics by kind."""
        found: dict[str, Any] = await self._page.evaluate(
            "(async () => { const report = await measuredPeer.getStats(); const found = {};"
            " for (const s of report.values()) if (s.type === 'inbound-rtp') found[s.kind] = s;"
            " return found; })()"
        )
        return found

    def _hum(self) -> Path:
        return write_wav(self._folder / "hum.wav", tone(RATE, 20.0), RATE)

    def _repeated(self, speech: Path) -> Path:
        """Speech long enough for the whole measurement."""
        with wave.open(str(speech)) as file:
            sound_T = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        count = int(np.ceil((self._settings.seconds + 10) * RATE / len(sound_T)))
        return write_wav(self._folder / "long.wav", np.tile(sound_T, count), RATE)


# The page keeps its connection to itself: the newest one made is the one that is measured.
_WATCH_PEERS = (
    "(() => { const Made = window.RTCPeerConnection;"
    " window.RTCPeerConnection = class extends Made {"
    " constructor(...rest) { super(...rest); window.measuredPeer = this; } }; })()"
)


async def measure(settings: Settings) -> Run:
    """Serve, visit, measure."""
    with tempfile.TemporaryDirectory() as folder:
        async with server(settings) as url, Browser() as page:
            await page.send("Page.addScriptToEvaluateOnNewDocument", source=_WATCH_PEERS)
            return await Measuring(settings, page, url, Path(folder)).run()


def body(settings: Settings, measured: list[Figure]) -> str:
    """The report's text."""
    rows = [[f.name, f.value, f.bar, "yes" if f.is_met else "**no**"] for f in measured]
    what = "the pocket model" if settings.server == "pocket" else "a model that flashes"
    return (
        f"One session of `viva serve` with {what}, seen and heard by Chromium on the same machine "
        f"over loopback, {settings.seconds:g} s of speech.\n\n"
        + table(["", "measured", "bar", "met"], rows)
    )


def main() -> None:
    """Read the command line, measure, write the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--server", choices=("pocket", "fake"), default="pocket")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--sync-seconds", type=float, default=300.0)
    parser.add_argument("--interrupts", type=int, default=20)
    parser.add_argument("--plan", default="")
    parser.add_argument("--picture", type=Path, help="write a picture of the page while it speaks")
    settings = Settings(**vars(parser.parse_args()))
    measured = figures(asyncio.run(measure(settings)))
    theme = f"live_browser_{settings.server}"
    path = write_report(theme, "A live session in the browser", body(settings, measured))
    print(path)


if __name__ == "__main__":
    main()
