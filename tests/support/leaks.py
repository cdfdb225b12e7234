"""What a test left running: the guard behind the autouse fixture of conftest.py."""

import threading
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class Running:
    """Threads that would keep the interpreter alive, and child processes, at one moment."""

    threads: frozenset[int]
    processes: frozenset[int]

    @classmethod
    def now(cls) -> "Running":
        """Look at this process."""
        threads = {t.ident for t in threading.enumerate() if not t.daemon and t.ident is not None}
        children = psutil.Process().children(recursive=True)
        alive = {c.pid for c in children if c.is_running() and c.status() != psutil.STATUS_ZOMBIE}
        return cls(frozenset(threads), frozenset(alive))

    def leaked_since(self, before: "Running") -> list[str]:
        """Name what runs now and did not run before."""
        threads = [f"thread {ident}" for ident in sorted(self.threads - before.threads)]
        processes = [f"process {pid}" for pid in sorted(self.processes - before.processes)]
        return threads + processes
