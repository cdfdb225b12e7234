"""The probe measures what it says: it finds a planted offset, and none where there is none."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from tests.support.browser import Browser, Page, chromium_binary
from tests.support.flash_probe import Sync, install, judged, start_probe

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium_binary() is None, reason="no Chromium here: apt install chromium"),
]


async def _blank(_request: web.Request) -> web.Response:
    return web.Response(text="<video autoplay playsinline></video>", content_type="text/html")


@asynccontextmanager
async def _local_page() -> AsyncIterator[Page]:
    """An empty page of this machine: worklets want a secure origin."""
    app = web.Application()
    app.router.add_get("/", _blank)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with Browser() as page:
            await page.goto(f"http://127.0.0.1:{runner.addresses[0][1]}/")
            await install(page, "flash_generator.js")
            yield page
    finally:
        await runner.cleanup()


async def _measured(page: Page, late_ms: int, *, over_webrtc: bool) -> Sync:
    await page.evaluate(
        "(async () => { const context = new AudioContext();"
        f" let stream = await measure.flashingStream(context, {late_ms});"
        f" if ({str(over_webrtc).lower()}) stream = await measure.overWebRtc(stream);"
        " const video = document.querySelector('video'); video.srcObject = stream;"
        " await video.play(); })()"
    )
    await start_probe(page)
    await page.wait_for("probe.offsets().length >= 4", deadline_s=15)
    summary = await page.evaluate("probe.summary()")
    await page.evaluate("probe.stop()")
    return judged(summary)


async def _both() -> dict[int, Sync]:
    async with _local_page() as page:
        return {late: await _measured(page, late, over_webrtc=False) for late in (0, 200, -200)}


def test_a_planted_offset_is_found_and_fails_the_bar() -> None:
    seen = asyncio.run(_both())
    assert seen[0].is_good, seen
    for late in (200, -200):
        assert not seen[late].is_good, seen
        assert seen[late].median_ms - seen[0].median_ms == pytest.approx(late, abs=40), seen


def test_a_probe_that_saw_nothing_is_not_good() -> None:
    assert not judged({"offsetsMs": [], "flashes": 0, "beeps": 0}).is_good
    assert not judged({"offsetsMs": [0, 0, 0], "flashes": 30, "beeps": 30}).is_good
    assert judged({"offsetsMs": [10.0] * 9, "flashes": 9, "beeps": 9}).is_good
