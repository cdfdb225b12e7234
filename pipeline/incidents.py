"""The record of a chain's faults and of the sessions they delay, until somebody asks for it."""

import threading
from collections import deque

from pipeline.chain_events import ChainEvent, NodeLost, Replacement
from pipeline.gaps import Gaps

# Events that nobody asks for are forgotten, the oldest first.
MAX_EVENTS = 1000


class Incidents:
    """The latest events of one chain; any thread may tell and ask."""

    def __init__(self) -> None:
        """Begin with none."""
        self._gaps = Gaps()
        self._events: deque[ChainEvent] = deque(maxlen=MAX_EVENTS)
        self._lock = threading.Lock()

    def open(self, session: str, tolerance_ns: int) -> None:
        """Watch a session, for which delays up to `tolerance_ns` are no gap."""
        with self._lock:
            self._gaps.open(session, tolerance_ns)

    def close(self, session: str) -> None:
        """Forget a session."""
        with self._lock:
            self._gaps.close(session)

    def submitted(self, session: str, chunk: int, due_ns: int) -> None:
        """A chunk goes in."""
        with self._lock:
            self._gaps.submitted(session, chunk, due_ns)

    def came_out(self, session: str, chunk: int, now_ns: int) -> None:
        """A chunk comes out."""
        with self._lock:
            self._events.extend(self._gaps.came_out(session, chunk, now_ns))

    def note(self, event: ChainEvent) -> None:
        """A node was lost, or its place is filled and everything is joined again."""
        with self._lock:
            self._events.append(event)
            if isinstance(event, NodeLost):
                self._gaps.lost(f"stage {event.name} {event.reason}")
            elif isinstance(event, Replacement):
                self._events.extend(self._gaps.healed())

    def look(self, now_ns: int) -> None:
        """See which sessions are overdue by now."""
        with self._lock:
            self._events.extend(self._gaps.overdue(now_ns))

    def taken(self) -> list[ChainEvent]:
        """All events since they were taken last, oldest first."""
        with self._lock:
            events = list(self._events)
            self._events.clear()
            return events
