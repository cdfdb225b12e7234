"""The page's pure modules: how much sound lies ahead, what the chain did, what errors say."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.support.browser import Browser, chromium_binary

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium_binary() is None, reason="no Chromium here: apt install chromium"),
]

ROOT = Path(__file__).parents[2]

_QUEUE = """(async () => {
  const { QueueEstimate } = await import('/web/sound_sender.js');
  const queue = new QueueEstimate();
  const seen = [queue.at(0)];
  queue.sent(200, 1000); queue.sent(200, 1000); seen.push(queue.at(1000), queue.at(1150));
  queue.heard(3000, 2000); queue.sent(200, 2100); seen.push(queue.at(2100), queue.at(9000));
  queue.heard(0, 9000); seen.push(queue.at(9000));
  return seen;
})()"""

_SOUND = """(async () => {
  const { base64, toPcm, decode } = await import('/web/pcm.js');
  const bytes = Uint8Array.from(atob(base64(toPcm([0, 1, -1, 2, 0.5]))), (c) => c.charCodeAt(0));
  const refused = await decode(new File(['no sound'], 'a.wav')).catch((problem) => problem.code);
  return { pcm: [...new Int16Array(bytes.buffer)], refused };
})()"""

_CHAIN = """(async () => {
  const { ChainTrack } = await import('/web/chain_track.js');
  const track = new ChainTrack();
  track.name(['denoise', 'decode']);
  track.add({ stage: 'denoise', chunk: 1, began_ms: 50100, ended_ms: 50400 }, 1000);
  track.add({ stage: 'decode', chunk: 1, began_ms: 50400, ended_ms: 50500 }, 1130);
  track.add({ stage: 'late', chunk: 2, began_ms: 50500, ended_ms: 50600 }, 2000);
  const spans = track.within(4000, 2000).map((s) => [s.stage, s.beganAgoMs, s.endedAgoMs]);
  track.add({ stage: 'denoise', chunk: 9, began_ms: 60000, ended_ms: 60400 }, 11000);
  return { spans, stages: track.stages, words: track.describe(), kept: track.spans.length };
})()"""

_REMEDIES = """(async codes => {
  const { remedyFor } = await import('/web/remedies.js');
  const common = remedyFor('');
  return codes.filter((code) => remedyFor(code) === common);
})"""


async def _file(request: web.Request) -> web.FileResponse:
    return web.FileResponse(ROOT / "services" / "web" / request.match_info["name"])


async def _blank(_request: web.Request) -> web.Response:
    return web.Response(text="<title>modules</title>", content_type="text/html")


async def _evaluated(*expressions: str) -> list[Any]:
    app = web.Application()
    app.router.add_get("/", _blank)
    app.router.add_get("/web/{name}", _file)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with Browser() as page:
            await page.goto(f"http://127.0.0.1:{runner.addresses[0][1]}/")
            return [await page.evaluate(expression) for expression in expressions]
    finally:
        await runner.cleanup()


# What a person at the page can meet; the other codes are for programs that use the API wrongly.
_PROGRAMS = {
    "bad_json", "bad_field", "bad_sdp", "bad_request", "token_foreign", "origin_refused",
    "forbidden", "not_found", "method_refused", "token_replayed", "wrong_state",
    "nothing_to_watch", "busy", "etag_stale", "etag_missing", "unsupported",
    "headers_too_large", "failed", "push_failed",
}  # fmt: skip


def _codes() -> list[str]:
    """Codes of the protocol's table of errors."""
    table = (ROOT / "docs" / "protocol.md").read_text().split("| status | codes |")[1]
    return re.findall(r"`([a-z_]+)`", table.split("\n\n")[0].replace("(with `", "("))


def test_the_modules_decide_as_they_say() -> None:
    codes = [code for code in _codes() if code not in {"reason", "position"}]
    queue, sound, chain, plain = asyncio.run(
        _evaluated(_QUEUE, _SOUND, _CHAIN, f"{_REMEDIES}({codes})")
    )
    assert queue == [0, 400, 250, 3100, 0, 0]
    assert sound == {"pcm": [0, 32767, -32767, 32767, 16384], "refused": "bad_sound"}
    assert chain["spans"] == [
        ["denoise", 1300, 1000], ["decode", 1000, 900], ["late", 900, 800],
    ]  # fmt: skip
    assert chain["stages"] == ["denoise", "decode", "late"]
    assert "denoise: chunk 9 in 400 ms" in chain["words"]
    assert chain["kept"] == 1
    assert set(plain) <= _PROGRAMS, "a problem without a remedy"
    assert len(codes) > 20
