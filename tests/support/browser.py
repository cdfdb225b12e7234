"""A headless Chromium for tests, driven over its DevTools socket.

`Browser` owns the process and its folder, `Page` one tab. Covered: load, evaluate, screenshot,
sizes, colour scheme, what the console said. Not covered: several windows, downloads, other
browsers. Debian's `/usr/bin/chromium` is a script that stays between, so the real binary is
started, in a process group of its own, which is killed whole.
"""

import asyncio
import base64
import contextlib
import itertools
import os
import shutil
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp
import psutil

_BINARIES = (
    Path("/usr/lib/chromium/chromium"),
    Path("/usr/lib/chromium/chromium-headless-shell"),
)
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-breakpad",
    "--disable-component-update",
    "--disable-background-networking",
    "--disable-background-timer-throttling",
    "--disable-renderer-backgrounding",
    "--no-first-run",
    "--hide-scrollbars",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    "--disable-features=WebRtcHideLocalIpsWithMdns,MediaRouter,OptimizationHints",
    "--remote-debugging-port=0",
)


def chromium_binary() -> Path | None:
    """Find the browser itself, not its wrapper; None where there is none."""
    return next((path for path in _BINARIES if path.exists()), None)


class PageError(RuntimeError):
    """The page raised, or the browser refused a command."""


class Page:
    """One tab: every wait has a deadline, everything its console said is kept."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, session: str) -> None:
        """Speak for the tab `session` over the browser's socket."""
        self._socket = socket
        self._session = session
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = asyncio.Event()
        self.console: list[str] = []
        self.exceptions: list[str] = []
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self._socket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                break
            self._take(message.json())
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(PageError("the browser is gone"))

    def _take(self, message: dict[str, Any]) -> None:
        if (future := self._waiting.pop(message.get("id", -1), None)) is not None:
            if not future.done():
                future.set_result(message)
            return
        params = message.get("params", {})
        match message.get("method"):
            case "Page.loadEventFired":
                self._loaded.set()
            case "Runtime.consoleAPICalled":
                words = (str(a.get("value", a.get("description", ""))) for a in params["args"])
                self.console.append(f"{params['type']}: {' '.join(words)}")
            case "Runtime.exceptionThrown":
                self.exceptions.append(_exception_text(params["exceptionDetails"]))
            case "Log.entryAdded":
                entry = params["entry"]
                self.console.append(f"{entry['level']}: {entry['text']} {entry.get('url', '')}")

    async def send(self, method: str, *, deadline_s: float = 20.0, **params: object) -> Any:
        """Ask the browser for one thing; raises PageError where it refuses or stays silent."""
        ident = next(self._ids)
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[ident] = future
        command = {"id": ident, "method": method, "params": params}
        if self._session:
            command["sessionId"] = self._session
        await self._socket.send_json(command)
        try:
            answer = await asyncio.wait_for(future, deadline_s)
        except TimeoutError:
            raise PageError(f"no answer to {method} in {deadline_s} s") from None
        finally:
            self._waiting.pop(ident, None)
        if "error" in answer:
            raise PageError(f"{method}: {answer['error'].get('message')}")
        return answer["result"]

    async def attach(self, url: str = "about:blank") -> None:
        """Open a tab and speak for it from now on."""
        target = await self.send("Target.createTarget", url=url)
        attached = await self.send(
            "Target.attachToTarget", targetId=target["targetId"], flatten=True
        )
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "DOM"):
            await self.send(f"{domain}.enable")

    async def goto(self, url: str, *, deadline_s: float = 20.0) -> None:
        """Load `url` and wait for its load event."""
        self._loaded.clear()
        answer = await self.send("Page.navigate", url=url)
        if answer.get("errorText"):
            raise PageError(f"{url}: {answer['errorText']}")
        await asyncio.wait_for(self._loaded.wait(), deadline_s)

    async def evaluate(self, expression: str, *, deadline_s: float = 20.0) -> Any:
        """Value of an expression (a promise is awaited) as JSON; PageError if it throws."""
        answer = await self.send(
            "Runtime.evaluate",
            deadline_s=deadline_s,
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        if "exceptionDetails" in answer:
            raise PageError(_exception_text(answer["exceptionDetails"]))
        return answer["result"].get("value")

    async def wait_for(self, expression: str, *, deadline_s: float = 20.0) -> Any:
        """Poll until the expression is true and give its value; PageError at the deadline."""
        end_s = asyncio.get_running_loop().time() + deadline_s
        while not (value := await self.evaluate(expression, deadline_s=deadline_s)):
            if asyncio.get_running_loop().time() > end_s:
                said = "; ".join((self.exceptions + self.console)[-5:])
                raise PageError(f"not true in {deadline_s} s: {expression} ({said})")
            await asyncio.sleep(0.05)
        return value

    async def click(self, selector: str) -> None:
        """Click where a user would: at the middle of the first element that matches."""
        middle = await self.evaluate(
            f"(() => {{ const e = document.querySelector({selector!r});"
            " e.scrollIntoView({block: 'center', behavior: 'instant'});"
            " const r = e.getBoundingClientRect();"
            " return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.send(
                "Input.dispatchMouseEvent",
                type=kind,
                x=middle[0],
                y=middle[1],
                button="left",
                clickCount=1,
            )

    async def press(self, key: str, *, code: int) -> None:
        """Press and release one key: its name and its Windows key code."""
        for kind in ("keyDown", "keyUp"):
            await self.send(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=code,
                text="\r" if (kind, key) == ("keyDown", "Enter") else "",
            )

    async def give_files(self, selector: str, paths: Sequence[Path]) -> None:
        """Put files into a file input, as its dialog would."""
        document = await self.send("DOM.getDocument")
        node = await self.send(
            "DOM.querySelector", nodeId=document["root"]["nodeId"], selector=selector
        )
        await self.send(
            "DOM.setFileInputFiles", nodeId=node["nodeId"], files=[str(p) for p in paths]
        )

    async def resize(self, width_px: int, height_px: int, *, scale: float = 1.0) -> None:
        """Give the tab a screen of this size in CSS pixels; below 600 it is a phone."""
        await self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width_px,
            height=height_px,
            deviceScaleFactor=scale,
            mobile=width_px < 600,
        )

    async def prefer(self, **features: str) -> None:
        """Set media features: `color_scheme="dark"`, `reduced_motion="reduce"`."""
        wanted = [
            {"name": f"prefers-{name.replace('_', '-')}", "value": value}
            for name, value in features.items()
        ]
        await self.send("Emulation.setEmulatedMedia", features=wanted)

    async def bypass_policy(self) -> None:
        """Let measuring programs into pages whose content security policy forbids them."""
        await self.send("Page.setBypassCSP", enabled=True)

    async def screenshot(self, path: Path, *, full: bool = False) -> Path:
        """Write what the tab shows (`full`: the whole page) as PNG."""
        answer = await self.send("Page.captureScreenshot", captureBeyondViewport=full)
        await asyncio.to_thread(path.write_bytes, base64.b64decode(answer["data"]))
        return path

    async def close(self) -> None:
        """Stop listening; the process is the browser's to end."""
        self._reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reader


class Browser:
    """`async with Browser(flags) as page`: one Chromium with one tab, gone afterwards."""

    def __init__(self, *flags: str) -> None:
        """Add flags to those every test needs."""
        self._flags = flags

    async def __aenter__(self) -> Page:
        """Start the browser and open its tab."""
        binary = chromium_binary()
        if binary is None:
            raise PageError("no Chromium here: apt install chromium")
        self._folder = Path(tempfile.mkdtemp(prefix="viva-browser-"))
        self._process = await asyncio.create_subprocess_exec(
            binary,
            *_FLAGS,
            *self._flags,
            f"--user-data-dir={self._folder}",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        self._client = aiohttp.ClientSession()
        try:
            self.page = await self._open()
        except BaseException:
            await self._end()
            raise
        return self.page

    async def _open(self) -> Page:
        port, path = await asyncio.wait_for(self._address(), 20.0)
        socket = await self._client.ws_connect(
            f"ws://127.0.0.1:{port}{path}", max_msg_size=64 << 20
        )
        page = Page(socket, "")
        await page.attach()
        return page

    async def _address(self) -> tuple[str, str]:
        """Wait for the file in which Chromium says where it listens."""
        said = self._folder / "DevToolsActivePort"
        while True:
            if self._process.returncode is not None:
                raise PageError(f"Chromium ended at once with {self._process.returncode}")
            if said.exists() and len(lines := said.read_text().split()) == 2:
                return lines[0], lines[1]
            await asyncio.sleep(0.05)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Kill the browser and all it started, then remove its folder."""
        await self.page.close()
        await self._end()

    async def _end(self) -> None:
        await self._client.close()
        family = _family(self._process.pid)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        await self._process.wait()
        await asyncio.to_thread(psutil.wait_procs, family, timeout=5)
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)


def _family(pid: int) -> list[psutil.Process]:
    """Every process below `pid`, some of which leave its group."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _exception_text(details: dict[str, Any]) -> str:
    thrown = details.get("exception", {})
    return str(thrown.get("description") or thrown.get("value") or details.get("text"))
