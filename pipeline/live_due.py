"""When a live session's slices are due, from what its viewer says. Pure arithmetic."""

from collections import deque
from dataclasses import dataclass, field

# What was released so shortly before may not have been counted by whoever wrote the message.
IN_FLIGHT_S = 0.02
# After so many slices at once nobody knows which of them the message counts.
BURST = 3
BURST_S = 0.1


@dataclass(slots=True, kw_only=True)
class DueTimes:
    """A viewer's clock as seen from here: slice n is due at `zero_s + n * frame_s`."""

    frame_s: float
    zero_s: float | None = None
    _released: deque[tuple[float, int]] = field(default_factory=lambda: deque([(float("-inf"), 0)]))

    def released(self, next_index: int, now_s: float) -> None:
        """Slices below `next_index` are on their way."""
        self._released.append((now_s, next_index))
        while len(self._released) > 1 and self._released[1][0] < now_s - 2 * BURST_S:
            self._released.popleft()

    def said(self, due_in_ms: float, at_s: float) -> None:
        """The viewer said at `at_s` when the first slice that it has not got is due."""
        known = self._index_at(at_s - IN_FLIGHT_S)
        is_burst = self._index_at(at_s) - self._index_at(at_s - BURST_S) > BURST
        if self.zero_s is None or not is_burst:
            self.zero_s = at_s + due_in_ms / 1000 - known * self.frame_s

    def due_now(self, index: int, now_s: float) -> None:
        """The viewer waits for this slice, if for any."""
        if self.zero_s is not None:
            self.zero_s = now_s - index * self.frame_s

    def due_s(self, index: int) -> float | None:
        """When a slice is due; None before anything is wanted."""
        return None if self.zero_s is None else self.zero_s + index * self.frame_s

    def _index_at(self, at_s: float) -> int:
        """The first slice that was not released by then, as far back as is remembered."""
        known = (index for released_s, index in self._released if released_s <= at_s)
        return max(known, default=self._released[0][1])
