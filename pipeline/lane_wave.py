"""Takes chunks of one stage through its steps as lanes: at most one chunk at each (session, step).

A wave is: in every tick one chunk of each session begins, and all that have begun go one step
further in one pass. C chunks of one session through M steps take C + M - 1 passes, those of
different sessions M. Nothing is under way before or after a wave, so a stage's state between two
waves is that after the last chunk of each session, as without lanes.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from pipeline.step_cost import BatchProfile

if TYPE_CHECKING:
    from pipeline.stage import ChunkWork

# What a chunk may do to a stage; anything else is a fault of the program and ends it.
FAULTS = (ValueError, KeyError, RuntimeError)


class LaneStage(Protocol):
    """A stage that takes chunks at different steps one step further together."""

    def is_through(self, work: "ChunkWork") -> bool:
        """Whether a chunk has all of the stage's steps behind it."""
        ...

    def advance(self, works: Sequence["ChunkWork"]) -> list["ChunkWork"]:
        """Each chunk one step further; may be repeated after it failed."""
        ...


@runtime_checkable
class BatchStage(Protocol):
    """A stage that can take chunks of several sessions through the network together.

    `batch` says what that takes, and how many chunks at most.
    """

    batch: BatchProfile

    def process_many(self, works: Sequence["ChunkWork"]) -> list["ChunkWork | Exception"]:
        """What `process` makes of each, or what went wrong with it."""
        ...


def run_wave(
    stage: LaneStage, works: Sequence["ChunkWork"], max_batch: int
) -> list["ChunkWork | Exception"]:
    """What the stage makes of each chunk, or what went wrong with it.

    Chunks of one session must be in order. After one that fails, those of its session that follow
    fail as well; other sessions go on.
    """
    made: dict[int, ChunkWork | Exception] = {}
    waiting, under_way = list(range(len(works))), list[int]()
    now = list(works)
    while waiting or under_way:
        begun = _next_begun(works, waiting, max_batch - len(under_way))
        waiting = [row for row in waiting if row not in begun]
        under_way += begun
        going = _going(now, under_way)
        for row, result in zip(going, _tick(stage, [now[r] for r in going]), strict=True):
            if row in made:
                continue
            if isinstance(result, Exception):
                made |= _failed(works, row, result)
            elif stage.is_through(result):
                made[row] = result
            else:
                now[row] = result
        waiting, under_way = ([r for r in rows if r not in made] for rows in (waiting, under_way))
    return [made[row] for row in range(len(works))]


def _next_begun(works: Sequence["ChunkWork"], waiting: list[int], room: int) -> list[int]:
    """The next chunks to begin: the first of each session, as far as there is room."""
    first: dict[str, int] = {}
    for row in waiting:
        first.setdefault(works[row].session, row)
    return list(first.values())[: max(room, 0)]


def _going(now: Sequence["ChunkWork"], under_way: list[int]) -> list[int]:
    """Those that have the chunks before them at later steps than their own.

    A chunk that leaves steps out waits until nobody is left to be overtaken there.
    """
    ahead: dict[str, int] = {}
    going = []
    for row in under_way:
        session, step = now[row].session, now[row].latent.step
        if session not in ahead or step < ahead[session]:
            going.append(row)
        ahead[session] = min(step, ahead.get(session, step))
    return going


def _tick(stage: LaneStage, works: Sequence["ChunkWork"]) -> list["ChunkWork | Exception"]:
    """All chunks one step further; if that fails, each alone, to find out whose fault it is."""
    try:
        return list(stage.advance(works))
    except FAULTS as error:
        if len(works) == 1:
            return [error]
    return [result for work in works for result in _tick(stage, [work])]


def _failed(works: Sequence["ChunkWork"], row: int, error: Exception) -> dict[int, Exception]:
    """The chunk that failed and those of its session after it."""
    session = works[row].session
    return {r: error for r in range(row, len(works)) if works[r].session == session}
