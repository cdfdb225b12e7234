"""When a model is asked for its next chunk: late enough to be heard soon, early enough. Pure.

The model answers what it was asked so long ago as it took before; the chunk is asked for so that
it comes when `margin_frames` are left. So at most a chunk and the margin are ahead: an utterance
is heard after no more than that.
"""

from collections import deque
from dataclasses import dataclass
from fractions import Fraction

# The second slowest of the latest answers counts: one stall is no reason to run far ahead.
_NUM_ANSWERS = 8
_MAX_CHUNKS = 2


@dataclass(frozen=True, slots=True)
class _Asked:
    """Which index was asked for first, and when."""

    first_index: int
    at_ns: int


class Credit:
    """What one stream was asked for and what came."""

    def __init__(self, *, chunk_frames: int, fps: Fraction, margin_frames: int) -> None:
        """Nothing was asked yet."""
        self.chunk_frames, self.fps, self.margin_frames = chunk_frames, fps, margin_frames
        self.next_index, self.until_index = 0, 0
        self._asked: deque[_Asked] = deque()
        self._took_ns: deque[int] = deque(maxlen=_NUM_ANSWERS)

    @property
    def num_owed(self) -> int:
        """Slices that were asked for and did not come yet."""
        return self.until_index - self.next_index

    @property
    def lead_frames(self) -> int:
        """With so many frames ahead or fewer, the next chunk is asked for."""
        if not self._took_ns:
            return self.chunk_frames // 2 + self.margin_frames
        took_ns = sorted(self._took_ns)[-2:][0]
        took_frames = -(-took_ns * self.fps.numerator // (10**9 * self.fps.denominator))
        return min(took_frames, _MAX_CHUNKS * self.chunk_frames) + self.margin_frames - 1

    def came(self, index: int, now_ns: int) -> None:
        """A slice came."""
        self.next_index = max(self.next_index, index + 1)
        while self._asked and self._asked[0].first_index <= index:
            self._took_ns.append(now_ns - self._asked.popleft().at_ns)

    def ask(self, num_queued: int, now_ns: int) -> int | None:
        """The index below which slices are wanted now, if it is time for another chunk."""
        if num_queued + self.num_owed > self.lead_frames:
            return None
        self._asked.append(_Asked(self.until_index, now_ns))
        self.until_index += self.chunk_frames
        return self.until_index

    def restart(self, next_index: int) -> None:
        """The model knows of nothing that was asked; its slices go on from here."""
        self.next_index = self.until_index = next_index
        self._asked.clear()
