"""Players and microphones that others wrote, from the npm registry, at our WHEP and WHIP.

Their versions and checksums are pinned in `strangers/package-lock.json`. Where npm or its registry
is out of reach, the tests are skipped and say so.
"""

import asyncio
import functools
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.browser import Browser, Page, chromium_binary
from tests.support.fake_model import FakeModel, FakeSettings
from tests.support.live_gateway import Served, served
from tests.support.wav import tone, write_wav

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium_binary() is None, reason="no Chromium here: apt install chromium"),
]

_PINNED = Path(__file__).parent / "strangers"
_SIDE = 160
_FETCH_S = 120.0


@functools.cache
def _bundle(folder: Path) -> str:
    """The foreign clients as one script; skips the test where they cannot be fetched."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm here: apt install npm")
    for name in ("package.json", "package-lock.json", "strangers.js"):
        shutil.copy(_PINNED / name, folder)
    fetch = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
    try:
        subprocess.run(fetch, cwd=folder, check=True, capture_output=True, timeout=_FETCH_S)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"the npm registry is out of reach: {(error.stderr or b'')[-200:]!r}")
    bundler = folder / "node_modules" / ".bin" / "esbuild"
    command = [str(bundler), "strangers.js", "--bundle", "--format=iife", "--log-level=error"]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return str(done.stdout)


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The foreign clients as a script for a page."""
    return _bundle(tmp_path_factory.mktemp("strangers"))


async def _arrive(page: Page, server: Served, script: str) -> None:
    """A page of the server's own origin with the foreign clients in it, and a player's element."""
    await page.bypass_policy()
    await page.goto(server.url)
    await page.evaluate(f"void (() => {{ {script}\n }})()")
    await page.evaluate(
        "void (() => { window.video = document.createElement('video'); video.muted = true;"
        " video.autoplay = true; document.body.append(video); })()"
    )


async def _play(page: Page, path: str, token: str = "") -> None:
    """Have the foreign player play a WHEP address until it shows frames."""
    bearer = f"Bearer {token}" if token else ""
    await page.evaluate(
        "void (() => { window.player = new strangers.WebRTCPlayer("
        "{video, type: 'whep', iceServers: []});"
        f" player.load(new URL({path!r}, location), {bearer!r}); }})()"
    )
    await page.wait_for("video.currentTime > 1", deadline_s=30)
    await page.wait_for("video.getVideoPlaybackQuality().totalVideoFrames > 20", deadline_s=20)


async def _watch_a_portrait(script: str) -> None:
    model = FakeModel(FakeSettings(width=_SIDE, height=_SIDE))
    async with served(model) as server, Browser() as page:
        await _arrive(page, server, script)
        await _play(page, "/whep/ada")
        size = await page.evaluate("[video.videoWidth, video.videoHeight]")
        assert size == [_SIDE, _SIDE]
        tracks = await page.evaluate("video.srcObject.getTracks().map((t) => t.kind).sort()")
        assert tracks == ["audio", "video"]
        first_s = await page.evaluate("video.currentTime")
        await page.wait_for(f"video.currentTime > {first_s} + 0.5", deadline_s=20)
        assert len(server.sessions) == 1
        await page.evaluate("player.unload()")
        async with asyncio.timeout(10):
            while len(server.sessions):  # noqa: ASYNC110 # plain number
                await asyncio.sleep(0.05)


def test_a_player_from_the_registry_plays_a_portrait_and_leaves(strangers: str) -> None:
    asyncio.run(_watch_a_portrait(strangers))


async def _speak_by_whip(script: str, sound: Path) -> None:
    """One session: the foreign player watches it, the foreign microphone drives it."""
    model = FakeModel(FakeSettings(width=_SIDE, height=_SIDE))
    async with (
        served(model) as server,
        Browser(f"--use-file-for-fake-audio-capture={sound}") as page,
    ):
        await _arrive(page, server, script)
        made = await page.evaluate(
            "fetch('/v1/sessions', {method: 'POST', body: '{}',"
            " headers: {'Content-Type': 'application/json'}}).then((r) => r.json())"
        )
        await page.evaluate(
            "(async () => { window.whip = new strangers.WHIPClient({endpoint:"
            f" new URL({made['mic_url']!r}, location).href, opts:"
            f" {{authkey: {made['token']!r}, iceServers: []}}}});"
            " const heard = await navigator.mediaDevices.getUserMedia({audio: true, video: true});"
            " await whip.ingest(heard); })()"
        )
        session = server.sessions.get(made["session_id"])
        await page.wait_for("whip.getICEConnectionState() === 'connected'", deadline_s=30)
        await _play(page, made["whep_url"], made["token"])
        async with asyncio.timeout(30):
            while session.speaking is None:  # noqa: ASYNC110 # a word, no event
                await asyncio.sleep(0.05)
        assert session.speaking.startswith("mic")
        assert len(session.peers) == 2
        await page.evaluate("whip.destroy()")
        assert len(session.peers) == 1, "the microphone is gone, the viewer is not"


def test_a_whip_client_from_the_registry_is_the_microphone(strangers: str, tmp_path: Path) -> None:
    beep = write_wav(tmp_path / "beep.wav", tone(48_000, 2.0), 48_000)
    asyncio.run(_speak_by_whip(strangers, beep))
