"""Looks at a running chain for all who want to know: watchers, a recording, counters.

One thread looks, five times a second while somebody watches, once a second for a recording or
counters alone, and not at all when nobody wants to know.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.chain_state import ChainState
from pipeline.collector import Collector, Observation
from pipeline.narrator import Narrator
from pipeline.snapshot import Identity
from pipeline.staged_chain import StagedChain
from pipeline.watch_socket import PREFIX, WatchDoor

WATCHED_S = 0.2
RECORDED_S = 1.0

_log = logging.getLogger(__name__)

# Called with every observation, in the thread that looks; must be quick.
Listener = Callable[[Observation], None]


class ChainWatch:
    """The thread that looks at one chain."""

    def __init__(
        self,
        chain: StagedChain,
        folder: Path,
        identity: Identity,
        *,
        listeners: Sequence[Listener] = (),
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Let watchers in at `folder`; `listeners` get every observation, the last one at `close`.

        Close it before the chain.
        """
        self._collector = Collector(chain)
        self._narrator = Narrator(identity, clock_ns())
        self._listeners, self._clock_ns = tuple(listeners), clock_ns
        self._door = WatchDoor(folder)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="chain-look", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Look a last time, say good-bye to watchers, and end."""
        self._stopping = True
        self._door.wake()
        self._thread.join()
        if self._listeners or self._door.num_watchers:
            self._look(is_last=True)
        self._door.close()

    def _run(self) -> None:
        due_ns = self._clock_ns()
        while not self._stopping:
            now_ns = self._clock_ns()
            period_s = self._period_s()
            if period_s is not None and now_ns >= due_ns:
                self._look()
                due_ns = now_ns + int(period_s * 1e9)
            wait_s = None if period_s is None else max(0.0, (due_ns - self._clock_ns()) / 1e9)
            if self._door.wait(wait_s):
                due_ns = 0

    def _period_s(self) -> float | None:
        if self._door.num_watchers:
            return WATCHED_S
        return RECORDED_S if self._listeners else None

    def _look(self, *, is_last: bool = False) -> None:
        """Tell everybody; whatever goes wrong with that, the chain goes on."""
        try:
            seen = self._collector.look()
            for listener in self._listeners:
                listener(seen)
            snapshot = self._narrator.snapshot(seen)
        except Exception as error:  # noqa: BLE001 - to watch must not stop what is watched
            _log.warning("the chain cannot be watched: %s", error)
            return
        if is_last and snapshot.state != ChainState.FAILED.value:
            snapshot = replace(snapshot, state=ChainState.CLOSED.value)
        self._door.show(snapshot)


@contextlib.contextmanager
def watchable(
    chain: StagedChain, *, label: str, pid: int, listeners: Sequence[Listener] = ()
) -> Iterator[ChainWatch]:
    """Have a chain watched under its folder's name as long as the block lasts."""
    name = chain.folder.name.removeprefix(PREFIX)
    identity = Identity(name=name, label=label, pid=pid)
    watch = ChainWatch(chain, chain.folder, identity, listeners=listeners)
    try:
        yield watch
    finally:
        watch.close()
