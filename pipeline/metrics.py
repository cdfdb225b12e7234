"""Counters of a chain for Prometheus; every name begins with `viva_chain_`.

Series are labelled by stage, never by session: there are few stages, and sessions without end.

| name | kind | labels | counts |
| --- | --- | --- | --- |
| chunks_total | counter | stage | chunks that a stage has done |
| stage_seconds | histogram | stage | time at work on a chunk |
| queue_seconds | histogram | stage | time of a chunk in a stage's inbox |
| wait_seconds_total | counter | stage | time without input |
| sent_bytes_total | counter | stage | tensors sent on |
| bypassed_steps_total | counter | stage | steps left out of late live chunks |
| queue_depth | gauge | stage | chunks in the inbox |
| unsent_chunks | gauge | stage | chunks done and not sent |
| cache_bytes | gauge | stage | state held of all sessions |
| silent | gauge | stage | 1 while a stage gives no answer |
| replacements_total | counter | stage, reason | stages that were replaced |
| lateness_seconds | histogram | | how late chunks of live sessions came out; 0 is in time |
| sessions | gauge | | open sessions |
| state | gauge | state | 1 for the state that the chain is in |
"""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from pipeline.chain_state import ChainState
from pipeline.collector import Observation
from pipeline.spans import Sending, Span, StageReport
from pipeline.timings import SINK, SOURCE, idle_ns

# From an instant stage to a step of the 14B network on a slow card.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class ChainMetrics:
    """The counters of one chain in a registry; `observe` is called from one thread at a time."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register all names, which a registry can hold once."""
        stage = ["stage"]

        def counter(name: str, text: str, labels: list[str] = stage) -> Counter:
            return Counter(f"viva_chain_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, labels: list[str] = stage) -> Gauge:
            return Gauge(f"viva_chain_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, labels: list[str] = stage) -> Histogram:
            name = f"viva_chain_{name}"
            return Histogram(name, text, labels, registry=registry, buckets=SECONDS)

        self._chunks = counter("chunks", "Chunks that a stage has done.")
        self._compute = histogram("stage_seconds", "Time at work on a chunk.")
        self._queue = histogram("queue_seconds", "Time of a chunk in a stage's inbox.")
        self._wait = counter("wait_seconds", "Time without input.")
        self._sent = counter("sent_bytes", "Bytes of tensors sent on.")
        self._bypassed = counter("bypassed_steps", "Steps left out of late live chunks.")
        self._depth = gauge("queue_depth", "Chunks in the inbox.")
        self._unsent = gauge("unsent_chunks", "Chunks done and not sent.")
        self._cache = gauge("cache_bytes", "Bytes of state held of all sessions.")
        self._silent = gauge("silent", "1 while a stage gives no answer.")
        self._replaced = counter("replacements", "Stages that were replaced.", ["stage", "reason"])
        self._lateness = histogram("lateness_seconds", "How late live chunks came out.", [])
        self._sessions = gauge("sessions", "Open sessions.", [])
        self._state = gauge("state", "1 for the state that the chain is in.", ["state"])
        self._last: dict[str, Span] = {}

    def observe(self, seen: Observation) -> None:
        """Count what an observation brings."""
        for record in seen.records:
            if isinstance(record, Sending):
                self._sent.labels(record.stage).inc(record.num_bytes)
            elif record.stage == SINK:
                self._came_out(record)
            elif record.stage != SOURCE:
                self._worked(record)
        for name, report in zip(seen.names, seen.reports, strict=True):
            self._holds(name, report)
        for one in seen.replacements:
            self._replaced.labels(seen.name_of(one), one.reason).inc()
        self._sessions.set(len(seen.sessions))
        for state in ChainState:
            self._state.labels(state.value).set(seen.state is state)

    def _worked(self, span: Span) -> None:
        stage = span.stage
        self._chunks.labels(stage).inc()
        self._bypassed.labels(stage).inc(span.num_bypassed)
        self._compute.labels(stage).observe((span.ended_ns - span.began_ns) / 1e9)
        self._queue.labels(stage).observe(max(0, span.began_ns - span.arrived_ns) / 1e9)
        before = self._last.get(stage)
        if before is not None:
            self._wait.labels(stage).inc(idle_ns((before, span)) / 1e9)
        if before is None or span.ended_ns > before.ended_ns:
            self._last[stage] = span

    def _came_out(self, span: Span) -> None:
        if span.due_ns:
            self._lateness.observe(max(0, span.ended_ns - span.due_ns) / 1e9)

    def _holds(self, name: str, report: StageReport | None) -> None:
        self._silent.labels(name).set(report is None)
        if report is not None:
            self._depth.labels(name).set(len(report.waiting))
            self._unsent.labels(name).set(report.num_unsent)
            self._cache.labels(name).set(sum(held for _, held in report.memory_bytes))


def exposition(registry: CollectorRegistry) -> bytes:
    """All counters of a registry as Prometheus reads them."""
    render: Callable[[CollectorRegistry], bytes] = generate_latest
    return render(registry)
