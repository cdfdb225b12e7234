"""What happens to a chain that a live service should tell or bridge: lost nodes, late pictures."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLost:
    """A node died or was given up; whoever waits for pictures may have to wait longer."""

    position: int
    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """A node that was replaced: which, why, and how long it took until all was joined again."""

    position: int
    reason: str
    healed_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A session's pictures come late because of a fault.

    It is told twice: as soon as a chunk is overdue (`is_over` false, `last_chunk` is the last one
    that was sent in), and when pictures have caught up with the fault (`is_over`; `last_chunk` is
    the last one that came late). `late_s` is how much later than before the fault they are, at
    worst so far. Frames are never lost: the same pictures with the same pts, only later.
    """

    session: str
    first_chunk: int
    last_chunk: int
    cause: str
    late_s: float
    is_over: bool


ChainEvent = NodeLost | Replacement | Gap
