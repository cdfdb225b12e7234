"""What a visitor of the demo page does, as steps for tests."""

from pathlib import Path

from tests.support.browser import Page
from tests.support.flash_probe import install, start_probe


class Visitor:
    """Somebody at the page in one tab."""

    def __init__(self, page: Page, url: str) -> None:
        """Nothing is loaded yet."""
        self.page, self.url = page, url

    async def arrive(
        self, width_px: int = 1280, height_px: int = 800, *, measured: bool = True
    ) -> None:
        """Load the page and wait until it can be started; `measured` lets the probe in."""
        if measured:
            await self.page.bypass_policy()
        await self.page.resize(width_px, height_px)
        await self.page.goto(self.url)
        await self.page.wait_for("document.querySelectorAll('.cast input').length")
        await self.page.wait_for("!document.querySelector('.start').disabled")

    async def start(self) -> None:
        """Press Start and wait for the face."""
        await self.page.click(".start")
        await self.page.wait_for("document.body.dataset.phase === 'live'", deadline_s=30)
        await self.page.wait_for("document.querySelector('.stage').dataset.hasPicture")

    async def measure(self) -> None:
        """Begin to measure flashes and beeps: `probe` in the page."""
        await install(self.page)
        await start_probe(self.page)

    async def choose_way(self, way: str) -> None:
        """Choose how to speak: microphone, file or text."""
        await self.page.click(f"input[name=way][value={way}] + span")

    async def play_file(self, path: Path) -> None:
        """Have a sound file spoken."""
        await self.choose_way("file")
        await self.page.give_files(".sound-drop input", [path])

    async def is_speaking(self) -> bool:
        """Whether the face is said to speak."""
        told = await self.page.evaluate("document.querySelector('.stage').dataset.speaking")
        return bool(told == "yes")

    async def shown(self, selector: str) -> str:
        """The text of an element, empty where it is not shown."""
        return str(
            await self.page.evaluate(
                f"(e => e && e.checkVisibility() ? e.textContent.trim() : '')"
                f"(document.querySelector({selector!r}))"
            )
        )

    async def phase(self, wanted: str, deadline_s: float = 20.0) -> None:
        """Wait until the page is there."""
        await self.page.wait_for(
            f"document.body.dataset.phase === {wanted!r}", deadline_s=deadline_s
        )
