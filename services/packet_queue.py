"""What waits for one viewer's sender: packets in order, bounded, and it can be closed."""

import asyncio
from collections import deque
from dataclasses import dataclass

from services.encode import Packed


class ViewerGone(Exception):
    """The queue is closed: nothing will come any more."""


@dataclass(frozen=True, slots=True)
class Due:
    """A packet and when it is to be sent, on the event loop's clock."""

    packed: Packed
    at_s: float


class PacketQueue:
    """A bounded queue of one reader; a full one drops what `put` says.

    `num_dropped` counts packets that were never read. A reader that lags so far has no connection
    to speak of: sound is dropped only where the bound says that nobody has listened for seconds.
    """

    def __init__(self, max_packets: int) -> None:
        """Empty and open."""
        self.max_packets = max_packets
        self.num_dropped = 0
        self._waiting: deque[Due] = deque()
        self._ready = asyncio.Event()
        self._is_closed = False

    def __len__(self) -> int:
        """How many packets wait."""
        return len(self._waiting)

    def put(self, packed: Packed, at_s: float) -> bool:
        """Add a packet; False if the oldest had to go for it."""
        is_full = len(self._waiting) >= self.max_packets
        if is_full:
            self._waiting.popleft()
            self.num_dropped += 1
        self._waiting.append(Due(packed, at_s))
        self._ready.set()
        return not is_full

    def clear(self) -> None:
        """Drop all that waits."""
        self.num_dropped += len(self._waiting)
        self._waiting.clear()

    async def get(self) -> Due:
        """The next packet, at once when it is there; who sends it heeds `at_s`.

        Raises:
            ViewerGone: the queue is closed.
        """
        while not self._waiting:
            if self._is_closed:
                raise ViewerGone
            self._ready.clear()
            await self._ready.wait()
        if self._is_closed:
            raise ViewerGone
        return self._waiting.popleft()

    def close(self) -> None:
        """Wake the reader for the last time."""
        self._is_closed = True
        self._waiting.clear()
        self._ready.set()
