"""Visitors who come and go: is the gateway afterwards as it was before?

    python benchmarks/live_cycles.py [--cycles 200] [--at-once 20] [--seconds 2]

A real `viva serve` in a process of its own, in front of a model process that only flashes. Each
cycle makes a session, connects over WebRTC, plays for so long, and deletes the session. The first
`--at-once` cycles warm up; then tasks, threads, file descriptors and memory of the gateway must
come back to what they were. At last 24 offers come at once to a server with 8 places: 8 get in.
"""

import argparse
import asyncio
import contextlib
import re
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import psutil
import yaml
from report import ROOT, table, write_report

sys.path.insert(0, str(ROOT))

from tests.support.loopback import Loopback

SIDE_PX = 64
PLACES, OFFERS = 8, 24
START_S = 60.0
SETTLE_S = 40.0
# What allocators keep; a leak of one session's media is megabytes, two hundred of them are plain.
MAX_GROWTH_MIB = 24.0
# Generous: what is measured here is not the rate limit.
LIMITS = {"requests_per_s": 10_000, "burst": 10_000, "sessions_per_s": 10_000}


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What the gateway holds."""

    tasks: int
    threads: int
    files: int
    memory_mib: float

    def is_back(self, before: "Held") -> bool:
        """Whether no more is held than before."""
        counts = (self.tasks, self.threads, self.files)
        same = all(n <= b for n, b in zip(counts, before.counts(), strict=True))
        return same and self.memory_mib <= before.memory_mib + MAX_GROWTH_MIB

    def counts(self) -> tuple[int, int, int]:
        """Tasks, threads, file descriptors."""
        return self.tasks, self.threads, self.files

    def row(self, when: str) -> list[str]:
        """A row of the table."""
        return [when, *map(str, self.counts()), f"{self.memory_mib:.1f}"]


@contextlib.asynccontextmanager
async def process(*words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program of ours, ended by SIGTERM in any case."""
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *words, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=sys.stderr
    )
    try:
        yield started
    finally:
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
            if started.returncode is None:
                started.send_signal(number)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(started.wait(), 10)


class Gateway:
    """A served gateway, seen from outside."""

    def __init__(self, pid: int, url: str, http: aiohttp.ClientSession) -> None:
        """It listens at `url`."""
        self.process, self.url, self.http = psutil.Process(pid), url, http

    async def held(self) -> Held:
        """What it holds now."""
        async with self.http.get(f"{self.url}/metrics") as answer:
            found = re.search(r"^viva_live_tasks (\S+)", await answer.text(), re.MULTILINE)
        return Held(
            tasks=int(float(found[1])) if found else -1,
            threads=self.process.num_threads(),
            files=self.process.num_fds(),
            memory_mib=self.process.memory_info().rss / 2**20,
        )

    async def settled(self, before: Held | None = None) -> Held:
        """What it holds once it is back, or at the deadline; without `before` after 3 s."""
        end_s = asyncio.get_running_loop().time() + (SETTLE_S if before else 3.0)
        while True:
            await asyncio.sleep(0.5)
            held = await self.held()
            is_over = asyncio.get_running_loop().time() > end_s
            if is_over or (before is not None and held.is_back(before)):
                return held

    async def make(self) -> tuple[str, dict[str, str]]:
        """A session's path and the headers for it."""
        async with self.http.post(f"{self.url}/v1/sessions", json={}) as answer:
            answer.raise_for_status()
            made = await answer.json()
        path = f"{self.url}/v1/sessions/{made['session_id']}"
        return path, {"Authorization": f"Bearer {made['token']}"}

    async def offer(self, path: str, headers: dict[str, str], sdp: str) -> tuple[int, str]:
        """Status of an offer, and the answer's SDP."""
        body = {"sdp": sdp, "type": "offer"}
        async with self.http.post(f"{path}/offer", json=body, headers=headers) as answer:
            return answer.status, str((await answer.json(content_type=None)).get("sdp", ""))

    async def cycle(self, seconds: float) -> None:
        """Come, play, leave."""
        path, headers = await self.make()
        viewer = Loopback(events=False)
        try:
            status, sdp = await self.offer(path, headers, await viewer.offer())
            if status != 200:
                raise SystemExit(f"an offer was answered {status}")
            await viewer.take(sdp)
            await viewer.wait(seconds)
        except TimeoutError:
            async with self.http.get(path, headers=headers) as answer:
                told = await answer.text()
            seen = (len(viewer.video.frames), len(viewer.audio.frames), len(viewer.video.reports))
            raise SystemExit(
                f"nothing played: {viewer.peer.connectionState}, {seen} pictures, sounds and "
                f"reports came of {told}"
            ) from None
        finally:
            await viewer.close()
            async with self.http.delete(path, headers=headers) as answer:
                await answer.read()


@contextlib.asynccontextmanager
async def gateway(folder: Path, places: int) -> AsyncIterator[Gateway]:
    """`viva serve` with so many places in front of a model that flashes."""
    socket, deployment = folder / f"model{places}", folder / f"serve{places}.yaml"
    deployment.write_text(
        yaml.safe_dump(
            {
                "port": 0,
                "model_socket": str(socket),
                "limits": LIMITS,
                "sessions": {"capacity": places, "max_queue": 0},
            }
        )
    )
    model = ("tests.support.flash_process", "--socket", str(socket), "--side", str(SIDE_PX))
    async with process(*model, "--capacity", str(places)) as _:
        async with asyncio.timeout(START_S):
            while not socket.exists():  # noqa: ASYNC110 - another process makes it
                await asyncio.sleep(0.05)
        words = ("services.cli", "serve", "--deployment", str(deployment))
        async with process(*words) as server, aiohttp.ClientSession() as http:
            assert server.stdout is not None  # noqa: S101 - asked for above
            line = await asyncio.wait_for(server.stdout.readline(), START_S)
            yield Gateway(server.pid, line.decode().strip().rstrip("/"), http)


async def cycles(folder: Path, num: int, at_once: int, seconds: float) -> tuple[str, bool]:
    """Warm up, then come and go: the table, and whether all came back."""
    async with gateway(folder, at_once) as served:
        turns = asyncio.Semaphore(at_once)

        async def turn() -> None:
            async with turns:
                await served.cycle(seconds)

        rows = [(await served.held()).row("just started")]
        await asyncio.gather(*(turn() for _ in range(at_once)))
        before = await served.settled()
        rows.append(before.row(f"after {at_once} to warm up"))
        for part in range(1, 5):
            await asyncio.gather(*(turn() for _ in range(num * part // 4 - num * (part - 1) // 4)))
            after = await served.settled(before)
            rows.append(after.row(f"after {num * part // 4} more"))
    return table(["", "tasks", "threads", "files", "MiB"], rows), after.is_back(before)


async def offers(folder: Path) -> Counter[int]:
    """Statuses of the offers that come at once."""
    async with gateway(folder, PLACES) as served:
        made = [await served.make() for _ in range(OFFERS)]
        viewers = [Loopback(events=False) for _ in made]
        sdps = [await viewer.offer() for viewer in viewers]
        answers = await asyncio.gather(
            *(served.offer(*one, sdp) for one, sdp in zip(made, sdps, strict=True))
        )
        await asyncio.gather(*(viewer.close() for viewer in viewers))
    return Counter(status for status, _ in answers)


async def measure(num: int, at_once: int, seconds: float) -> bool:
    """All of it; the report is written."""
    with tempfile.TemporaryDirectory() as name:
        held, is_back = await cycles(Path(name), num, at_once, seconds)
        statuses = await offers(Path(name))
    fits = statuses == {200: PLACES, 503: OFFERS - PLACES}
    body = (
        f"{num} cycles of connect, {seconds:g} s of {SIDE_PX} px VP8 and Opus, leave; {at_once} at "
        f"once.\nThe gateway's process: {'all came back' if is_back else '**NOT BACK**'} "
        f"(memory within {MAX_GROWTH_MIB:g} MiB).\n\n{held}\n\n{OFFERS} offers at once on {PLACES} "
        f"places: {dict(sorted(statuses.items()))}, {'as it must be' if fits else '**WRONG**'}."
    )
    path = write_report("live_cycles", "Visitors who come and go", body)
    sys.stdout.write(f"{body}\n{path}\n")
    return is_back and fits


def main() -> int:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cycles", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=2.0)
    given = parser.parse_args()
    return 0 if asyncio.run(measure(given.cycles, given.at_once, given.seconds)) else 1


if __name__ == "__main__":
    sys.exit(main())
