"""What a controller must know: how patient to be, and the two ends of its chain."""

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.edge import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchSettings:
    """How soon a node counts as hung, and how long a new one may take.

    `hung_s` is without a sign of life, `stuck_s` busy with one and the same thing. On a machine
    with five times more to do than it can, signs of life came two seconds late; a process that is
    stopped is seen at once by its state.
    """

    interval_s: float = 0.1
    hung_s: float = 10.0
    stuck_s: float = 60.0
    spawn_timeout_s: float = 180.0
    call_timeout_s: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainEnds:
    """What a controller must know of the chain's two ends.

    `lead_source` points the entry at the first node, `sink_address` is where the last one sends.
    `num_done` counts the chunks that have come out of all sessions (progress, by which a node that
    dies of what it is given is told from bad luck), `last_done` names the last one of a session
    (by epoch).
    """

    lead_source: Callable[[Target], None]
    sink_address: str
    num_done: Callable[[], int]
    last_done: Callable[[int], int]
