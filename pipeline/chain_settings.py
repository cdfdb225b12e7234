"""How a staged chain works: how much is under way, what is kept for faults, how long to wait."""

from dataclasses import dataclass, field
from typing import Literal

from pipeline.controller import WatchSettings
from pipeline.doorman import ChainCapacity

# Checkpoints are this many chunks apart: what a stage that died must compute once more.
CHECKPOINT_CHUNKS = 4
# Without checkpoints, the chunks before the first missing one that are computed once more.
REPLAY_CHUNKS = 12
# Copies of checkpoints in the driver are never this many checkpoints behind.
EXPORT_LAG = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainSettings:
    """How a staged chain works.

    `window` is how many chunks of a session may be under way (None: two more than stages);
    `stall_s` how long nothing may come out before the chain is given up; `threads` what torch may
    use in each node; `transport` names its links (`pipeline/transport.py`). `host` is this
    machine's address as other machines reach it, for chains that may have stages on those.

    A checkpoint is kept every `checkpoint_chunks` chunks, in memory `shared` by all processes of
    this machine, or in the nodes with copies in the `driver`, which outlive any other machine.
    With 0 none is kept: a stage that is lost is made again from the `replay_chunks` before.

    A live session's pictures are due `latency_s` after their sound is there. `capacity` says what
    the chain can carry; without it room is uncounted and only measured times keep a session out.
    """

    pictures_per_chunk: int
    window: int | None = None
    checkpoint_chunks: int = CHECKPOINT_CHUNKS
    replay_chunks: int = REPLAY_CHUNKS
    keep: Literal["shared", "driver"] = "shared"
    latency_s: float = 1.0
    capacity: ChainCapacity | None = None
    stall_s: float = 120.0
    threads: int = 1
    transport: str = "unix"
    host: str = ""
    watch: WatchSettings = field(default_factory=WatchSettings)

    def log_chunks(self, window: int) -> int:
        """How many chunks of a session every sender keeps: as far back as anybody may ask."""
        lag = EXPORT_LAG if self.keep == "driver" else 1
        return window + (lag * self.checkpoint_chunks or self.replay_chunks) + 2
