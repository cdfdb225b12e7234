"""When a session's pictures are due, by the stream's own time. Pure arithmetic."""

from dataclasses import dataclass


@dataclass(slots=True)
class StreamTime:
    """A session's clock: chunk n is due `chunk_ns` after the one before it.

    `base_ns` is when the stream's time began. In a live session chunk n's sound is there at
    `base_ns + (n + 1) * chunk_ns` at the earliest, and its pictures are due `latency_ns` later.
    """

    base_ns: int
    chunk_ns: int
    latency_ns: int = 0
    live: bool = False
    has_waited: bool = False

    def feed(self, chunk: int, now_ns: int, *, waits: bool) -> None:
        """A chunk's sound is there; `waits` says that the chain has no room for it yet.

        A stream whose sound comes late goes on later from then, or its chunks would all be overdue
        and push those of sessions aside that keep their time. Sound that is late because the chain
        was is no reason.
        """
        is_slow_chain = waits or self.has_waited
        self.has_waited = waits
        if self.live and not is_slow_chain:
            self.base_ns = max(self.base_ns, now_ns - (chunk + 1) * self.chunk_ns)

    def due_ns(self, chunk: int) -> int:
        """When a chunk's pictures should be there, in any session."""
        return self.base_ns + (chunk + 1) * self.chunk_ns + self.latency_ns

    def deadline_ns(self, chunk: int) -> int:
        """The same for stages: 0 for a session whose pictures nobody waits for."""
        return self.due_ns(chunk) if self.live else 0
