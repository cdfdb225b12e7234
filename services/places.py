"""Places for sessions and the queue before them: who is in, who waits, who is next.

Nothing here awaits, so between asking for a place and having it nobody else can take it: of any
number of simultaneous callers exactly as many get in as there are places.
"""

from collections import OrderedDict


class Places:
    """So many places and so long a queue; sessions are named by their ids."""

    def __init__(self, capacity: int, max_queue: int) -> None:
        """Start empty."""
        self.capacity, self._max_queue = capacity, max_queue
        self._taken: set[str] = set()
        self._queue: OrderedDict[str, None] = OrderedDict()

    @property
    def num_taken(self) -> int:
        """How many places are taken."""
        return len(self._taken)

    @property
    def num_queued(self) -> int:
        """How many sessions wait."""
        return len(self._queue)

    def has(self, session: str) -> bool:
        """Whether the session has a place."""
        return session in self._taken

    def take(self, session: str) -> bool:
        """A place, if one is free and nobody waits before this session."""
        if session in self._taken:
            return True
        if len(self._taken) >= self.capacity or any(other != session for other in self._queue):
            return False
        self._queue.pop(session, None)
        self._taken.add(session)
        return True

    def wait(self, session: str) -> int | None:
        """The session's position in the queue from 1, joining it if need be; None: it is full."""
        if session not in self._queue:
            if len(self._queue) >= self._max_queue:
                return None
            self._queue[session] = None
        return self.position(session)

    def position(self, session: str) -> int | None:
        """The place in the queue from 1; None of who does not wait."""
        for number, waiting in enumerate(self._queue, start=1):
            if waiting == session:
                return number
        return None

    def release(self, session: str) -> None:
        """Give up a place or leave the queue; of others nothing changes until `admit`."""
        self._taken.discard(session)
        self._queue.pop(session, None)

    def admit(self) -> str | None:
        """Give the next free place to who waits first; None: no place is free or nobody waits."""
        if not self._queue or len(self._taken) >= self.capacity:
            return None
        session, _ = self._queue.popitem(last=False)
        self._taken.add(session)
        return session
