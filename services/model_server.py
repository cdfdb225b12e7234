"""The model process's side of the socket: one gateway at a time, its sessions in one engine."""

import contextlib
import logging
import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, get_args

from viva.v1.framing import VERSION, FrameDecoder, WireError
from viva.v1.messages import (
    AnyMessage,
    CloseSession,
    GatewayMessage,
    Hello,
    ModelReady,
    OpenSession,
    Ping,
    Pong,
    SessionClosed,
    SessionFailed,
    SliceMade,
    encode,
    parse,
)

from services.outbox import Outbox

READ_BYTES = 1 << 18
SEND_BUFFER_BYTES = 1 << 20
# Linux holds 107 bytes of path in a socket's address.
MAX_PATH_BYTES = 107
log = logging.getLogger(__name__)


class Engine(Protocol):
    """What makes the sessions' slices, in threads of its own."""

    @property
    def ready(self) -> ModelReady:
        """What it is, warmed up."""

    def start(self) -> None:
        """Work from now on."""

    def post(self, message: GatewayMessage) -> None:
        """Take a message about a session; from any thread, without waiting."""

    def close(self) -> None:
        """End all sessions and threads."""


# An engine that is warm and says everything to the callback, which may block while a gateway is
# slow to read.
Tell = Callable[[AnyMessage], None]
EngineMaker = Callable[[Tell], Engine]


class SocketPathError(ValueError):
    """A path at which no socket can listen; one line naming it."""


@contextlib.contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """A socket at the path that only its owner may connect to; the file is gone afterwards.

    Raises:
        SocketPathError: the path is too long, is taken, or its folder is not there.
    """
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise SocketPathError(f"--socket {path}: longer than {MAX_PATH_BYTES} bytes")
    _remove_dead(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        mask = os.umask(0o177)
        try:
            listener.bind(str(path))
        except OSError as error:
            raise SocketPathError(f"--socket {path}: {error.strerror}") from error
        finally:
            os.umask(mask)
        listener.listen(1)
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


def _remove_dead(path: Path) -> None:
    """Remove a socket at which nobody listens any more."""
    if not path.exists() or not stat.S_ISSOCK(path.stat().st_mode):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()


class ModelServer:
    """Gateways, one after the other, at a listening socket."""

    def __init__(self, listener: socket.socket, make_engine: EngineMaker) -> None:
        """Make the engine and start it; whoever connects meanwhile waits."""
        self._listener = listener
        self._conversation: Conversation | None = None
        self._engine = make_engine(self._tell)
        self._engine.start()

    def close(self) -> None:
        """End the engine and all of its sessions."""
        self._engine.close()

    def serve(self, *, once: bool) -> None:
        """Serve one gateway, or one after the other for ever."""
        while True:
            sock, _ = self._listener.accept()
            with sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
                self._conversation = Conversation(sock, self._engine)
                try:
                    self._conversation.run()
                finally:
                    self._conversation = None
            if once:
                return

    def _tell(self, message: AnyMessage) -> None:
        """Hand a message of the engine to the gateway, if there is one."""
        conversation = self._conversation
        if conversation is not None:
            conversation.tell(message)


class Conversation:
    """One gateway's connection, from its `Hello` until it hangs up."""

    def __init__(self, sock: socket.socket, engine: Engine) -> None:
        """Speak with the gateway at the other end of a connected socket."""
        self._socket, self._engine = sock, engine
        self._outbox = Outbox(sock)
        self._sessions: set[str] = set()
        self._is_greeted = False

    def run(self) -> None:
        """Take what the gateway says until it hangs up or breaks the contract; end its sessions."""
        decoder = FrameDecoder()
        try:
            while data := self._socket.recv(READ_BYTES):
                for payload in decoder.feed(data):
                    self._take(parse(payload))
            decoder.finish()
        except WireError as error:
            log.error("the gateway breaks the contract: %s", error)
        except OSError as error:
            log.info("the gateway is gone: %s", error)
        finally:
            self._outbox.close()
            for session in tuple(self._sessions):
                self._engine.post(CloseSession(session=session))

    def tell(self, message: AnyMessage) -> None:
        """Send a message; slices wait for room."""
        if isinstance(message, SessionClosed | SessionFailed):
            self._sessions.discard(message.session)
        self._outbox.put(encode(message), wait=isinstance(message, SliceMade))

    def _take(self, message: AnyMessage) -> None:
        """Answer, or hand on to the engine."""
        match message:
            case Hello():
                self._greet(message)
            case _ if not self._is_greeted:
                raise WireError(f"{message.tag} comes before hello")
            case Ping():
                self.tell(Pong(nonce=message.nonce))
            case _ if isinstance(message, get_args(GatewayMessage)):
                if isinstance(message, OpenSession):
                    self._sessions.add(message.session)
                self._engine.post(message)
            case _:
                raise WireError(f"{message.tag} is what a model says, not a gateway")

    def _greet(self, hello: Hello) -> None:
        """Say what model this is."""
        if hello.version != VERSION:
            raise WireError(f"the gateway speaks version {hello.version}, not {VERSION}")
        self._is_greeted = True
        self.tell(self._engine.ready)
