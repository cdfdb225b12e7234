"""The driver itself: it loads, evaluates, sees what goes wrong, and leaves nothing behind."""

import asyncio
from pathlib import Path

import psutil
import pytest
from PIL import Image

from tests.support.browser import Browser, PageError, chromium_binary

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium_binary() is None, reason="no Chromium here: apt install chromium"),
]

_PAGE = (
    "data:text/html,<title>here</title><body style='margin:0;background:rgb(0,128,0)'>"
    "<button onclick='this.textContent=String(event.isTrusted)'>press</button>"
)


async def _tour(path: Path) -> dict[str, object]:
    async with Browser() as page:
        await page.resize(390, 700)
        await page.goto(_PAGE)
        await page.click("button")
        seen: dict[str, object] = {
            "title": await page.evaluate("document.title"),
            "promise": await page.evaluate("Promise.resolve([1, {a: 2}])"),
            "pressed": await page.evaluate("document.querySelector('button').textContent"),
        }
        await page.evaluate("console.warn('careful', 3); setTimeout(() => { throw Error('late') })")
        with pytest.raises(PageError, match="inside"):
            await page.evaluate("(() => { throw Error('inside') })()")
        with pytest.raises(PageError, match="not true"):
            await page.wait_for("false", deadline_s=0.2)
        await page.screenshot(path)
        seen |= {"console": page.console, "exceptions": page.exceptions}
        return seen


def test_a_page_is_driven_and_what_it_says_is_kept(tmp_path: Path) -> None:
    seen = asyncio.run(_tour(tmp_path / "page.png"))
    assert seen["title"] == "here"
    assert seen["promise"] == [1, {"a": 2}]
    assert seen["pressed"] == "true"
    assert "warning: careful 3" in str(seen["console"])
    assert "late" in str(seen["exceptions"])
    with Image.open(tmp_path / "page.png") as picture:
        assert picture.size == (390, 700)
        assert picture.convert("RGB").getpixel((200, 600)) == (0, 128, 0)


async def _fail() -> None:
    async with Browser():
        raise KeyError("in the middle")


def test_a_test_that_fails_leaves_no_browser() -> None:
    with pytest.raises(KeyError):
        asyncio.run(_fail())
    mine = [
        p.info["name"]
        for p in psutil.process_iter(["name", "ppid", "cmdline"])
        if "viva-browser-" in " ".join(p.info["cmdline"] or [])
    ]
    assert not mine
