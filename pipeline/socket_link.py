"""Links over sockets: within a machine (unix) or between machines (tcp).

A peer that dies is seen at once, and a blocked wait is ended by closing the link from another
thread: that is why sockets carry latents wherever they do not lie on GPUs (docs/chain.md).
"""

import os
import selectors
import socket
import struct
from pathlib import Path

import torch

from pipeline.byte_stream import ByteStream, connect_stream, parse_address
from pipeline.channel import LinkDown, LinkIdle
from pipeline.message import (
    LENGTH,
    Message,
    Part,
    TensorSpec,
    bytes_of,
    header_length,
    unpack_header,
)
from pipeline.reach import places_here
from pipeline.shared_lane import SHARED_BYTES, SharedLane, lane_memory

# In front of a large tensor within a machine: it follows, or it lies in the lane at a place.
_FOLLOWS = b"\x00"
_IN_LANE = struct.Struct("=BQ")
_PLACE = struct.Struct("=Q")


class SocketLink:
    """Messages over a byte stream: each header is followed by the bytes of its tensors.

    Within a machine whoever connects brings a lane for its large tensors.
    """

    def __init__(self, stream: ByteStream, *, connected: bool = False) -> None:
        """Own the stream; a message that began must be over within its deadline.

        Raises:
            OSError: the other side is gone already.
        """
        self._stream = stream
        self._rest: tuple[Part, ...] = ()
        self._lane_out = _lane_to(stream) if connected and stream.is_local else None
        self._lane_in: SharedLane | None = None
        self._is_met = connected or not stream.is_local

    def send(self, message: Message) -> None:
        """Write the header and every tensor's bytes."""
        parts = self._parts(message)
        try:
            self._stream.write(*self._rest, *parts)
        except OSError as error:
            raise self._down("nothing can be sent", error) from error
        self._rest = ()

    def send_now(self, message: Message) -> bool:
        """Write as much as the kernel takes; False if `finish` or `send` must write the rest."""
        parts = self._parts(message)
        try:
            self._rest = self._stream.write_now(*self._rest, *parts)
        except OSError as error:
            raise self._down("nothing can be sent", error) from error
        return not self._rest

    def finish(self) -> None:
        """Write what `send_now` left."""
        if not self._rest:
            return
        try:
            self._stream.write(*self._rest)
        except OSError as error:
            raise self._down("nothing can be sent", error) from error
        self._rest = ()

    def recv(self, timeout_s: float) -> Message:
        """Read the next message into fresh tensors."""
        try:
            self._await(timeout_s)
            if not self._is_met:
                self._meet()
                self._await(timeout_s)
            length = header_length(self._stream.read(LENGTH.size))
            message, specs = unpack_header(self._stream.read(length))
            tensors = {spec.name: self._tensor(spec) for spec in specs}
        except LinkIdle:
            raise
        except (OSError, ValueError, RuntimeError) as error:
            # torch raises RuntimeError for a tensor that memory cannot hold.
            raise self._down("nothing can be received", error) from error
        return message.with_tensors(tensors)

    def _await(self, timeout_s: float) -> None:
        """Wait for something to read."""
        if not self._stream.await_bytes(timeout_s):
            raise LinkIdle("no message yet")

    def _meet(self) -> None:
        """Take the lane that whoever connected has brought, before its first message."""
        self._is_met = True
        fd = self._stream.read_descriptor()
        if fd is not None:
            try:
                self._lane_in = SharedLane(fd)
            finally:
                os.close(fd)

    def _parts(self, message: Message) -> tuple[Part, ...]:
        """The message as it goes into the stream, large tensors by the lane where it has room."""
        header, *tensors = message.parts()
        if not self._stream.is_local:
            return (header, *tensors)
        return (header, *(piece for part in tensors for piece in self._pieces(part)))

    def _pieces(self, part: Part) -> tuple[Part, ...]:
        """A tensor's bytes, or where they lie."""
        if len(part) < SHARED_BYTES:
            return (part,)
        place = None if self._lane_out is None else self._lane_out.put(part)
        return (_FOLLOWS, part) if place is None else (_IN_LANE.pack(1, place),)

    def _tensor(self, spec: TensorSpec) -> torch.Tensor:
        """The next tensor, wherever its bytes are."""
        is_marked = self._stream.is_local and spec.num_bytes >= SHARED_BYTES
        if not is_marked or self._stream.read(1) == _FOLLOWS:
            return self._stream.read_tensor(spec)
        if self._lane_in is None:
            raise ConnectionError("the other side speaks of a lane that it has not brought")
        tensor = spec.empty()
        (place,) = _PLACE.unpack(self._stream.read(_PLACE.size))
        self._lane_in.take(place, bytes_of(tensor))
        return tensor

    def _down(self, what: str, error: Exception) -> LinkDown:
        self.close()
        return LinkDown(f"{what}: {' '.join(str(error).split()) or type(error).__name__}")

    def close(self) -> None:
        """End both directions; a thread that waits in `send` or `recv` finds the link down."""
        self._stream.close()


class SocketListener:
    """Bound sockets, one for each address given; a unix one removes its path when closed."""

    def __init__(self, address: str, *, timeout_s: float) -> None:
        """Bind and listen."""
        self._timeout_s = timeout_s
        self._sockets: list[socket.socket] = []
        self._paths: list[Path] = []
        self._selector = selectors.DefaultSelector()
        try:
            self._address = ",".join(map(self._bind, places_here(address)))
        except OSError as error:
            self.close()
            raise ValueError(f"cannot listen at {address} ({error.strerror})") from error
        except ValueError:
            self.close()
            raise

    def _bind(self, address: str) -> str:
        """Listen at one address; return it with the port that it got."""
        family, where = parse_address(address)
        sock = socket.socket(family, socket.SOCK_STREAM)
        self._sockets.append(sock)
        sock.bind(where)
        sock.listen()
        sock.setblocking(False)
        self._selector.register(sock, selectors.EVENT_READ)
        if isinstance(where, str):
            self._paths.append(Path(where))
            return address
        host, port = sock.getsockname()[:2]
        return f"tcp:{host}:{port}"

    @property
    def address(self) -> str:
        """What the other side connects to."""
        return self._address

    def accept(self, timeout_s: float) -> SocketLink:
        """The next connection."""
        return SocketLink(self.accept_stream(timeout_s))

    def accept_stream(self, timeout_s: float) -> ByteStream:
        """The next connection as bare bytes."""
        if not self._sockets:
            raise LinkDown("the listener is closed")
        ready = self._selector.select(timeout_s)
        if not ready:
            raise LinkIdle("nobody connected yet")
        listening = ready[0][0].fileobj
        try:
            sock, _ = next(s for s in self._sockets if s is listening).accept()
        except OSError as error:
            raise LinkIdle("somebody connected and left") from error
        return ByteStream(sock, timeout_s=self._timeout_s)

    def close(self) -> None:
        """Accept no more; nobody may wait in `accept` meanwhile."""
        for path in self._paths:
            path.unlink(missing_ok=True)
        for sock in self._sockets:
            sock.close()
        self._sockets, self._paths = [], []
        self._selector.close()


def connect_socket(address: str, *, timeout_s: float) -> SocketLink:
    """A link to a listening socket."""
    stream = connect_stream(address, timeout_s=timeout_s)
    try:
        return SocketLink(stream, connected=True)
    except OSError as error:
        stream.close()
        raise LinkDown(f"{address} has gone ({error})") from error


def _lane_to(stream: ByteStream) -> SharedLane | None:
    """Make a lane and send it ahead of all messages, or say that there is none."""
    fd = lane_memory()
    try:
        lane = None if fd is None else SharedLane(fd)
        stream.write_descriptor(fd)
        return lane
    finally:
        if fd is not None:
            os.close(fd)
