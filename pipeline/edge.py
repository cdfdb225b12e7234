"""Both ends of the way from one stage to the next, each with a thread of its own.

The receiver tells at every new link how far it got, and the sender goes on from there: that one
rule carries first connections, broken links and replaced stages alike.
"""

import contextlib
import hmac
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pipeline.channel import Link, LinkDown, LinkIdle, Listener, PromptLink, connect
from pipeline.message import Fact, Message, MessageError
from pipeline.outlog import OutLog
from pipeline.spans import OnSent

# How often a waiting thread looks whether it shall stop.
_POLL_S = 0.1
_RETRY_S = 0.02
# More than that is left to the sender's thread, so that whoever made it can go on meanwhile.
_PROMPT_BYTES = 1 << 21
# A thread that shall end can be in so many waits for its peer, one after the other, at most.
_END_WAITS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeSettings:
    """What both ends of an edge must agree on.

    `token` proves that the other side belongs to the chain; `timeout_s` bounds every wait for a
    peer that has begun to speak; `log_chunks` is how far back a sender can go.
    """

    token: str
    timeout_s: float = 10.0
    log_chunks: int = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where an edge leads; `generation` grows each time it is made anew."""

    address: str
    generation: int


class Sender:
    """Logs messages and sends them to wherever the edge leads at the moment.

    What finds the link idle is written by whoever made it, as far as that needs no waiting, which
    spares waking a thread. The thread connects, waits, and sends all else.
    """

    def __init__(self, name: str, settings: EdgeSettings, *, on_sent: OnSent | None = None) -> None:
        """Send nothing until `lead_to` has named a receiver; `on_sent` is told of each message."""
        self._name, self._settings, self._on_sent = name, settings, on_sent
        self._log = OutLog(settings.log_chunks)
        self._changed = threading.Condition()
        self._target: Target | None = None
        self._link: Link | None = None
        # The link while the thread has nothing to send by it.
        self._idle: PromptLink | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=f"{name}-tx", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def open(self, epoch: int, messages: Iterable[Message] = ()) -> None:
        """Begin a session's log."""
        with self._changed:
            self._log.open(epoch, messages)
            self._changed.notify_all()

    def close(self, epoch: int) -> None:
        """Forget a session."""
        with self._changed:
            self._log.close(epoch)

    def append(self, message: Message) -> None:
        """Log a message and send it as soon as the link allows."""
        with self._changed:
            self._log.append(message)
            if not self._sent_now():
                self._changed.notify_all()

    def _sent_now(self) -> bool:
        """Whether the only message to be sent could be sent at once."""
        message = self._log.peek()
        if self._idle is None or message is None or len(self._log) > 1 or not _is_prompt(message):
            return False
        began_ns = time.monotonic_ns()
        try:
            is_done = self._idle.send_now(message)
        except (LinkDown, MessageError):
            return False  # the thread finds the same, and deals with it
        self._log.take()
        if self._on_sent is not None:
            self._on_sent(message, began_ns, time.monotonic_ns())
        if not is_done:
            self._idle = None
        return is_done

    def logged(self, epoch: int) -> list[Message]:
        """What is kept of a session, oldest first."""
        with self._changed:
            return self._log.logged(epoch)

    def num_pending(self) -> int:
        """Messages not sent yet."""
        with self._changed:
            return len(self._log)

    def lead_to(self, target: Target) -> None:
        """Send to another receiver from now on; an older generation is ignored."""
        with self._changed:
            if self._target is None or target.generation > self._target.generation:
                self._target = target
                if self._link is not None:
                    self._link.close()
                self._changed.notify_all()

    def stop(self) -> None:
        """End the thread and the link."""
        with self._changed:
            self._stopping = True
            if self._link is not None:
                self._link.close()
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(_END_WAITS * self._settings.timeout_s)

    def _run(self) -> None:
        while (target := self._await_target()) is not None:
            try:
                self._send_to(target)
            except (LinkDown, LinkIdle, MessageError):
                with self._changed:
                    self._changed.wait(_RETRY_S)

    def _await_target(self) -> Target | None:
        with self._changed:
            while self._target is None and not self._stopping:
                self._changed.wait(_POLL_S)
            return None if self._stopping else self._target

    def _send_to(self, target: Target) -> None:
        """Connect, agree on where to go on, and send until the link is down or leads elsewhere."""
        link = connect(target.address, timeout_s=self._settings.timeout_s)
        try:
            with self._changed:
                if self._target != target or self._stopping:
                    return
                self._link = link  # from here on, whoever changes the target ends the wait
            welcome = self._greet(link, target)
            positions = welcome.facts.get("positions")
            with self._changed:
                self._log.rewind(positions if isinstance(positions, dict) else {})
            while (message := self._next_for(target, link)) is not None:
                began_ns = time.monotonic_ns()
                link.send(message)
                if self._on_sent is not None:
                    self._on_sent(message, began_ns, time.monotonic_ns())
        finally:
            link.close()
            with self._changed:
                self._link = None

    def _greet(self, link: Link, target: Target) -> Message:
        """Say who is there; hear how far the receiver got."""
        facts: dict[str, Fact] = {
            "token": self._settings.token,
            "generation": target.generation,
            "from": self._name,
        }
        link.send(Message(kind="hello", facts=facts))
        welcome = link.recv(self._settings.timeout_s)
        if welcome.kind != "welcome":
            raise LinkDown(f"{target.address} answered {welcome.kind} to a greeting")
        return welcome

    def _next_for(self, target: Target, link: Link) -> Message | None:
        """The next message, None as soon as the target is another or all shall end.

        Raises:
            LinkDown: the receiver gave up the link while there was nothing to send.
        """
        prompt = link if isinstance(link, PromptLink) else None
        while True:
            with self._changed:
                message = self._take_for(target)
                if message is None and self._is_for(target):
                    self._idle = prompt
                    self._changed.wait(_POLL_S)
                    self._idle = None
                    message = self._take_for(target)
                if message is not None or not self._is_for(target):
                    return message
            if prompt is not None:
                prompt.finish()
            with contextlib.suppress(LinkIdle):
                link.recv(0.0)

    def _is_for(self, target: Target) -> bool:
        return self._target == target and not self._stopping

    def _take_for(self, target: Target) -> Message | None:
        return self._log.take() if self._is_for(target) else None


def _is_prompt(message: Message) -> bool:
    """Whether sending a message is over at once where the kernel has room: GPUs make one wait."""
    is_here = all(tensor.is_cpu for tensor in message.tensors.values())
    return is_here and message.num_bytes <= _PROMPT_BYTES


class Receiver:
    """Takes one sender at a time and hands on what it says."""

    def __init__(
        self,
        name: str,
        listener: Listener,
        settings: EdgeSettings,
        *,
        positions: Callable[[], dict[str, int]],
        take: Callable[[Message], None],
    ) -> None:
        """`positions` tells what was taken last of each session; `take` must not block."""
        self._listener, self._settings = listener, settings
        self._positions, self._take = positions, take
        self._link: Link | None = None
        self._generation = -1
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{name}-rx", daemon=True)

    @property
    def address(self) -> str:
        """Where senders connect."""
        return self._listener.address

    def start(self) -> None:
        """Begin to receive."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, the link and the listener."""
        self._stopping.set()
        link = self._link
        if link is not None:
            link.close()
        if self._thread.is_alive():
            self._thread.join(_END_WAITS * self._settings.timeout_s)
        self._drop_link()
        self._listener.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._link = self._listener.accept(_POLL_S)
                self._receive(self._link)
            except LinkIdle:
                continue
            except (LinkDown, MessageError):
                self._drop_link()

    def _drop_link(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def _receive(self, link: Link) -> None:
        """Greet one sender and take what it says until the link is down.

        A sender that was replaced, and lives on, comes with an older generation than was seen.
        """
        self._check_greeting(link.recv(self._settings.timeout_s))
        link.send(Message(kind="welcome", facts={"positions": self._positions()}))
        while not self._stopping.is_set():
            try:
                message = link.recv(_POLL_S)
            except LinkIdle:
                continue
            self._take(message)

    def _check_greeting(self, hello: Message) -> None:
        token = hello.facts.get("token")
        known = isinstance(token, str) and hmac.compare_digest(
            token.encode(), self._settings.token.encode()
        )
        if hello.kind != "hello" or not known:
            raise LinkDown("a stranger connected")
        generation = hello.facts.get("generation")
        if not isinstance(generation, int) or generation < self._generation:
            raise LinkDown("a sender connected that was replaced before")
        self._generation = generation
