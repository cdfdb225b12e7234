"""What a stage has made lately: kept so that a new neighbour can be given what the old one lost.

Pure bookkeeping; whoever owns it holds a lock.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from heapq import merge

from pipeline.message import Message

_Entry = tuple[int, Message]


class OutLog:
    """The last messages of every session, and which of them are still to be sent."""

    def __init__(self, max_per_session: int) -> None:
        """Keep so many messages of a session; older ones fall out."""
        self._max_per_session = max_per_session
        self._kept: dict[int, deque[_Entry]] = {}
        self._pending: deque[_Entry] = deque()
        self._count = 0

    def open(self, epoch: int, messages: Iterable[Message] = ()) -> None:
        """Begin a session's log, with what was made before a restart."""
        self._kept[epoch] = deque(maxlen=self._max_per_session)
        for message in messages:
            self.append(message)

    def close(self, epoch: int) -> None:
        """Forget a session and what it still had to send."""
        self._kept.pop(epoch, None)
        self._pending = deque(entry for entry in self._pending if entry[1].epoch != epoch)

    def append(self, message: Message) -> None:
        """Log a message and have it sent; one of a session that is not open is dropped."""
        kept = self._kept.get(message.epoch)
        if kept is None:
            return
        entry = (self._count, message)
        self._count += 1
        kept.append(entry)
        self._pending.append(entry)

    def peek(self) -> Message | None:
        """The message that `take` would give."""
        return self._pending[0][1] if self._pending else None

    def take(self) -> Message | None:
        """The next message to send, None if all were."""
        return self._pending.popleft()[1] if self._pending else None

    def rewind(self, positions: Mapping[str, int]) -> None:
        """Have everything sent that lies after the receiver's positions (by epoch)."""
        wanted = (
            [entry for entry in kept if entry[1].chunk > positions.get(str(epoch), -1)]
            for epoch, kept in self._kept.items()
        )
        self._pending = deque(merge(*wanted, key=lambda entry: entry[0]))

    def logged(self, epoch: int) -> list[Message]:
        """All that is kept of a session, oldest first."""
        return [message for _, message in self._kept.get(epoch, ())]

    def __len__(self) -> int:
        """Messages still to be sent."""
        return len(self._pending)
