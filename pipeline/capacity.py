"""How many live sessions a chain carries in real time. Pure arithmetic, and its measurement."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# What is left for sound, sending, and chunks that take longer than usual.
BUSY_SHARE = 0.85


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What was measured: `work_s` of the chain's time for a second of video, and `sessions`."""

    work_s: float
    sessions: int


def capacity(chunk_times_s: Sequence[float], chunk_s: float, share: float = BUSY_SHARE) -> Capacity:
    """The capacity of a chain that took so long for each of several chunks of `chunk_s`.

    One session is always let in: it goes down the ladder where that is too much.

    Raises:
        ValueError: nothing was measured, or times that are none.
    """
    if not chunk_times_s or min(chunk_times_s) <= 0 or chunk_s <= 0:
        raise ValueError(f"{list(chunk_times_s)} for chunks of {chunk_s} s is no measurement")
    if not 0 < share <= 1:
        raise ValueError(f"share {share} must lie in (0, 1]")
    work_s = statistics.median(chunk_times_s) / chunk_s
    return Capacity(work_s=work_s, sessions=max(1, int(share / work_s)))
