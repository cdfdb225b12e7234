"""Links over sockets: within a machine (unix) or between machines (tcp).

A peer that dies is seen at once, and a blocked wait is ended by closing the link from another
thread: that is why sockets carry latents wherever they do not lie on GPUs (docs/chain.md).
"""

import contextlib
import os
import selectors
import socket
from dataclasses import replace
from pathlib import Path

import torch

from pipeline.channel import LinkDown, LinkIdle
from pipeline.message import LENGTH, Message, TensorSpec, header_length, pack_header, unpack_header

# What the kernel holds for a slow reader; more would only hide that it is slow.
BUFFER_BYTES = 1 << 20
# Linux holds 107 bytes of path in a socket's address.
MAX_PATH_BYTES = 107


class SocketLink:
    """One side of a connected stream socket."""

    def __init__(self, sock: socket.socket, *, timeout_s: float) -> None:
        """Own the socket; a message that began must be over within `timeout_s`."""
        sock.settimeout(timeout_s)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = sock
        self._selector = selectors.DefaultSelector()
        self._selector.register(sock, selectors.EVENT_READ)

    def send(self, message: Message) -> None:
        """Write the header and every tensor's bytes."""
        header = pack_header(message)
        try:
            self._socket.sendall(header)
            for tensor in message.tensors.values():
                if tensor.numel():
                    self._socket.sendall(bytes_of(tensor.detach().cpu().contiguous()))
        except OSError as error:
            raise self._down("nothing can be sent", error) from error

    def recv(self, timeout_s: float) -> Message:
        """Read the next message into fresh tensors."""
        try:
            if not self._selector.select(timeout_s):
                raise LinkIdle("no message yet")
            length = header_length(self._read(LENGTH.size))
            message, specs = unpack_header(self._read(length))
            tensors = {spec.name: self._read_tensor(spec) for spec in specs}
        except LinkIdle:
            raise
        except (OSError, ValueError, RuntimeError) as error:
            # torch raises RuntimeError for a tensor that memory cannot hold.
            raise self._down("nothing can be received", error) from error
        return replace(message, tensors=tensors)

    def _read_tensor(self, spec: TensorSpec) -> torch.Tensor:
        tensor = spec.empty()
        if spec.num_bytes:
            self._read_into(bytes_of(tensor))
        return tensor

    def _read(self, count: int) -> bytes:
        buffer = bytearray(count)
        self._read_into(memoryview(buffer))
        return bytes(buffer)

    def _read_into(self, view: memoryview) -> None:
        """Fill the view, or find that the other side is gone."""
        while view:
            count = self._socket.recv_into(view)
            if not count:
                raise ConnectionError("the other side is gone")
            view = view[count:]

    def _down(self, what: str, error: Exception) -> LinkDown:
        self.close()
        return LinkDown(f"{what}: {' '.join(str(error).split()) or type(error).__name__}")

    def close(self) -> None:
        """End both directions; a thread that waits in `send` or `recv` finds the link down."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def release(self) -> None:
        """Give the descriptors back; only once no thread uses the link."""
        self.close()
        self._selector.close()
        self._socket.close()

    def __del__(self) -> None:
        """Whoever held the link last has let it go."""
        self.release()


def bytes_of(tensor: torch.Tensor) -> memoryview:
    """The bytes of a contiguous CPU tensor, not copied."""
    flat = tensor.reshape(-1).view(torch.uint8)
    return flat.numpy().data.cast("B")


class SocketListener:
    """A bound socket; a unix one removes its path when closed."""

    def __init__(self, address: str, *, timeout_s: float) -> None:
        """Bind and listen."""
        self._timeout_s = timeout_s
        family, where = parse_address(address)
        self._path = Path(where) if isinstance(where, str) else None
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        try:
            self._socket.bind(where)
            self._socket.listen()
        except OSError as error:
            self._socket.close()
            raise ValueError(f"cannot listen at {address} ({error.strerror})") from error
        if self._path is None:
            host, port = self._socket.getsockname()[:2]
            address = f"tcp:{host}:{port}"
        self._address = address

    @property
    def address(self) -> str:
        """What the other side connects to."""
        return self._address

    def accept(self, timeout_s: float) -> SocketLink:
        """The next connection."""
        if self._socket.fileno() < 0:
            raise LinkDown("the listener is closed")
        self._socket.settimeout(timeout_s)
        try:
            sock, _ = self._socket.accept()
        except TimeoutError as error:
            raise LinkIdle("nobody connected yet") from error
        except OSError as error:
            raise LinkIdle("somebody connected and left") from error
        return SocketLink(sock, timeout_s=self._timeout_s)

    def close(self) -> None:
        """Accept no more; nobody may wait in `accept` meanwhile."""
        if self._path is not None and self._socket.fileno() >= 0:
            self._path.unlink(missing_ok=True)
        self._socket.close()


def connect_socket(address: str, *, timeout_s: float) -> SocketLink:
    """A link to a listening socket."""
    family, where = parse_address(address)
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.settimeout(timeout_s)
    try:
        sock.connect(where)
    except OSError as error:
        sock.close()
        raise LinkDown(f"nobody listens at {address} ({error})") from error
    return SocketLink(sock, timeout_s=timeout_s)


def parse_address(address: str) -> tuple[socket.AddressFamily, str | tuple[str, int]]:
    """Family and place of `unix:PATH` or `tcp:HOST:PORT`.

    Raises:
        ValueError: the address is neither.
    """
    kind, _, rest = address.partition(":")
    if kind == "unix" and rest:
        if len(os.fsencode(rest)) > MAX_PATH_BYTES:
            raise ValueError(f"the socket path {rest} is longer than {MAX_PATH_BYTES} bytes")
        return socket.AF_UNIX, rest
    host, _, port = rest.rpartition(":")
    if kind == "tcp" and host and port.isdigit() and int(port) < 1 << 16:
        return (socket.AF_INET6 if ":" in host else socket.AF_INET), (host, int(port))
    raise ValueError(f"address {address!r} is neither queue:NAME, unix:PATH nor tcp:HOST:PORT")
