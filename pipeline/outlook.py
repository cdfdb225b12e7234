"""What to expect of a placement before it runs: pictures a second, latency, bubbles, real time."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Literal

from pipeline.chain_work import ChainWork
from pipeline.device import Device
from pipeline.placement import PlacedStage, Placement

# Above this share of a device's time, waiting grows without need (design page "distributed", 7.4).
MAX_LOAD = 0.85
# From stage to stage, for chunks of up to a few megabytes.
SAME_NODE_HOP_MS = 0.5
OTHER_NODE_HOP_MS = 1.0

RealTime = Literal["yes", "no headroom", "no"]
Limit = Literal["compute", "memory"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """The figures of a placement with its sessions.

    `chunk_ms` is how long a chunk shows, `period_ms` the time from chunk to chunk at full speed,
    `fps` the pictures a second of each session then; `latency_ms` from a chunk's sound being there
    to its pictures, `mouth_ms` from its first sound on; `opening_ms` fills a session's sink.
    `load` is the slowest device's share of time when all sessions play live, `num_fit` how many
    sessions could, and `limit` what ends that. `bubbles` is each device's idle share at full speed.
    """

    chunk_ms: float
    period_ms: float
    fps: float
    latency_ms: float
    mouth_ms: float
    opening_ms: float
    load: float
    real_time: RealTime
    num_fit: int
    limit: Limit
    bubbles: tuple[tuple[Device, float], ...]


def outlook(placement: Placement, work: ChainWork, fps: Fraction) -> Outlook:
    """What to expect at `fps` pictures a second."""
    chunk_ms = float(1000 * work.pictures / fps)
    period_ms = placement.bottleneck_ms
    latency_ms = sum(stage.latency_ms for stage in placement.stages) + _hops_ms(placement.stages)
    load = placement.num_sessions * period_ms / chunk_ms
    by_compute = int(MAX_LOAD * chunk_ms / period_ms) if period_ms else 10**6
    by_memory = min(placement.need(device).slots(device) for device in placement.devices)
    bubbles = ((d, 1 - placement.busy_ms(d) / (period_ms or 1.0)) for d in placement.devices)
    return Outlook(
        chunk_ms=chunk_ms,
        period_ms=period_ms,
        fps=1000 * work.pictures / (placement.num_sessions * period_ms) if period_ms else 0.0,
        latency_ms=latency_ms,
        mouth_ms=chunk_ms + latency_ms,
        opening_ms=_opening_ms(placement, work),
        load=load,
        real_time="yes" if load <= MAX_LOAD else "no headroom" if load <= 1.0 else "no",
        num_fit=min(by_compute, by_memory),
        limit="compute" if by_compute <= by_memory else "memory",
        bubbles=tuple(bubbles),
    )


def _hops_ms(stages: Sequence[PlacedStage]) -> float:
    """The way from stage to stage."""
    return sum(
        SAME_NODE_HOP_MS if before.device.node == after.device.node else OTHER_NODE_HOP_MS
        for before, after in pairwise(stages)
    )


def _opening_ms(placement: Placement, work: ChainWork) -> float:
    """The slowest device's time to fill a session's sinks; devices do it side by side."""
    times = [
        sum(not stage.decodes for stage in placement.on(device)) * work.sink_flops / device.flops
        for device in placement.devices
    ]
    return 1000 * max(times)
