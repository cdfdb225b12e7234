"""The border between stages: a link carries messages, in order, until it is down.

Addresses are `queue:NAME` (in this process), `unix:PATH` and `tcp:HOST:PORT`; with `gloo+` or
`nccl+` before one of the latter, torch.distributed carries what is large. Whoever receives
listens; whoever sends connects, and again after a fault, because stages come and go.
"""

from typing import Protocol, runtime_checkable

from pipeline.message import Message


class LinkDown(ConnectionError):
    """The link is of no use any more: its peer is gone, mute or mad; one line saying which."""


class LinkIdle(TimeoutError):
    """Nothing came in time; the link is still good."""


class Link(Protocol):
    """A connection between two stages: first in, first out; nothing is lost while it is up.

    One thread may send while another receives; `close` may come from any thread and ends both.
    """

    def send(self, message: Message) -> None:
        """Hand a message over.

        Raises:
            LinkDown: it could not be handed over in time.
            MessageError: it is no message that the other side would read.
        """
        ...

    def recv(self, timeout_s: float) -> Message:
        """The next message.

        Raises:
            LinkIdle: none began within `timeout_s`.
            LinkDown: there will be none, or one that began did not end in time.
        """
        ...

    def close(self) -> None:
        """Give up the link: both sides see it go down. Closing twice is no error."""
        ...


@runtime_checkable
class PromptLink(Link, Protocol):
    """A link that can also take a message without making whoever has it wait."""

    def send_now(self, message: Message) -> bool:
        """Hand over as much as goes at once; False if `finish` or `send` must see to the rest.

        Raises:
            LinkDown: nothing can be handed over any more.
            MessageError: it is no message that the other side would read.
        """
        ...

    def finish(self) -> None:
        """Hand over what `send_now` left.

        Raises:
            LinkDown: it could not be handed over in time.
        """
        ...


class Listener(Protocol):
    """Where links to a stage begin."""

    @property
    def address(self) -> str:
        """What the other side connects to."""
        ...

    def accept(self, timeout_s: float) -> Link:
        """The next link.

        Raises:
            LinkIdle: nobody connected in time.
            LinkDown: the listener is closed.
        """
        ...

    def close(self) -> None:
        """Accept no more; nobody may wait in `accept` meanwhile."""
        ...


def connect(address: str, *, timeout_s: float) -> Link:
    """A link to whoever listens at `address`; `timeout_s` bounds every later wait on it, too.

    Raises:
        LinkDown: nobody listens there.
    """
    if address.startswith("queue:"):
        from pipeline.queue_link import connect_queue

        return connect_queue(address, timeout_s=timeout_s)
    if "+" in address.partition(":")[0]:
        from pipeline.group_link import connect_group

        return connect_group(address, timeout_s=timeout_s)
    from pipeline.socket_link import connect_socket

    return connect_socket(address, timeout_s=timeout_s)


def listen(address: str, *, timeout_s: float) -> Listener:
    """Listen at `address`; a TCP port of 0 stands for any that is free.

    Raises:
        ValueError: the address is of no known kind, or taken.
    """
    if address.startswith("queue:"):
        from pipeline.queue_link import QueueListener

        return QueueListener(address, timeout_s=timeout_s)
    if "+" in address.partition(":")[0]:
        from pipeline.group_link import GroupListener

        return GroupListener(address, timeout_s=timeout_s)
    from pipeline.socket_link import SocketListener

    return SocketListener(address, timeout_s=timeout_s)
