"""Makes snapshots of what is seen of a chain; remembers what the figures in them need. Pure."""

from collections import deque
from collections.abc import Sequence

from pipeline.collector import Observation
from pipeline.snapshot import (
    MAX_HELD,
    MAX_REPLACEMENTS,
    MAX_SESSIONS,
    ChainSnapshot,
    HeldChunk,
    Identity,
    ReplacementView,
    SessionView,
    StageView,
)
from pipeline.spans import Held, Record, StageReport
from pipeline.staged_chain import SessionProgress
from pipeline.timings import ChainTimings, timings

# A snapshot's figures are over so much time, and over so many records at most.
RECENT_S, MAX_RECENT = 15.0, 4096


class Narrator:
    """Makes snapshots of observations; remembers the latest records for the figures in them."""

    def __init__(self, chain: Identity, began_ns: int) -> None:
        """Begin with nothing seen."""
        self._chain, self._began_ns = chain, began_ns
        self._recent: deque[Record] = deque(maxlen=MAX_RECENT)
        self._replacements: deque[ReplacementView] = deque(maxlen=MAX_REPLACEMENTS)
        self._num_replacements = 0

    def snapshot(self, seen: Observation) -> ChainSnapshot:
        """The chain as it is now."""
        self._recent.extend(seen.records)
        for one in seen.replacements:
            stage = seen.name_of(one)
            self._replacements.append(
                ReplacementView(stage=stage, reason=one.reason, healed_s=one.healed_s)
            )
            self._num_replacements += 1
        since_ns = seen.at_ns - int(RECENT_S * 1e9)
        recent = [record for record in self._recent if record.ended_ns >= since_ns]
        return snapshot_of(
            seen,
            self._chain,
            age_s=(seen.at_ns - self._began_ns) / 1e9,
            timings=timings(seen.names, recent),
            replacements=tuple(self._replacements),
            num_replacements=self._num_replacements,
        )


def snapshot_of(
    seen: Observation,
    chain: Identity,
    *,
    age_s: float,
    timings: ChainTimings,
    replacements: Sequence[ReplacementView],
    num_replacements: int,
) -> ChainSnapshot:
    """What an observation comes to, with what was seen before it."""
    return ChainSnapshot(
        chain=chain,
        age_s=age_s,
        state=seen.state.value,
        failure=seen.failure,
        num_sessions=len(seen.sessions),
        sessions=tuple(_session(s, seen.at_ns) for s in seen.sessions[:MAX_SESSIONS]),
        stages=tuple(
            _stage(name, report) for name, report in zip(seen.names, seen.reports, strict=True)
        ),
        num_replacements=num_replacements,
        replacements=tuple(replacements[-MAX_REPLACEMENTS:]),
        timings=timings,
    )


def _session(progress: SessionProgress, at_ns: int) -> SessionView:
    return SessionView(
        session=progress.session,
        submitted=progress.submitted + 1,
        completed=progress.completed + 1,
        due_in_ms=(progress.next_due_ns - at_ns) / 1e6 if progress.next_due_ns else None,
    )


def _stage(name: str, report: StageReport | None) -> StageView:
    if report is None:
        return StageView(name=name, is_silent=True)
    return StageView(
        name=name,
        is_silent=False,
        working=_held(report.working, report.now_ns),
        waiting=_held(report.waiting, report.now_ns),
        num_waiting=len(report.waiting),
        num_unsent=report.num_unsent,
        memory_bytes=sum(num_bytes for _, num_bytes in report.memory_bytes),
    )


def _held(held: Sequence[Held], now_ns: int) -> tuple[HeldChunk, ...]:
    return tuple(
        HeldChunk(session=one.session, chunk=one.chunk, for_ms=(now_ns - one.since_ns) / 1e6)
        for one in held[:MAX_HELD]
    )
