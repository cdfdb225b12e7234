"""What a stage has received and not yet done: in order within a session, by deadline between them.

Pure bookkeeping around the decisions of `deadline_queue`; whoever owns it holds a lock.
"""

import math
from collections import defaultdict, deque
from dataclasses import dataclass, field

from pipeline.deadline_queue import NO_TURNS, ReadyChunk, Turns, is_spare, next_batch
from pipeline.message import Message, MessageError
from pipeline.step_cost import BatchProfile, TypicalTime


@dataclass(slots=True)
class _Lane:
    """One session's waiting messages; `position` is the last chunk that was let in.

    `shape` is that of the chunk taken last, `spare` whether it could have waited.
    """

    position: int
    fresh: bool
    waiting: deque[Message] = field(default_factory=deque)
    shape: str = ""
    spare: bool = False
    failed: bool = False


class Inbox:
    """Waiting messages of all sessions, and whose is next.

    A session holds back nobody: one that has nothing waiting is passed over and may claim little
    for that later, and of one that has failed nothing is kept.
    """

    def __init__(
        self,
        max_per_session: int,
        *,
        horizon_s: float = math.inf,
        profile: BatchProfile | None = None,
    ) -> None:
        """Hold at most so many messages of a session: as many as a sender can log and replay.

        What is due later than `horizon_s` from now can wait; `profile` says what a batch takes.
        """
        self._max_per_session = max_per_session
        self._horizon_ms = horizon_s * 1e3
        self._profile = profile or BatchProfile()
        self._lanes: dict[int, _Lane] = {}
        self._times: defaultdict[str, TypicalTime] = defaultdict(TypicalTime)
        self._turns = NO_TURNS

    def open(self, epoch: int, position: int, *, fresh: bool = False) -> None:
        """Let in a session's chunks after `position`; a `fresh` one may begin later than that."""
        self._lanes[epoch] = _Lane(position=position, fresh=fresh)

    def close(self, epoch: int) -> None:
        """Forget a session; one that is unknown is no error."""
        self._lanes.pop(epoch, None)
        self._turns = self._turns.without(_name(epoch))

    def fail(self, epoch: int) -> None:
        """Drop what waits of a session that cannot go on, and whatever still comes."""
        lane = self._lanes.get(epoch)
        if lane is not None:
            lane.failed = True
            lane.waiting.clear()

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
        if lane.failed:
            return False
        if not lane.waiting:
            self._turns = self._turns.joined(_name(message.epoch))
        lane.waiting.append(message)
        return True

    def take(self, now_ns: int = 0) -> Message | None:
        """The next message to work on, None if there is none."""
        batch = self.take_batch(now_ns, 1)
        return batch[0] if batch else None

    def take_batch(self, now_ns: int, max_batch: int) -> list[Message]:
        """The next message, with others of its shape if that is worth it; empty if none waits."""
        heads = {_name(epoch): lane for epoch, lane in self._lanes.items() if lane.waiting}
        if not heads:
            return []
        now_ms = now_ns / 1e6
        batch = next_batch(
            [self._ready(name, lane.waiting[0]) for name, lane in heads.items()],
            now_ms,
            self._turns,
            profile=self._profile,
            max_batch=max_batch,
            horizon_ms=self._horizon_ms,
        )
        self._turns = self._turns.after([entry.session for entry in batch])
        for entry in batch:
            lane = heads[entry.session]
            lane.shape, lane.spare = entry.shape, is_spare(entry, now_ms, self._horizon_ms)
        return [heads[entry.session].waiting.popleft() for entry in batch]

    def spent(self, epoch: int, spent_ms: float) -> None:
        """Note the compute that a session's chunk took, the one that was taken last.

        It is charged by the size of its chunk alone: a first one that compiles, or one that the
        machine held up, is no fault of its session.
        """
        lane = self._lanes.get(epoch)
        if lane is None:
            return
        self._times[lane.shape].add(spent_ms)
        if lane.spare:
            self._turns = self._turns.charged(_name(epoch), self._size(lane.shape))

    def _size(self, shape: str) -> float:
        """What a chunk of a shape takes, in chunks of the shape that was there first."""
        usual_ms = next(iter(self._times.values())).value_ms
        own_ms = self._times[shape].value_ms
        return own_ms / usual_ms if own_ms > 0 and usual_ms > 0 else 1.0

    def _ready(self, name: str, head: Message) -> ReadyChunk:
        """A waiting message in the queue's words; without a deadline nobody waits for it.

        Only chunks of one size run as one batch, and cost the same.
        """
        latents_CTHW = head.tensors.get("latents_CTHW")
        shape = head.kind if latents_CTHW is None else str(tuple(latents_CTHW.shape))
        return ReadyChunk(
            session=name,
            chunk=head.chunk,
            deadline_ms=head.due_ns / 1e6 if head.due_ns else math.inf,
            service_ms=self._times[shape].value_ms,
            shape=shape,
        )

    @property
    def turns(self) -> Turns:
        """Who had how many turns and how much compute."""
        return self._turns

    def positions(self) -> dict[str, int]:
        """The last chunk let in, by epoch; what a sender goes on from. Fresh ones are left out."""
        return {str(epoch): lane.position for epoch, lane in self._lanes.items() if not lane.fresh}

    def has_done(self, epoch: int, chunk: int) -> bool:
        """Whether a session's chunks up to that one were taken, and nothing of it waits."""
        lane = self._lanes.get(epoch)
        return lane is not None and not lane.waiting and lane.position >= chunk

    def __len__(self) -> int:
        """Messages waiting."""
        return sum(len(lane.waiting) for lane in self._lanes.values())


def _name(epoch: int) -> str:
    """A session in the queue's words; of equals the older one sorts first."""
    return f"{epoch:020d}"
