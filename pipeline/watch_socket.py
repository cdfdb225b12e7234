"""Where running chains can be watched: a socket in each chain's own folder in shared memory.

The folder is its user's alone (0700), and only folders of one's own are looked at. Whoever connects
gets snapshots, one a fifth of a second, each as `u32 length | JSON`; nobody is waited for, and a
chain that nobody watches does nothing for it. The end of the stream is the end of the chain.
"""

import contextlib
import itertools
import os
import select
import socket
import stat
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from pipeline.chain_state import ChainState
from pipeline.errors import ChainDown, ChainError
from pipeline.ray_process import memory_folder
from pipeline.snapshot import MAX_SNAPSHOT_BYTES, ChainSnapshot, pack_snapshot, unpack_snapshot

PREFIX = "viva-"
SOCKET = "watch"
MAX_WATCHERS = 8
# Whoever does not take a snapshot in this time is let go.
SEND_S = 0.2
# A chain that says nothing for so long hangs.
SILENCE_S = 5.0
_LENGTH = struct.Struct("<I")


class WatchDoor:
    """The chain's side: lets watchers in and gives them snapshots; one thread at a time."""

    def __init__(self, folder: Path) -> None:
        """Listen in the chain's folder."""
        self._path = folder / SOCKET
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(self._path))
        self._path.chmod(0o600)
        self._socket.listen(MAX_WATCHERS)
        self._watchers: list[socket.socket] = []
        self._wake_rx, self._wake_tx = socket.socketpair()

    @property
    def num_watchers(self) -> int:
        """Who watches now."""
        return len(self._watchers)

    def wake(self) -> None:
        """End a `wait` in another thread."""
        with contextlib.suppress(OSError):
            self._wake_tx.send(b"!")

    def wait(self, timeout_s: float | None) -> bool:
        """Let watchers come and go for some time; True at once when somebody new has come."""
        ready, _, _ = select.select(
            [self._socket, self._wake_rx, *self._watchers], [], [], timeout_s
        )
        if self._wake_rx in ready:
            self._wake_rx.recv(64)
        for watcher in [one for one in self._watchers if one in ready]:
            self._drop(watcher)  # watchers have nothing to say: it hung up
        if self._socket not in ready:
            return False
        watcher, _ = self._socket.accept()
        watcher.settimeout(SEND_S)
        self._watchers.append(watcher)
        if len(self._watchers) > MAX_WATCHERS:
            self._drop(self._watchers[0])
        return True

    def show(self, snapshot: ChainSnapshot) -> None:
        """Give all watchers a snapshot."""
        data = pack_snapshot(snapshot)
        for watcher in list(self._watchers):
            try:
                watcher.sendall(_LENGTH.pack(len(data)) + data)
            except OSError:
                self._drop(watcher)

    def _drop(self, watcher: socket.socket) -> None:
        self._watchers.remove(watcher)
        watcher.close()

    def close(self) -> None:
        """Let everybody go."""
        for watcher in list(self._watchers):
            self._drop(watcher)
        for end in (self._socket, self._wake_rx, self._wake_tx):
            end.close()
        self._path.unlink(missing_ok=True)


class Watcher:
    """The other side: a connection to one running chain."""

    def __init__(self, folder: Path, *, silence_s: float = SILENCE_S) -> None:
        """Connect.

        Raises:
            ChainError: no chain runs there.
        """
        self.name = folder.name.removeprefix(PREFIX)
        self._silence_s = silence_s
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(silence_s)
        try:
            self._socket.connect(str(folder / SOCKET))
        except OSError as error:
            self._socket.close()
            raise ChainError(f"chain {self.name} does not run any more") from error

    def __enter__(self) -> "Watcher":
        """Watch until the block ends."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Hang up."""
        self._socket.close()

    def snapshots(self) -> Iterator[ChainSnapshot]:
        """Snapshots as they come, until the chain ends in good order.

        Raises:
            ChainDown: it ended without a word, or says nothing any more.
            ChainError: what it says is not understood.
        """
        last: ChainSnapshot | None = None
        while (data := self._next()) is not None:
            last = unpack_snapshot(data)
            yield last
        if last is None or last.state != ChainState.CLOSED.value:
            why = f": {last.failure}" if last is not None and last.failure else ""
            raise ChainDown(f"chain {self.name} died{why}")

    def _next(self) -> bytes | None:
        """The next snapshot's bytes, None at the end."""
        prefix = self._read(_LENGTH.size)
        if prefix is None:
            return None
        (length,) = _LENGTH.unpack(prefix)
        if length > MAX_SNAPSHOT_BYTES:
            raise ChainError(f"chain {self.name} tells too much at once ({length} bytes)")
        return self._read(length)

    def _read(self, num_bytes: int) -> bytes | None:
        data = b""
        while len(data) < num_bytes:
            try:
                more = self._socket.recv(num_bytes - len(data))
            except TimeoutError as error:
                raise ChainDown(
                    f"chain {self.name} has said nothing for {self._silence_s:g} s: it hangs"
                ) from error
            except OSError:
                more = b""
            if not more:
                return None
            data += more
        return data


def chain_folders(parent: Path | None = None) -> list[Path]:
    """Folders of this user's chains that say where they can be watched, running or not."""
    where = parent or memory_folder() or tempfile.gettempdir()
    folders = Path(where).glob(f"{PREFIX}*")
    return sorted(folder for folder in folders if _is_own(folder))


def _is_own(folder: Path) -> bool:
    """Whether a folder is this user's alone and holds a chain's socket."""
    try:
        about, there = folder.lstat(), (folder / SOCKET).lstat()
    except OSError:
        return False
    is_private = stat.S_ISDIR(about.st_mode) and not about.st_mode & 0o077
    return is_private and about.st_uid == os.getuid() and stat.S_ISSOCK(there.st_mode)


def running_chains(parent: Path | None = None) -> list[ChainSnapshot]:
    """One snapshot of every chain of this user that answers."""
    found: list[ChainSnapshot] = []
    for folder in chain_folders(parent):
        with contextlib.suppress(ChainError, ChainDown), Watcher(folder, silence_s=2.0) as watcher:
            found += itertools.islice(watcher.snapshots(), 1)
    return found


def find_chain(name: str | None, parent: Path | None = None) -> Path:
    """The folder of a running chain by name; without one, of the only one there is.

    Raises:
        ChainError: there is none of that name, or none or several at all; one line saying which.
    """
    running = {folder.name.removeprefix(PREFIX): folder for folder in chain_folders(parent)}
    for one, folder in list(running.items()):
        try:
            Watcher(folder).__exit__(None, None, None)
        except ChainError:
            del running[one]
    known = ", ".join(running) or "none"
    if name is not None:
        if name not in running:
            raise ChainError(f"no chain {name[:40]!r} runs here: running are {known}")
        return running[name]
    if len(running) != 1:
        which = "several chains run here" if running else "no chain runs here"
        raise ChainError(f"{which}: running are {known}, viva chain watch NAME shows one")
    return next(iter(running.values()))
