"""One subscriber's beats: pictures of a slow reader are dropped, oldest first; sound never is."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from services.beat import Beat

MAX_PICTURES = 12
# Sound is a hundredth of the memory; a reader that is a minute behind has gone.
MAX_BEHIND_S = 60


class BeatQueue:
    """A bounded queue between a performer and one reader; the writer never waits.

    Beats come out one a tick, in order. Of those that wait, only the latest `max_pictures` keep
    their picture. A reader that is `max_beats` behind is sent away: its queue ends.
    """

    def __init__(
        self, *, max_beats: int, max_pictures: int = MAX_PICTURES, forget: Callable[[], None]
    ) -> None:
        """Start empty; `forget` is called when the reader closes it."""
        self._max_beats, self._max_pictures = max_beats, max_pictures
        self._forget = forget
        self._beats: deque[Beat] = deque()
        self._changed = asyncio.Event()
        self.num_dropped, self.is_too_slow, self.is_closed = 0, False, False

    def __len__(self) -> int:
        """How many beats wait."""
        return len(self._beats)

    def put(self, beat: Beat) -> None:
        """Add a beat."""
        if self.is_closed:
            return
        if len(self._beats) >= self._max_beats:
            self.is_too_slow = True
            self.close()
            return
        self._beats.append(beat)
        if len(self._beats) > self._max_pictures:
            self._drop_picture(len(self._beats) - self._max_pictures - 1)
        self._changed.set()

    async def get(self) -> Beat | None:
        """The next beat; None: there will be none."""
        while not self._beats:
            if self.is_closed:
                return None
            self._changed.clear()
            await self._changed.wait()
        return self._beats.popleft()

    async def __aiter__(self) -> AsyncIterator[Beat]:
        """All beats to the end."""
        while (beat := await self.get()) is not None:
            yield beat

    def close(self) -> None:
        """End it, for both sides; what waits can still be read unless the reader was too slow."""
        if self.is_closed:
            return
        self.is_closed = True
        if self.is_too_slow:
            self._beats.clear()
        self._changed.set()
        self._forget()

    def _drop_picture(self, place: int) -> None:
        """Keep only the sound of a beat that waits."""
        if self._beats[place].picture_HWC is not None:
            self._beats[place] = replace(self._beats[place], picture_HWC=None)
            self.num_dropped += 1
