"""Tells a session that a fault delays from one that is merely slow: pure arithmetic on times.

A chunk's lateness is how long after its due time it came out. What counts is by how much that
grows because of a fault: a live session whose chunks always take 300 ms more has no gap, and a
render that is ahead of its time has none either as long as the fault is shorter than its lead.
"""

from collections import deque
from dataclasses import dataclass, field

from pipeline.chain_events import Gap


@dataclass(slots=True)
class _Rhythm:
    """One session: chunks under way with their due times, and what a fault does to them.

    `usual_ns` is the lateness of the last chunk before the fault; `until` the last chunk that the
    fault can have delayed, known once the chain is whole again.
    """

    tolerance_ns: int
    under_way: deque[tuple[int, int]] = field(default_factory=deque)
    last_chunk: int = -1
    usual_ns: int = 0
    cause: str = ""
    until: int | None = None
    first_late: int | None = None
    last_late: int = -1
    worst_ns: int = 0


class Gaps:
    """Finds gaps; whoever owns it holds a lock and hands in the time."""

    def __init__(self) -> None:
        """Begin with no session."""
        self._sessions: dict[str, _Rhythm] = {}
        self._cause = ""

    def open(self, session: str, tolerance_ns: int) -> None:
        """Begin to watch a session, for which delays up to `tolerance_ns` are no gap."""
        self._sessions[session] = _Rhythm(tolerance_ns=tolerance_ns, cause=self._cause)

    def close(self, session: str) -> None:
        """Forget a session."""
        self._sessions.pop(session, None)

    def lost(self, cause: str) -> None:
        """A fault: whatever is late from now on is late because of it, or of the one before."""
        self._cause = self._cause or cause
        for rhythm in self._sessions.values():
            rhythm.cause, rhythm.until = rhythm.cause or cause, None

    def healed(self) -> list[Gap]:
        """The chain is whole: what is under way still suffers, what comes later does not."""
        self._cause = ""
        ended = []
        for session, rhythm in self._sessions.items():
            rhythm.until = rhythm.last_chunk
            if rhythm.cause and not rhythm.under_way:
                ended += self._end(session, rhythm)
        return ended

    def submitted(self, session: str, chunk: int, due_ns: int) -> None:
        """A chunk goes in."""
        rhythm = self._sessions[session]
        rhythm.under_way.append((chunk, due_ns))
        rhythm.last_chunk = chunk

    def came_out(self, session: str, chunk: int, now_ns: int) -> list[Gap]:
        """A chunk comes out: the gaps that begin or end by it."""
        rhythm = self._sessions.get(session)
        if rhythm is None:
            return []
        late_ns = 0
        while rhythm.under_way and rhythm.under_way[0][0] <= chunk:
            late_ns = max(0, now_ns - rhythm.under_way.popleft()[1])
        if not rhythm.cause:
            rhythm.usual_ns = late_ns
            return []
        told = self._note_late(session, rhythm, chunk, late_ns)
        if rhythm.until is not None and chunk >= rhythm.until:
            told += self._end(session, rhythm)
            rhythm.usual_ns = late_ns
        return told

    def overdue(self, now_ns: int) -> list[Gap]:
        """Gaps that have begun by now, though nothing has come out."""
        told = []
        for session, rhythm in self._sessions.items():
            if rhythm.cause and rhythm.under_way and rhythm.first_late is None:
                chunk, due_ns = rhythm.under_way[0]
                told += self._note_late(session, rhythm, chunk, max(0, now_ns - due_ns))
        return told

    def _note_late(self, session: str, rhythm: _Rhythm, chunk: int, late_ns: int) -> list[Gap]:
        """Account for a late chunk; word of it if it is the first one."""
        more_ns = late_ns - rhythm.usual_ns
        if more_ns <= rhythm.tolerance_ns:
            return []
        rhythm.worst_ns, rhythm.last_late = max(rhythm.worst_ns, more_ns), chunk
        if rhythm.first_late is not None:
            return []
        rhythm.first_late = chunk
        return [_gap(session, rhythm, last_chunk=rhythm.last_chunk, is_over=False)]

    def _end(self, session: str, rhythm: _Rhythm) -> list[Gap]:
        """Forget the fault; word of the gap if there was one."""
        over = []
        if rhythm.first_late is not None:
            over = [_gap(session, rhythm, last_chunk=rhythm.last_late, is_over=True)]
        rhythm.cause, rhythm.until, rhythm.first_late, rhythm.worst_ns = "", None, None, 0
        return over


def _gap(session: str, rhythm: _Rhythm, *, last_chunk: int, is_over: bool) -> Gap:
    return Gap(
        session=session,
        first_chunk=rhythm.last_late if rhythm.first_late is None else rhythm.first_late,
        last_chunk=last_chunk,
        cause=rhythm.cause,
        late_s=rhythm.worst_ns / 1e9,
        is_over=is_over,
    )
