"""What time it is for a live stream: a monotonic clock that is passed in, so that tests own it."""

import asyncio
from typing import Protocol


class Clock(Protocol):
    """Nanoseconds that never go back, and a way to wait for them."""

    def now_ns(self) -> int:
        """The time; its zero means nothing."""
        ...

    async def sleep_ns(self, wait_ns: int) -> None:
        """Wait so long."""
        ...


class LoopClock:
    """The running event loop's monotonic clock."""

    def now_ns(self) -> int:
        """The loop's time."""
        return round(asyncio.get_running_loop().time() * 1e9)

    async def sleep_ns(self, wait_ns: int) -> None:
        """Wait on the loop."""
        await asyncio.sleep(wait_ns / 1e9)
