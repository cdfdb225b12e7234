"""What a stage has received and not yet done: in order within a session, by deadline between them.

Pure bookkeeping; whoever owns it holds a lock.
"""

from collections import deque
from dataclasses import dataclass, field

from pipeline.message import Message, MessageError


@dataclass(slots=True)
class _Lane:
    """One session's waiting messages; `position` is the last chunk that was let in."""

    position: int
    fresh: bool
    waiting: deque[Message] = field(default_factory=deque)


class Inbox:
    """Waiting messages of all sessions; the earliest due one of those that are next comes first."""

    def __init__(self, max_per_session: int) -> None:
        """Hold at most so many messages of a session: as many as a sender can log and replay."""
        self._max_per_session = max_per_session
        self._lanes: dict[int, _Lane] = {}

    def open(self, epoch: int, position: int, *, fresh: bool = False) -> None:
        """Let in a session's chunks after `position`; a `fresh` one may begin later than that."""
        self._lanes[epoch] = _Lane(position=position, fresh=fresh)

    def close(self, epoch: int) -> None:
        """Forget a session; one that is unknown is no error."""
        self._lanes.pop(epoch, None)

    def put(self, message: Message) -> bool:
        """Let a message in; False for one of an unknown session and for one that was in before.

        Raises:
            MessageError: chunks before it are missing, or the sender overruns its window.
        """
        lane = self._lanes.get(message.epoch)
        if lane is None or message.chunk <= lane.position:
            return False
        if message.chunk != lane.position + 1 and not lane.fresh:
            raise MessageError(
                f"session {message.session}: chunk {message.chunk} came after {lane.position}"
            )
        if len(lane.waiting) >= self._max_per_session:
            raise MessageError(f"session {message.session}: more chunks at once than any log holds")
        lane.position, lane.fresh = message.chunk, False
        lane.waiting.append(message)
        return True

    def take(self) -> Message | None:
        """The next message to work on, None if there is none; ties go to the older session."""
        heads = [lane.waiting for lane in self._lanes.values() if lane.waiting]
        if not heads:
            return None
        earliest = min(heads, key=lambda waiting: (waiting[0].due_ns, waiting[0].epoch))
        return earliest.popleft()

    def positions(self) -> dict[str, int]:
        """The last chunk let in, by epoch; what a sender goes on from. Fresh ones are left out."""
        return {str(epoch): lane.position for epoch, lane in self._lanes.items() if not lane.fresh}

    def __len__(self) -> int:
        """Messages waiting."""
        return sum(len(lane.waiting) for lane in self._lanes.values())
