"""Bytes over a socket, within a machine (unix) or between machines (tcp), with a deadline.

A peer that dies is seen at once, and a blocked wait is ended by closing the stream from another
thread.
"""

import contextlib
import os
import selectors
import socket

import torch

from pipeline.channel import LinkDown
from pipeline.message import TensorSpec
from pipeline.reach import nearest

# What the kernel holds for a slow reader; more would only hide that it is slow.
BUFFER_BYTES = 1 << 20
# Linux holds 107 bytes of path in a socket's address.
MAX_PATH_BYTES = 107


class ByteStream:
    """One side of a connected stream socket; every call raises OSError once it is closed."""

    def __init__(self, sock: socket.socket, *, timeout_s: float) -> None:
        """Own the socket; whatever is read or written must be over within `timeout_s`."""
        sock.settimeout(timeout_s)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = sock
        self._selector = selectors.DefaultSelector()
        self._selector.register(sock, selectors.EVENT_READ)

    def await_bytes(self, timeout_s: float) -> bool:
        """Whether there is something to read by then; the end of the stream counts."""
        return bool(self._selector.select(timeout_s))

    def write(self, data: bytes) -> None:
        """Write all of it."""
        self._socket.sendall(data)

    def write_tensor(self, tensor: torch.Tensor) -> None:
        """Write a tensor's bytes."""
        if tensor.numel():
            self._socket.sendall(bytes_of(tensor.detach().cpu().contiguous()))

    def read(self, count: int) -> bytes:
        """Read so many bytes."""
        buffer = bytearray(count)
        self._read_into(memoryview(buffer))
        return bytes(buffer)

    def read_tensor(self, spec: TensorSpec) -> torch.Tensor:
        """Read a tensor's bytes into fresh memory."""
        tensor = spec.empty()
        if spec.num_bytes:
            self._read_into(bytes_of(tensor))
        return tensor

    def _read_into(self, view: memoryview) -> None:
        """Fill the view, or find that the other side is gone."""
        while view:
            count = self._socket.recv_into(view)
            if not count:
                raise ConnectionError("the other side is gone")
            view = view[count:]

    @property
    def local_host(self) -> str:
        """This machine's address as the other side reaches it."""
        if self._socket.family == socket.AF_UNIX:
            return "127.0.0.1"
        return str(self._socket.getsockname()[0])

    def close(self) -> None:
        """End both directions; a thread that waits here is freed."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def __del__(self) -> None:
        """Give the descriptors back: whoever held the stream last has let it go."""
        self.close()
        self._selector.close()
        self._socket.close()


def bytes_of(tensor: torch.Tensor) -> memoryview:
    """The bytes of a contiguous CPU tensor, not copied."""
    flat = tensor.reshape(-1).view(torch.uint8)
    return flat.numpy().data.cast("B")


def connect_stream(address: str, *, timeout_s: float) -> ByteStream:
    """A stream to a listening socket.

    Raises:
        LinkDown: nobody listens there.
        ValueError: the address is of no known kind.
    """
    family, where = parse_address(nearest(address))
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.settimeout(timeout_s)
    try:
        sock.connect(where)
    except OSError as error:
        sock.close()
        raise LinkDown(f"nobody listens at {address} ({error})") from error
    return ByteStream(sock, timeout_s=timeout_s)


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
