"""Runs a test of live media on its own loop and holds it to leaving nothing behind."""

import asyncio
import itertools
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

from services.encode_share import Encoders
from services.webrtc import Peer
from tests.support.flash_performer import FlashPerformer
from tests.support.loopback import Loopback, Received


def play(work: Callable[[Encoders], Awaitable[None]], *, seconds: float = 60) -> None:
    """Run `work`; afterwards no task, thread or open file may be left."""

    async def all_of_it() -> None:
        encoders = Encoders()
        try:
            async with asyncio.timeout(seconds):
                await work(encoders)
        finally:
            await encoders.close()
        await asyncio.sleep(0.05)
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        assert not left, left

    threads, files = threading.active_count(), num_files()
    asyncio.run(all_of_it())
    assert threading.active_count() == threads
    assert num_files() <= files


def num_files() -> int:
    """Open file descriptors of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def connect(peer: Peer, viewer: Loopback, performer: FlashPerformer) -> str:
    """Exchange descriptions; the answer."""
    answer = await peer.answer(await viewer.offer(), performer)
    await viewer.take(answer)
    return answer


def packet_steps(received: Received) -> set[int]:
    """By how much timestamps of packets that follow each other differ."""
    stamps = [packet[0] for packet in received.packets]
    return {(after - before) % (1 << 32) for before, after in itertools.pairwise(stamps)}
