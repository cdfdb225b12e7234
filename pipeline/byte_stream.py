"""Bytes over a socket, within a machine (unix) or between machines (tcp), with a deadline.

A peer that dies is seen at once, and a blocked wait is ended by closing the stream from another
thread.
"""

import contextlib
import math
import os
import select
import socket
import time

import torch

from pipeline.channel import LinkDown
from pipeline.message import Part, TensorSpec, bytes_of, sent_bytes
from pipeline.reach import nearest

# What the kernel holds for a slow reader; more would only hide that it is slow.
BUFFER_BYTES = 1 << 20
# What is read ahead: a pocket chunk with all its parts.
AHEAD_BYTES = 1 << 16
# The kernel takes so many parts in one call.
MAX_PARTS = 512
# Linux holds 107 bytes of path in a socket's address.
MAX_PATH_BYTES = 107


class ByteStream:
    """One side of a connected stream socket; every call raises OSError once it is closed.

    One thread may read while another writes. Reading takes what is there, up to `AHEAD_BYTES`, so
    that a small message costs one call of the system and not one for each of its parts.
    """

    def __init__(self, sock: socket.socket, *, timeout_s: float) -> None:
        """Own the socket; whatever is read or written must be over within `timeout_s`."""
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        self._socket, self._timeout_s = sock, timeout_s
        self._readable, self._writable = select.poll(), select.poll()
        self._readable.register(sock, select.POLLIN)
        self._writable.register(sock, select.POLLOUT)
        self._ahead = memoryview(bytearray(AHEAD_BYTES))
        self._taken = self._filled = 0

    def await_bytes(self, timeout_s: float) -> bool:
        """Whether there is something to read by then; the end of the stream counts."""
        return self._filled > self._taken or _is_ready(self._readable, timeout_s)

    def write(self, *parts: Part) -> None:
        """Write all of it."""
        until_s = time.monotonic() + self._timeout_s
        while parts := self.write_now(*parts):
            if not _is_ready(self._writable, until_s - time.monotonic()):
                raise TimeoutError("the other side does not read")

    def write_now(self, *parts: Part) -> tuple[Part, ...]:
        """Write what the kernel takes at once; return the rest."""
        try:
            return rest_of(parts, self._socket.sendmsg(parts[:MAX_PARTS]))
        except BlockingIOError:
            return parts

    def write_tensor(self, tensor: torch.Tensor) -> None:
        """Write a tensor's bytes."""
        if tensor.numel():
            self.write(sent_bytes(tensor))

    def read(self, count: int) -> bytes:
        """Read so many bytes."""
        if self._filled - self._taken >= count:
            self._taken += count
            return bytes(self._ahead[self._taken - count : self._taken])
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
        until_s = time.monotonic() + self._timeout_s
        while True:
            count = min(len(view), self._filled - self._taken)
            view[:count] = self._ahead[self._taken : self._taken + count]
            self._taken += count
            view = view[count:]
            if not view:
                return
            if len(view) >= AHEAD_BYTES:
                view = view[self._receive(view, until_s) :]
            else:
                self._taken, self._filled = 0, self._receive(self._ahead, until_s)

    def _receive(self, view: memoryview, until_s: float) -> int:
        """Put what is there into the view, waiting for it; return how many bytes that were."""
        while True:
            try:
                count = self._socket.recv_into(view)
            except BlockingIOError:
                if not _is_ready(self._readable, until_s - time.monotonic()):
                    raise TimeoutError("the other side does not write") from None
                continue
            if not count:
                raise ConnectionError("the other side is gone")
            return count

    @property
    def is_local(self) -> bool:
        """Whether the other side is a process of this machine."""
        return self._socket.family == socket.AF_UNIX

    def write_descriptor(self, fd: int | None) -> None:
        """Hand a descriptor over, or say that there is none; the first thing that is written."""
        if fd is None:
            self.write(b"-")
        else:
            socket.send_fds(self._socket, [b"+"], [fd])

    def read_descriptor(self) -> int | None:
        """Take what `write_descriptor` sent; the first thing that is read.

        Raises:
            ConnectionError: something else came.
        """
        until_s = time.monotonic() + self._timeout_s
        while True:
            try:
                word, fds, _, _ = socket.recv_fds(self._socket, 1, 1)
            except BlockingIOError:
                if not _is_ready(self._readable, until_s - time.monotonic()):
                    raise TimeoutError("the other side does not write") from None
                continue
            if word == b"-" or (word == b"+" and fds):
                return fds[0] if fds else None
            for fd in fds:
                os.close(fd)
            raise ConnectionError("the other side does not greet as it should")

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
        self._socket.close()


def _is_ready(poll: select.poll, timeout_s: float) -> bool:
    """Whether a socket is ready by then, or will never be."""
    return bool(poll.poll(math.ceil(max(timeout_s, 0.0) * 1e3)))


def rest_of(parts: tuple[Part, ...], count: int) -> tuple[Part, ...]:
    """What is left of the parts behind the first `count` bytes."""
    for index, part in enumerate(parts):
        if count < len(part):
            return (memoryview(part)[count:], *parts[index + 1 :])
        count -= len(part)
    return ()


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
