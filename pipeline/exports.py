"""The driver's own copies of the nodes' checkpoints: what is left when a whole machine goes.

Nodes keep their checkpoints in memory and are asked for new ones a few times a second, apart from
the way of the chunks. Copies of different stages need not be of the same chunk: each holds the
stage's log too, and every log reaches back further than copies ever are behind.
"""

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence

from pipeline.checkpoint import Kept
from pipeline.errors import NodeDown
from pipeline.host import NodeHandle

# States for another cut, by epoch and position.
Moved = Mapping[tuple[int, int], Kept]

# How often nodes are asked.
POLL_S = 0.2
# A node that is busy with something else for so long is asked again later.
ANSWER_S = 5.0


class Exports:
    """Checkpoints by session (epoch) and position; any thread may ask."""

    def __init__(self, num_positions: int) -> None:
        """Begin with none."""
        self._num_positions = num_positions
        self._kept: dict[int, dict[int, Kept]] = {}
        self._lock = threading.Lock()

    def open(self, epoch: int) -> None:
        """Begin to keep a session."""
        with self._lock:
            self._kept[epoch] = {}

    def replace(self, num_positions: int, moved: Moved) -> None:
        """Begin anew with another number of positions, and with these by epoch and position."""
        with self._lock:
            self._num_positions = num_positions
            for epoch in self._kept:
                self._kept[epoch] = {at: kept for (of, at), kept in moved.items() if of == epoch}

    def close(self, epoch: int) -> None:
        """Forget a session."""
        with self._lock:
            self._kept.pop(epoch, None)

    def put(self, epoch: int, position: int, kept: Kept) -> None:
        """Keep a checkpoint unless a newer one is there or the session is closed."""
        with self._lock:
            of_session = self._kept.get(epoch)
            if of_session is None:
                return
            before = of_session.get(position)
            if before is None or before.chunk < kept.chunk:
                of_session[position] = kept

    def get(self, epoch: int, position: int) -> Kept | None:
        """The newest copy for a position."""
        with self._lock:
            return self._kept.get(epoch, {}).get(position)

    def reach(self, epoch: int) -> int:
        """The last chunk that no position would have to ask for again; -1 for none."""
        with self._lock:
            of_session = self._kept.get(epoch, {})
            if len(of_session) < self._num_positions:
                return -1
            return min(kept.chunk for kept in of_session.values())

    def have(self, position: int) -> dict[int, int]:
        """The chunks of a position's copies, by epoch; -2 where there is none yet."""
        with self._lock:
            found = {epoch: kept.get(position) for epoch, kept in self._kept.items()}
        return {epoch: -2 if kept is None else kept.chunk for epoch, kept in found.items()}


class Exporter:
    """Fetches new checkpoints from all nodes, in a thread of its own."""

    def __init__(
        self, exports: Exports, handles: Callable[[], Sequence[NodeHandle | None]]
    ) -> None:
        """Ask whoever `handles` names at the time."""
        self._exports, self._handles = exports, handles
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="chain-export", daemon=True)

    def start(self) -> None:
        """Begin to fetch."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; it may wait for one answer still."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(2 * ANSWER_S)

    def collect(self) -> None:
        """Fetch what is new from every node that answers."""
        replies = []
        for position, handle in enumerate(self._handles()):
            have = self._exports.have(position)
            if handle is not None and have:
                replies.append((position, handle.call("kept", have)))
        for position, reply in replies:
            # A node that is gone is seen and replaced by the controller.
            with contextlib.suppress(NodeDown):
                for epoch, kept in reply.result(ANSWER_S).items():
                    self._exports.put(epoch, position, kept)

    def _run(self) -> None:
        while not self._stopping.wait(POLL_S):
            self.collect()
