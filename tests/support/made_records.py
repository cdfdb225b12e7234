"""Records of a chain that never ran: every chunk takes the same time in every stage."""

from pipeline.spans import Record, Sending, Span
from pipeline.timings import SINK, SOURCE

MS = 1_000_000


def span(stage: str, chunk: int, arrived_ms: int, began_ms: int, ended_ms: int) -> Span:
    return Span(
        stage=stage,
        session="a",
        epoch=1,
        chunk=chunk,
        arrived_ns=arrived_ms * MS,
        began_ns=began_ms * MS,
        ended_ns=ended_ms * MS,
        due_ns=ended_ms * MS,
    )


def sending(stage: str, chunk: int, began_ms: int, ended_ms: int) -> Sending:
    return Sending(
        stage=stage,
        session="a",
        epoch=1,
        chunk=chunk,
        began_ns=began_ms * MS,
        ended_ns=ended_ms * MS,
        num_bytes=1000,
    )


def pipelined(num_chunks: int, times_ms: tuple[int, ...], hop_ms: int = 1) -> list[Record]:
    """As fast as stages of these times and hops allow, everything sent in at once."""
    records: list[Record] = []
    free_ms = [0] * len(times_ms)
    for chunk in range(num_chunks):
        at_ms, before = 0, SOURCE
        for index, time_ms in enumerate(times_ms):
            stage = f"s{index}"
            records.append(sending(before, chunk, at_ms, at_ms))
            arrived_ms = at_ms + hop_ms
            began_ms = max(arrived_ms, free_ms[index])
            at_ms = free_ms[index] = began_ms + time_ms
            records.append(span(stage, chunk, arrived_ms, began_ms, at_ms))
            before = stage
        records.append(sending(before, chunk, at_ms, at_ms))
        out_ms = at_ms + hop_ms
        records.append(span(SINK, chunk, out_ms, out_ms, out_ms))
    return records
