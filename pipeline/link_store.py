"""How two ranks find each other: the store that torch.distributed wants, over a link's own socket.

Neither a server nor a client: what one rank sets is told to the other, who waits for it. So there
is nothing that a stage which dies could take from others, nothing to share between threads, no
port that strangers could reach, and no name that could be met a second time.
"""

from collections.abc import Callable
from datetime import timedelta

from torch.distributed.distributed_c10d import Store


class LinkStore(Store):
    """Entries of two ranks; torch calls it from threads of its own."""

    def __init__(
        self, *, publish: Callable[[str, bytes], None], await_entry: Callable[[str], bytes]
    ) -> None:
        """`publish` tells the other rank, `await_entry` waits for what that one tells.

        How long is for the link to say: it sees when the other side goes.
        """
        super().__init__()
        self._publish, self._await_entry = publish, await_entry
        self._mine: dict[str, bytes] = {}

    def set(self, key: str, value: str | bytes) -> None:
        """Keep an entry and tell it."""
        data = value.encode() if isinstance(value, str) else bytes(value)
        self._mine[key] = data
        self._publish(key, data)

    def get(self, key: str) -> bytes:
        """An entry, as soon as either rank has set it."""
        mine = self._mine.get(key)
        return self._await_entry(key) if mine is None else mine

    def wait(self, keys: list[str], timeout: timedelta | None = None) -> None:  # noqa: ARG002 - torch's
        """Wait until all of them are set."""
        for key in keys:
            self.get(key)

    def check(self, keys: list[str]) -> bool:
        """Whether this rank set all of them; it does not look at the socket."""
        return all(key in self._mine for key in keys)
