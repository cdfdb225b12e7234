"""The demo page against the real gateway with a fake model, clicked through in Chromium.

The fake model flashes when it hears something, so that what a visitor says comes back as picture
and sound. Screenshots are written for people to look at; what can be judged by a program is.
"""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import numpy as np
import pytest

from services.deployment import Deployment, Sessions
from tests.support.browser import Browser, Page, chromium_binary
from tests.support.demo_page import Visitor
from tests.support.fake_model import FakeModel, FakeSettings
from tests.support.live_gateway import Served, served
from tests.support.wav import tone, write_wav

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium_binary() is None, reason="no Chromium here: apt install chromium"),
]

_OWN = Path(__file__).parents[2] / "configs" / "models" / "pocket" / "portraits" / "kofi.png"
_ENTER, _ESCAPE, _RIGHT = ("Enter", 13), ("Escape", 27), ("ArrowRight", 39)


class ToneVoice:
    """Says every text as a second of one tone."""

    sample_rate = 22_050

    def check(self, text: str, voice: str) -> str:
        """Any text will do."""
        del voice
        return text

    async def stream(self, text: str, voice: str) -> AsyncGenerator[bytes, None]:
        """The tone, in one piece."""
        del text, voice
        yield tone(self.sample_rate, 1.0).astype("<i2").tobytes()


async def _press(page: Page, key: tuple[str, int]) -> None:
    await page.press(key[0], code=key[1])


async def _fits(page: Page, width_px: int) -> bool:
    """Whether nothing is wider; a phone would show all of it smaller, so its own width counts."""
    shown = await page.evaluate("Math.max(innerWidth, document.documentElement.scrollWidth)")
    return bool(shown <= width_px)


async def _screens(page: Page, folder: Path, name: str) -> None:
    """The page as a desktop and a phone show it, light and dark, and nothing sticks out."""
    for scheme in ("light", "dark"):
        await page.prefer(color_scheme=scheme)
        for device, width, height in (("desktop", 1280, 800), ("phone", 390, 844)):
            await page.resize(width, height)
            assert await _fits(page, width), f"{name} is wider than a {device}"
            await page.screenshot(folder / f"{name}_{device}_{scheme}.png", full=device == "phone")
    await page.prefer(color_scheme="light")
    await page.resize(1280, 800)


async def _mirror(speech: Path, pictures: Path) -> dict[str, object]:
    """Choose by keyboard, start, speak into the microphone, interrupt by Esc, end."""
    microphone = f"--use-file-for-fake-audio-capture={speech}"
    async with served(FakeModel()) as server, Browser(microphone) as page:
        visitor = Visitor(page, server.url)
        await visitor.arrive()
        await _screens(page, pictures, "choose")
        await page.evaluate("document.querySelector('.cast input').focus()")
        await _press(page, _RIGHT)
        seen: dict[str, object] = {
            "chosen": await page.evaluate("document.querySelector('.cast input:checked').value")
        }
        await _press(page, _ENTER)
        await visitor.phase("live")
        await page.wait_for("document.querySelector('.stage').dataset.hasPicture")
        await visitor.measure()
        focused = "document.activeElement.classList.contains('mic-button')"
        seen["focus"] = await page.evaluate(focused)
        await _press(page, _ENTER)
        await page.wait_for("document.querySelector('.stage').dataset.speaking === 'yes'")
        await page.wait_for("probe.loudMs.length > 100 && probe.flashes.length", deadline_s=20)
        fps = "Number(document.querySelector('[data-figure=fps]').textContent)"
        await page.wait_for(f"{fps} > 5")
        seen["meter"] = await page.evaluate(
            "document.querySelector('[role=meter]').getAttribute('aria-valuenow')"
        )
        await page.wait_for("document.querySelector('.chain-words').textContent.includes('chunk')")
        await _screens(page, pictures, "live")
        await _press(page, _ESCAPE)
        await page.wait_for("document.querySelector('.status').textContent === 'Interrupted.'")
        (session,) = server.sessions._sessions.values()
        seen["portrait"] = session.describe()["portrait"]
        await page.click(".stop")
        await visitor.phase("ended")
        seen["ended"] = await visitor.shown(".status")
        seen["said"] = [line for line in page.console if line.startswith("error")]
        seen["exceptions"] = page.exceptions
        return seen


def test_a_visitor_speaks_and_the_face_speaks_back(speech: Path, pictures: Path) -> None:
    seen = asyncio.run(_mirror(speech, pictures))
    assert seen["chosen"] == seen["portrait"] == "bruno"
    assert seen["focus"]
    assert str(seen["meter"]).isdigit()
    assert seen["ended"] == "You ended the session."
    assert not seen["said"]
    assert not seen["exceptions"]


async def _own_picture(folder: Path) -> dict[str, object]:
    """A picture of one's own, a text and a sound file; what cannot be used is said clearly."""
    broken = folder / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
    beep = write_wav(folder / "beep.wav", tone(48_000, 1.5), 48_000)
    noise = folder / "noise.wav"
    noise.write_bytes(bytes(200))
    async with served(FakeModel(), voice=ToneVoice()) as server, Browser() as page:
        visitor = Visitor(page, server.url)
        await visitor.arrive(390, 844)
        await page.give_files(".own input", [broken])
        await page.click(".start")
        await page.wait_for("!document.querySelector('.alert').hidden")
        seen: dict[str, object] = {
            "refused": await page.evaluate("document.querySelector('.alert').dataset.code"),
            "remedy": await visitor.shown(".alert-remedy"),
        }
        await page.screenshot(folder / "refused_phone.png")
        await page.give_files(".own input", [_OWN])
        await visitor.start()
        await visitor.measure()
        await visitor.choose_way("text")
        await page.evaluate("document.querySelector('textarea').focus()")
        await page.send("Input.insertText", text="Hello there.")
        await _press(page, _ENTER)
        await page.wait_for("probe.loudMs.length > 100")
        seen["text"] = await page.evaluate("document.querySelector('textarea').value")
        await page.wait_for("document.querySelector('.stage').dataset.speaking === 'no'")
        await page.evaluate("probe.forget()")
        await visitor.play_file(noise)
        await page.wait_for("document.querySelector('.alert').dataset.code === 'bad_sound'")
        await visitor.play_file(beep)
        await page.wait_for("probe.loudMs.length > 100")
        seen["alert"] = await visitor.shown(".alert")
        (session,) = server.sessions._sessions.values()
        seen["portrait"] = session.describe()["portrait"]
        seen["exceptions"] = page.exceptions
        return seen


def test_a_picture_of_ones_own_speaks_text_and_files(tmp_path: Path) -> None:
    seen = asyncio.run(_own_picture(tmp_path))
    assert seen["refused"] == "bad_picture"
    assert "another picture" in str(seen["remedy"])
    assert str(seen["portrait"]).startswith("up_")
    assert seen["text"] == ""
    assert seen["alert"] == "", "what worked takes the error away"
    assert not seen["exceptions"]


async def _drop_connection(server: Served) -> None:
    (session,) = server.sessions._sessions.values()
    for peer in list(session.peers.values()):
        await peer.close()


async def _one_place(folder: Path) -> dict[str, object]:
    """One place for two: the second waits its turn; the first loses its network and comes back."""
    deployment = Deployment(sessions=Sessions(capacity=1))
    settings = FakeSettings(width=128, height=128)
    async with (
        served(FakeModel(settings), deployment) as server,
        Browser() as first,
        Browser() as second,
    ):
        one, two = Visitor(first, server.url), Visitor(second, server.url)
        await one.arrive(measured=False)
        await one.start()
        await _drop_connection(server)
        await one.phase("rejoining")
        await first.screenshot(folder / "rejoining_desktop.png")
        await one.phase("live")
        await two.arrive(390, 844, measured=False)
        await second.click(".start")
        await two.phase("queued")
        await second.wait_for("document.querySelector('.stage-words').textContent.match('1')")
        seen: dict[str, object] = {"queued": await two.shown(".stage-words")}
        await second.screenshot(folder / "queued_phone.png")
        await first.click(".stop")
        await two.phase("live")
        seen["exceptions"] = first.exceptions + second.exceptions
        seen["policy"] = [s for s in first.console + second.console if "Content Security" in s]
        return seen


def test_who_waits_gets_in_and_who_was_cut_off_comes_back(pictures: Path) -> None:
    seen = asyncio.run(_one_place(pictures))
    assert seen["queued"] == "You are number 1 in the queue."
    assert not seen["policy"], "the page needs more than its own policy allows"
    assert not seen["exceptions"]


def test_the_tone_is_loud_enough_to_be_seen() -> None:
    assert np.sqrt(np.mean(tone(48_000, 0.1).astype(float) ** 2)) > 0.05 * 32768
