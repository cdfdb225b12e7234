"""A running chain at one moment, as those who watch it get it: bounded, plain, checked. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from pipeline.collector import Observation
from pipeline.errors import ChainError
from pipeline.spans import Held, StageReport
from pipeline.staged_chain import SessionProgress
from pipeline.timings import ChainTimings

MAX_SNAPSHOT_BYTES = 1 << 20
# Of what there may be many, so many are told by name; numbers tell of all.
MAX_SESSIONS, MAX_HELD, MAX_REPLACEMENTS = 64, 16, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldChunk:
    """A chunk that a stage holds, and for how long by now."""

    session: str
    chunk: int
    for_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StageView:
    """One stage: what it works on, what waits before it, and how much state it holds.

    `num_unsent` chunks are made and not sent yet; a silent stage gave no answer lately, and what
    is said of it is nothing.
    """

    name: str
    is_silent: bool
    working: tuple[HeldChunk, ...] = ()
    waiting: tuple[HeldChunk, ...] = ()
    num_waiting: int = 0
    num_unsent: int = 0
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionView:
    """One session: chunks that went in and came out, and in how many ms the next is due.

    Nothing is ever due (None) in a session whose pictures nobody waits for.
    """

    session: str
    submitted: int
    completed: int
    due_in_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplacementView:
    """A stage that was replaced."""

    stage: str
    reason: str
    healed_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Which chain it is: `name` as `viva chain list` has it, `label` what it runs."""

    name: str
    label: str
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainSnapshot:
    """A chain at one moment; `timings` are over its last chunks."""

    chain: Identity
    age_s: float
    state: str
    failure: str
    num_sessions: int
    sessions: tuple[SessionView, ...]
    stages: tuple[StageView, ...]
    num_replacements: int
    replacements: tuple[ReplacementView, ...]
    timings: ChainTimings


_ADAPTER = TypeAdapter(ChainSnapshot)


def pack_snapshot(snapshot: ChainSnapshot) -> bytes:
    """The snapshot as one line of JSON."""
    return _ADAPTER.dump_json(snapshot)


def unpack_snapshot(data: bytes) -> ChainSnapshot:
    """The snapshot in bytes of another process.

    Raises:
        ChainError: they are none, or of another version of the program.
    """
    try:
        return _ADAPTER.validate_json(data)
    except ValidationError as error:
        where = ".".join(map(str, error.errors(include_url=False)[0]["loc"])) or "all"
        raise ChainError(
            f"the chain tells what this program does not understand ({where}): watch it with the "
            "version that runs it"
        ) from error


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
