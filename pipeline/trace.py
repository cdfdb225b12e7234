"""A chain's records as a trace in the format of Chrome and Perfetto. Pure.

One process per stage with a row for its work and one for what it sends; chunks that wait are
asynchronous slices; an arrow follows each chunk from stage to stage; counters show how many chunks
wait and how many bytes of state are held. Times are microseconds after the first record.
Format: "Trace Event Format", Google, phases M, X, s, t, f, b, e, C and i.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pipeline.spans import Record, Sending, Span
from pipeline.timings import SINK, SOURCE

Event = dict[str, Any]

_COMPUTE, _SEND = 1, 2
_ROWS = {_COMPUTE: "compute", _SEND: "send"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """How much state a stage held at a moment."""

    stage: str
    at_ns: int
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Something that happened to the whole chain at a moment."""

    text: str
    at_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What is to be drawn: stages first to last, what they did, and what happened meanwhile.

    `num_dropped` records were forgotten because there were too many.
    """

    names: tuple[str, ...]
    records: tuple[Record, ...]
    samples: tuple[Sample, ...] = ()
    marks: tuple[Mark, ...] = ()
    num_dropped: int = 0


def chrome_trace(story: Story) -> dict[str, Any]:
    """The trace as plain values for JSON; open it at ui.perfetto.dev or chrome://tracing."""
    processes = _processes(story)
    drawn = _Drawing(processes, _first_ns(story))
    events = [
        *(event for record in story.records for event in drawn.slices(record)),
        *drawn.flows(story.records),
        *drawn.queues(story.records),
        *(
            drawn.counter(s.stage, s.at_ns, "state held", "bytes", s.memory_bytes)
            for s in story.samples
            if s.stage in processes
        ),
        *map(drawn.mark, story.marks),
    ]
    events.sort(key=lambda event: (event["ts"], -event.get("dur", 0.0)))
    return {
        "traceEvents": [*_metadata(processes), *events],
        "displayTimeUnit": "ms",
        "otherData": {"records_dropped": story.num_dropped},
    }


def _processes(story: Story) -> dict[str, int]:
    """A number from 1 for each stage, and for both ends where there is anything to see."""
    seen = {record.stage for record in story.records}
    source, sink = ([end] if end in seen else [] for end in (SOURCE, SINK))
    return {name: index for index, name in enumerate((*source, *story.names, *sink), start=1)}


def _first_ns(story: Story) -> int:
    times = [
        record.arrived_ns if isinstance(record, Span) else record.began_ns
        for record in story.records
    ]
    others = [sample.at_ns for sample in story.samples] + [mark.at_ns for mark in story.marks]
    return min((*times, *others), default=0)


def _metadata(processes: dict[str, int]) -> list[Event]:
    """The names of processes and rows."""
    events: list[Event] = []
    for name, pid in processes.items():
        about = {"pid": pid, "tid": 0, "ph": "M", "ts": 0}
        events.append({**about, "name": "process_name", "args": {"name": name}})
        events.append({**about, "name": "process_sort_index", "args": {"sort_index": pid}})
        for tid, row in _ROWS.items():
            events.append({**about, "tid": tid, "name": "thread_name", "args": {"name": row}})
    return events


class _Drawing:
    """Turns records into events; knows the processes and when time begins."""

    def __init__(self, processes: dict[str, int], first_ns: int) -> None:
        self._processes, self._first_ns = processes, first_ns

    def _us(self, time_ns: int) -> float:
        return (time_ns - self._first_ns) / 1000

    def slices(self, record: Record) -> list[Event]:
        """The record in its row, and the wait before it."""
        pid = self._processes.get(record.stage)
        if pid is None:
            return []
        args: dict[str, Any] = {
            "session": record.session,
            "chunk": record.chunk,
            "epoch": record.epoch,
        }
        slice_ = {
            "name": f"{record.session} {record.chunk}",
            "cat": "send" if isinstance(record, Sending) else "compute",
            "ph": "X",
            "pid": pid,
            "tid": _SEND if isinstance(record, Sending) else _COMPUTE,
            "ts": self._us(record.began_ns),
            "dur": (record.ended_ns - record.began_ns) / 1000,
            "args": args,
        }
        if isinstance(record, Sending):
            args["bytes"] = record.num_bytes
            return [slice_]
        return [slice_, *self._wait(record, pid)]

    def _wait(self, span: Span, pid: int) -> list[Event]:
        if span.began_ns <= span.arrived_ns:
            return []
        wait = {
            "name": "waits",
            "cat": "inbox",
            # A chunk that is done again after a fault has waited twice.
            "id": f"{pid}/{span.epoch}/{span.chunk}/{span.arrived_ns - self._first_ns}",
            "pid": pid,
            "tid": _COMPUTE,
            "args": {"session": span.session, "chunk": span.chunk},
        }
        return [
            {**wait, "ph": "b", "ts": self._us(span.arrived_ns)},
            {**wait, "ph": "e", "ts": self._us(span.began_ns)},
        ]

    def flows(self, records: Iterable[Record]) -> list[Event]:
        """One arrow per chunk through the stages that worked on it, in the order of time."""
        ways: dict[tuple[int, int], dict[int, Span]] = {}
        for record in records:
            pid = self._processes.get(record.stage)
            if isinstance(record, Span) and pid is not None:
                # What is done again after a fault is not followed a second time.
                ways.setdefault((record.epoch, record.chunk), {}).setdefault(pid, record)
        return [event for way in ways.values() for event in self._arrow(way)]

    def _arrow(self, way: dict[int, Span]) -> list[Event]:
        points: list[tuple[int, Span]] = []
        for pid, span in sorted(way.items()):
            if not points or span.began_ns >= points[-1][1].began_ns:
                points.append((pid, span))
        if len(points) < 2:
            return []
        return [
            self._point(pid, span, "s" if not i else "f" if i == len(points) - 1 else "t")
            for i, (pid, span) in enumerate(points)
        ]

    def _point(self, pid: int, span: Span, phase: str) -> Event:
        point: Event = {
            "name": "chunk",
            "cat": "chunk",
            "id": f"{span.epoch}/{span.chunk}",
            "ph": phase,
            "pid": pid,
            "tid": _COMPUTE,
            "ts": self._us(span.began_ns),
        }
        return {**point, "bp": "e"} if phase == "f" else point

    def queues(self, records: Iterable[Record]) -> list[Event]:
        """How many chunks wait before each stage, whenever that changes."""
        changes: dict[str, dict[int, int]] = {}
        for record in records:
            waited = isinstance(record, Span) and record.began_ns > record.arrived_ns
            if isinstance(record, Span) and waited and record.stage in self._processes:
                own = changes.setdefault(record.stage, {})
                own[record.arrived_ns] = own.get(record.arrived_ns, 0) + 1
                own[record.began_ns] = own.get(record.began_ns, 0) - 1
        events = []
        for stage, own in changes.items():
            depth = 0
            for at_ns in sorted(own):
                depth += own[at_ns]
                events.append(self.counter(stage, at_ns, "waiting", "chunks", depth))
        return events

    def counter(self, stage: str, at_ns: int, name: str, unit: str, value: int) -> Event:
        """A value that holds from a moment on."""
        return {
            "name": name,
            "ph": "C",
            "pid": self._processes[stage],
            "tid": 0,
            "ts": self._us(at_ns),
            "args": {unit: value},
        }

    def mark(self, mark: Mark) -> Event:
        """A line through all processes."""
        ts = self._us(mark.at_ns)
        return {"name": mark.text, "ph": "i", "s": "g", "pid": 1, "tid": 0, "ts": ts}
