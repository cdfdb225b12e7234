"""Links between stages of one process: tensors are handed over, not copied."""

import queue
import threading
import time
from typing import ClassVar

from pipeline.channel import LinkDown, LinkIdle
from pipeline.message import Message

# Messages between two threads before the sender waits, as a socket's buffer would make it.
MAX_WAITING = 4
_POLL_S = 0.02


class QueueLink:
    """One side of a pair of queues; the sides share the fact that they are open."""

    def __init__(
        self,
        outgoing: "queue.Queue[Message]",
        incoming: "queue.Queue[Message]",
        closed: threading.Event,
        *,
        timeout_s: float,
    ) -> None:
        """Send into one queue, receive from the other; `closed` is set by either side."""
        self._outgoing, self._incoming = outgoing, incoming
        self._closed = closed
        self._timeout_s = timeout_s

    @classmethod
    def pair(cls, *, timeout_s: float) -> tuple["QueueLink", "QueueLink"]:
        """Both sides of a new link."""
        there: queue.Queue[Message] = queue.Queue(MAX_WAITING)
        back: queue.Queue[Message] = queue.Queue(MAX_WAITING)
        closed = threading.Event()
        one = cls(there, back, closed, timeout_s=timeout_s)
        return one, cls(back, there, closed, timeout_s=timeout_s)

    def send(self, message: Message) -> None:
        """Hand a message over; the sender must not write to its tensors afterwards."""
        until_s = time.monotonic() + self._timeout_s
        while not self._closed.is_set():
            try:
                return self._outgoing.put(message, timeout=_POLL_S)
            except queue.Full:
                if time.monotonic() > until_s:
                    self.close()
        raise LinkDown("the other side closed the link or takes nothing")

    def recv(self, timeout_s: float) -> Message:
        """The next message; what was sent before the link went down still arrives."""
        until_s = time.monotonic() + timeout_s
        while True:
            closed = self._closed.is_set()
            try:
                wait_s = 0.0 if closed else min(_POLL_S, max(0.0, until_s - time.monotonic()))
                return self._incoming.get(block=wait_s > 0, timeout=wait_s or None)
            except queue.Empty:
                if closed:
                    raise LinkDown("the other side closed the link") from None
                if time.monotonic() >= until_s:
                    raise LinkIdle("no message yet") from None

    def close(self) -> None:
        """Give up the link."""
        self._closed.set()


class QueueListener:
    """Listens at a name that only this process knows."""

    _open: ClassVar[dict[str, "QueueListener"]] = {}
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, address: str, *, timeout_s: float) -> None:
        """Take the name.

        Raises:
            ValueError: it is taken.
        """
        self._address = address
        self._timeout_s = timeout_s
        self._arrived: queue.Queue[QueueLink | None] = queue.Queue()
        with self._lock:
            if address in self._open:
                raise ValueError(f"address {address} is taken: choose another")
            self._open[address] = self

    @property
    def address(self) -> str:
        """What the other side connects to."""
        return self._address

    def meet(self, *, timeout_s: float) -> QueueLink:
        """Make a link and let `accept` have its other side."""
        near, far = QueueLink.pair(timeout_s=timeout_s)
        with self._lock:
            if self._open.get(self._address) is not self:
                raise LinkDown(f"nobody listens at {self._address}")
            self._arrived.put(far)
        return near

    def accept(self, timeout_s: float) -> QueueLink:
        """The next link."""
        try:
            link = self._arrived.get(timeout=timeout_s)
        except queue.Empty:
            raise LinkIdle("nobody connected yet") from None
        if link is None:
            self._arrived.put(None)
            raise LinkDown("the listener is closed")
        return link

    def close(self) -> None:
        """Free the name and turn away whoever was not let in yet."""
        with self._lock:
            if self._open.get(self._address) is not self:
                return
            del self._open[self._address]
            while not self._arrived.empty():
                waiting = self._arrived.get()
                if waiting is not None:
                    waiting.close()
            self._arrived.put(None)

    @classmethod
    def at(cls, address: str) -> "QueueListener":
        """Who listens at an address.

        Raises:
            LinkDown: nobody.
        """
        with cls._lock:
            if address not in cls._open:
                raise LinkDown(f"nobody listens at {address}")
            return cls._open[address]


def connect_queue(address: str, *, timeout_s: float) -> QueueLink:
    """A link to a listener of this process."""
    return QueueListener.at(address).meet(timeout_s=timeout_s)
