"""A tiny process that outlives a crash of its owner and clears away what that leaves behind.

Run as a script with nothing but the standard library; it reads lines from its stdin until the
owner closes it or dies: `dir PATH` is a folder to remove then, `pid NUMBER START` a process to end
(START, its start time in clock ticks, tells it from a later one of the same number). Processes of
the owner that name such a folder in their command line, as Ray's do, and all that they started are
remembered while they can be found: once their parents are dead, nobody could tell whose they were.
"""

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

_WAIT_S = 20.0
_LOOK_S = 1.0
_REMOVAL_S = 5.0

# A process by number and start time.
Process = tuple[int, int]


class Janitor:
    """The owner's side: what it is told now is cleared away when this is closed or dies."""

    def __init__(self) -> None:
        """Start the process, apart from the terminal, so that Ctrl-C does not end it first."""
        self._process = subprocess.Popen(  # noqa: S603 - this very file
            [sys.executable, "-I", str(Path(__file__).resolve()), str(os.getpid())],
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


def children_by_parent() -> dict[int, list[Process]]:
    """All processes that can be seen now, by the number of their parent."""
    children: dict[int, list[Process]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError, ValueError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                child = (int(folder.name), int(fields[19]))
                children.setdefault(int(fields[1]), []).append(child)
    return children


def descendants(pid: int, children: dict[int, list[Process]]) -> set[Process]:
    """A process's children, their children, and so on."""
    found: set[Process] = set()
    parents = [pid]
    while parents:
        for child in children.get(parents.pop(), []):
            if child not in found:
                found.add(child)
                parents.append(child[0])
    return found


def users_of(folders: list[str], owner: int) -> set[Process]:
    """The owner's descendants that name one of the folders, and all of theirs."""
    found: set[Process] = set()
    children = children_by_parent()
    for process in descendants(owner, children):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{process[0]}/cmdline").read_bytes().decode(errors="replace")
            if any(folder in words for folder in folders):
                found |= {process} | descendants(process[0], children)
    return found


def clear_away(lines: list[str], family: set[Process]) -> None:
    """End the processes, those they started meanwhile too, then remove the folders."""
    named = {(int(pid), int(started)) for pid, started in _told("pid", lines)}
    doomed = family | named
    children = children_by_parent()
    for pid, _ in list(doomed):
        doomed |= descendants(pid, children)
    for pid, started in doomed:
        end_process(pid, started)
    for (folder,) in _told("dir", lines):
        _remove(Path(folder))


def _told(kind: str, lines: list[str]) -> list[list[str]]:
    """What follows `kind` in all lines of that kind: a folder, or a process's two numbers."""
    told = [line.removeprefix(f"{kind} ") for line in lines if line.startswith(f"{kind} ")]
    return [rest.split() if kind == "pid" else [rest] for rest in told]


def _remove(folder: Path) -> None:
    """Remove a folder; a process that is about to die may put something back."""
    until_s = time.monotonic() + _REMOVAL_S
    while folder.exists() and time.monotonic() < until_s:
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.05)


def main() -> None:
    """Remember until the owner's end, then clear away."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    owner = int(sys.argv[1])
    data, family = b"", set[Process]()
    while True:
        ready, _, _ = select.select([sys.stdin], [], [], _LOOK_S)
        if not ready:
            folders = [folder for (folder,) in _told("dir", data.decode().splitlines())]
            family = {p for p in family if _is_there(p)} | users_of(folders, owner)
            continue
        more = os.read(sys.stdin.fileno(), 1 << 16)
        if not more:
            break
        data += more
    clear_away(data.decode().splitlines(), family)


def _is_there(process: Process) -> bool:
    """Whether that very process still runs."""
    with contextlib.suppress(OSError, ValueError):
        return start_ticks(process[0]) == process[1]
    return False


if __name__ == "__main__":
    main()
