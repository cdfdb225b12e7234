"""A tiny process that outlives a crash of its owner and clears away what that leaves behind.

Run as a script with nothing but the standard library; it reads lines from its stdin until the
owner closes it or dies: `dir PATH` is a folder to remove then, `pid NUMBER START` a process to end
(START, its start time in clock ticks, tells it from a later one of the same number).
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType

_WAIT_S = 20.0


class Janitor:
    """The owner's side: what it is told now is cleared away when this is closed or dies."""

    def __init__(self) -> None:
        """Start the process, apart from the terminal, so that Ctrl-C does not end it first."""
        self._process = subprocess.Popen(  # noqa: S603 - this very file
            [sys.executable, "-I", str(Path(__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )

    def remove_later(self, folder: Path) -> None:
        """Have a folder removed at the end."""
        self._say(f"dir {folder}")

    def end_later(self, pid: int) -> None:
        """Have a process ended at the end; one that is gone by now is left out."""
        with contextlib.suppress(OSError, ValueError):
            self._say(f"pid {pid} {start_ticks(pid)}")

    def _say(self, line: str) -> None:
        if self._process.stdin is not None:
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()

    def close(self) -> None:
        """Clear away now, and wait until that is done."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
        self._process.wait(_WAIT_S)

    def __enter__(self) -> "Janitor":
        """Return this."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Clear away."""
        self.close()


def start_ticks(pid: int) -> int:
    """When a process started, in clock ticks since boot.

    Raises:
        OSError: there is no such process.
    """
    stat = Path(f"/proc/{pid}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[19])


def end_process(pid: int, started: int) -> None:
    """Kill a process if it is still the one that started then."""
    with contextlib.suppress(OSError, ValueError):
        if start_ticks(pid) == started:
            os.kill(pid, signal.SIGKILL)


def clear_away(lines: list[str]) -> None:
    """End the processes, then remove the folders."""
    for line in lines:
        kind, _, rest = line.partition(" ")
        if kind == "pid":
            pid, started = rest.split()
            end_process(int(pid), int(started))
    for line in lines:
        kind, _, rest = line.partition(" ")
        if kind == "dir":
            shutil.rmtree(rest, ignore_errors=True)


def main() -> None:
    """Wait for the owner's end."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    lines = [line.rstrip("\n") for line in sys.stdin]
    clear_away(lines)


if __name__ == "__main__":
    main()
