"""A running chain at one moment, as those who watch it get it: bounded, plain, checked. Pure.

Who watches needs no torch, which takes seconds to import.
"""

from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from pipeline.errors import ChainError
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
