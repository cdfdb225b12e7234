"""What a chain's records come to: how long stages work and wait, and how well they overlap. Pure.

All records must be on one clock (`pipeline/clocks.py`). A stage *idles* while it has no input; what
of that happens while any chunk is under way in the chain is its *bubble*.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.spans import Record, Sending, Span

# What the entry and the exit of a chain call themselves in their records.
SOURCE, SINK = "source", "sink"

ChunkKey = tuple[int, int]
Interval = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTimings:
    """One stage over some time; times are means per chunk, shares are 0..1.

    `compute_ms` is the stage's time for a chunk, `idle_ms` its wait for input before one,
    `queue_ms` a chunk's wait for the stage. `transfer_ms` is from the first byte packed here until
    the next stage has all of it, None where that was not seen; `sent_bytes` its tensors.
    `busy` and `bubble` are shares of the time in which chunks were under way anywhere.
    """

    stage: str
    num_chunks: int
    compute_ms: float
    idle_ms: float
    queue_ms: float
    transfer_ms: float | None
    sent_bytes: int
    busy: float
    bubble: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainTimings:
    """A chain over some time.

    `chunks_per_s` is the rate at which the last stage ends chunks, `slowest_ms` the compute time of
    the slowest stage and `efficiency` the rate times that time: 1.0 means that the chain is as fast
    as its slowest stage. A chain that is fed in real time waits for its input and shows less.
    `latency_ms` is the mean from a chunk's way in to its way out. None: too few chunks to tell.
    """

    stages: tuple[StageTimings, ...]
    num_chunks: int
    chunks_per_s: float | None
    slowest_ms: float
    efficiency: float | None
    latency_ms: float | None


def timings(names: Sequence[str], records: Iterable[Record]) -> ChainTimings:
    """The figures of stages `names`, first to last, from their records and those of both ends."""
    spans, sendings = _by_stage(records)
    under_way = _under_way(names, spans, sendings)
    arrivals = _arrivals(spans)
    following = dict(zip((SOURCE, *names), (*names, SINK), strict=True))
    stages = tuple(
        _stage_timings(
            name,
            spans.get(name, ()),
            _transfers(sendings.get(name, ()), arrivals.get(following[name], {})),
            list(under_way.values()),
        )
        for name in names
    )
    slowest_ms = max((stage.compute_ms for stage in stages), default=0.0)
    rate = _rate(spans.get(names[-1], ()) if names else ())
    return ChainTimings(
        stages=stages,
        num_chunks=stages[-1].num_chunks if stages else 0,
        chunks_per_s=rate,
        slowest_ms=slowest_ms,
        efficiency=None if rate is None else rate * slowest_ms / 1000,
        latency_ms=_mean_ms([end - begin for begin, end in under_way.values()]),
    )


def union(intervals: Iterable[Interval]) -> list[Interval]:
    """The same times without overlaps, in order."""
    merged: list[Interval] = []
    for begin, end in sorted(intervals):
        if merged and begin <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], end)
        else:
            merged.append((begin, end))
    return merged


def overlap_ns(first: Sequence[Interval], second: Sequence[Interval]) -> int:
    """How long both are; each must be in order and without overlaps of its own."""
    total = index = 0
    for begin, end in first:
        while index < len(second) and second[index][1] <= begin:
            index += 1
        scan = index
        while scan < len(second) and second[scan][0] < end:
            total += min(end, second[scan][1]) - max(begin, second[scan][0])
            scan += 1
    return total


def idle_ns(spans: Iterable[Span]) -> int:
    """How long one stage waited for input between these spans."""
    total, ended_ns = 0, None
    for span in sorted(spans, key=lambda span: span.began_ns):
        if ended_ns is not None:
            total += max(0, min(span.arrived_ns, span.began_ns) - ended_ns)
        ended_ns = max(ended_ns or span.ended_ns, span.ended_ns)
    return total


def _by_stage(
    records: Iterable[Record],
) -> tuple[dict[str, list[Span]], dict[str, list[Sending]]]:
    spans: dict[str, list[Span]] = {}
    sendings: dict[str, list[Sending]] = {}
    for record in records:
        if isinstance(record, Span):
            spans.setdefault(record.stage, []).append(record)
        else:
            sendings.setdefault(record.stage, []).append(record)
    return spans, sendings


def _under_way(
    names: Sequence[str],
    spans: Mapping[str, Sequence[Span]],
    sendings: Mapping[str, Sequence[Sending]],
) -> dict[ChunkKey, Interval]:
    """When each chunk was in the chain, for those whose first and last moments were both seen."""
    began: dict[ChunkKey, int] = {}
    ended: dict[ChunkKey, int] = {}
    for span in spans.get(names[0], ()) if names else ():
        _keep_least(began, span, span.arrived_ns)
    for sending in sendings.get(SOURCE, ()):
        _keep_least(began, sending, sending.began_ns)
    for span in (*(spans.get(names[-1], ()) if names else ()), *spans.get(SINK, ())):
        ended[span.epoch, span.chunk] = max(ended.get((span.epoch, span.chunk), 0), span.ended_ns)
    return {key: (began[key], ended[key]) for key in began if ended.get(key, -1) >= began[key]}


def _keep_least(times: dict[ChunkKey, int], record: Record, time_ns: int) -> None:
    key = record.epoch, record.chunk
    times[key] = min(times.get(key, time_ns), time_ns)


def _arrivals(spans: Mapping[str, Sequence[Span]]) -> dict[str, dict[ChunkKey, int]]:
    """When each stage first had each chunk."""
    arrivals: dict[str, dict[ChunkKey, int]] = {}
    for name, own in spans.items():
        for span in own:
            _keep_least(arrivals.setdefault(name, {}), span, span.arrived_ns)
    return arrivals


def _transfers(
    sendings: Iterable[Sending], arrivals: Mapping[ChunkKey, int]
) -> list[tuple[Sending, int | None]]:
    """What was sent, each with its time on the way; what was sent again was not waited for."""
    pairs = []
    for sending in sendings:
        arrived_ns = arrivals.get((sending.epoch, sending.chunk))
        late = arrived_ns is not None and arrived_ns >= sending.began_ns
        pairs.append((sending, arrived_ns - sending.began_ns if late and arrived_ns else None))
    return pairs


def _stage_timings(
    name: str,
    spans: Sequence[Span],
    transfers: Sequence[tuple[Sending, int | None]],
    under_way: Sequence[Interval],
) -> StageTimings:
    num = max(1, len(spans))
    busy = union((span.began_ns, span.ended_ns) for span in spans)
    busy_ns = sum(end - begin for begin, end in busy)
    chain = union(under_way)
    chain_ns = sum(end - begin for begin, end in chain)
    share = overlap_ns(busy, chain) / chain_ns if chain_ns else 0.0
    sent = [sending.num_bytes for sending, _ in transfers]
    return StageTimings(
        stage=name,
        num_chunks=len(spans),
        compute_ms=busy_ns / num / 1e6,
        idle_ms=idle_ns(spans) / num / 1e6,
        queue_ms=sum(max(0, span.began_ns - span.arrived_ns) for span in spans) / num / 1e6,
        transfer_ms=_mean_ms([way_ns for _, way_ns in transfers if way_ns is not None]),
        sent_bytes=sum(sent) // max(1, len(sent)),
        busy=share,
        bubble=1.0 - share if chain_ns else 0.0,
    )


def _rate(spans: Sequence[Span]) -> float | None:
    """Chunks per second between the first and the last end."""
    ends = sorted(span.ended_ns for span in spans)
    if len(ends) < 2 or ends[-1] == ends[0]:
        return None
    return (len(ends) - 1) * 1e9 / (ends[-1] - ends[0])


def _mean_ms(times_ns: Sequence[int]) -> float | None:
    return sum(times_ns) / len(times_ns) / 1e6 if times_ns else None
