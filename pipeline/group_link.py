"""Links whose large tensors go by torch.distributed, and everything else by a socket.

Headers go by the socket, so that a peer that dies is an ordinary end of stream, an idle link costs
nothing, and closing it ends a wait. What is sent towards the listening side, and is large enough
to matter, goes through a pair of ranks that the link makes for itself when it first needs it; the
ranks find each other through that same socket. A link that fails is closed with its pair, and the
next link makes a new one: no rank of an earlier attempt can be met again.

Frames on the socket: `m` a message with all its tensors; `g` a message whose tensors of so many
bytes (u32) or more go through the pair; `s` an entry of the ranks' store; `r` word that the
receiver has begun to receive.
"""

import contextlib
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import msgpack
import torch

from pipeline.byte_stream import ByteStream, connect_stream
from pipeline.channel import LinkDown, LinkIdle
from pipeline.frame_reader import FrameReader
from pipeline.link_store import LinkStore
from pipeline.message import (
    LENGTH,
    Message,
    MessageError,
    TensorSpec,
    header_length,
    pack_header,
    unpack_header,
)
from pipeline.parallel import RECEIVER, SENDER, Pair, make_pair
from pipeline.socket_link import SocketListener

TakenT = TypeVar("TakenT")

BACKENDS = ("gloo", "nccl")
# Smaller tensors cost less by the socket, where nobody waits for the receiver's word.
MIN_GROUP_BYTES = 1 << 15
# Making a pair takes milliseconds; one that takes longer is given up, and a new link tries again.
SETUP_S = 5.0
# What both sides have begun is over soon, or never: gloo leaves a sender whose peer dies while it
# writes more than the kernel holds (some MB) waiting for its deadline.
TRANSFER_S = 2.0
SLOWEST_BYTES_PER_S = 20e6
_MAX_ENTRY_BYTES = 1 << 16
_MAX_ENTRIES = 64
_COUNT = struct.Struct("<I")
_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class _Arriving:
    """A message whose socket part is here; `late` are the tensors that the pair brings."""

    message: Message
    specs: tuple[TensorSpec, ...]
    late: tuple[TensorSpec, ...]

    def completed(self, tensors: list[torch.Tensor]) -> Message:
        """The message with all its tensors, in their order."""
        late = {spec.name: tensor for spec, tensor in zip(self.late, tensors, strict=True)}
        have = {**self.message.tensors, **late}
        return replace(self.message, tensors={spec.name: have[spec.name] for spec in self.specs})


class GroupLink:
    """One side of such a link; the connecting side is the rank that sends."""

    def __init__(
        self,
        stream: ByteStream,
        *,
        backend: str,
        rank: int,
        timeout_s: float,
        device: torch.device = _CPU,
    ) -> None:
        """Own the stream; a message that began must be over within `timeout_s`.

        `device` is where NCCL receives; a sender's is that of what it sends.
        """
        self._stream, self._backend, self._rank = stream, backend, rank
        self._timeout_s, self._device = timeout_s, device
        self._reader = FrameReader(stream)
        self._writing = threading.Lock()
        self._arrived: deque[_Arriving] = deque()
        self._entries: dict[str, bytes] = {}
        self._num_granted = 0
        # A stranger must not reach the pair (see `parallel`): the listening side makes none before
        # it has answered, and it answers whoever has shown the chain's token.
        self._has_heard = self._has_answered = False
        self._pair: Pair | None = None
        self._is_closed = False

    def send(self, message: Message) -> None:
        """Write the message, and pass its large tensors through the pair."""
        header = pack_header(message)
        is_paired = self._rank == SENDER and self._has_heard
        by_pair = [
            tensor
            for tensor in message.tensors.values()
            if is_paired and tensor.nbytes >= MIN_GROUP_BYTES
        ]
        with self._down_on_error("nothing can be sent"):
            self._write_message(message, header, is_split=bool(by_pair))
            if by_pair:
                self._send_by_pair(by_pair)

    def _write_message(self, message: Message, header: bytes, *, is_split: bool) -> None:
        """What goes by the socket."""
        with self._writing:
            self._stream.write(b"g" + _COUNT.pack(MIN_GROUP_BYTES) if is_split else b"m")
            self._stream.write(header)
            for tensor in message.tensors.values():
                if not is_split or tensor.nbytes < MIN_GROUP_BYTES:
                    self._stream.write_tensor(tensor)
        self._has_answered = True

    def _send_by_pair(self, tensors: list[torch.Tensor]) -> None:
        """Send once the receiver has begun to receive: a wait for that can be ended, this not."""
        if self._backend == "nccl" and tensors[0].is_cuda:
            self._device = tensors[0].device
        pair = self._ready_pair()
        try:
            self._await(self._take_grant, self._timeout_s)
        except LinkIdle:
            raise ConnectionError("the other side does not begin to receive") from None
        pair.send(tensors, self._transfer_s(sum(x.nbytes for x in tensors)))

    def _transfer_s(self, num_bytes: int) -> float:
        """How long it may take to pass so much through the pair."""
        return min(self._timeout_s, TRANSFER_S + num_bytes / SLOWEST_BYTES_PER_S)

    def _take_grant(self) -> bool | None:
        if not self._num_granted:
            return None
        self._num_granted -= 1
        return True

    def recv(self, timeout_s: float) -> Message:
        """The next message, in fresh tensors."""
        with self._down_on_error("nothing can be received"):
            arriving = self._await(self._take_arrived, timeout_s)
            if not arriving.late:
                return arriving.message
            receipt = self._ready_pair().receive(arriving.late)
            with self._writing:
                self._stream.write(b"r")
            num_bytes = sum(spec.num_bytes for spec in arriving.late)
            return arriving.completed(receipt.wait(self._transfer_s(num_bytes)))

    def _take_arrived(self) -> _Arriving | None:
        return self._arrived.popleft() if self._arrived else None

    def _await(self, taken: Callable[[], TakenT | None], timeout_s: float) -> TakenT:
        """What `taken` gives, once the frames from the other side allow it."""
        return self._reader.wait_for(self._take_frame, taken, timeout_s)

    def _take_frame(self) -> None:
        """Read one frame; called by the reader."""
        kind = self._stream.read(1)
        may_pair = self._rank == SENDER or self._has_answered
        if kind == b"m":
            self._arrived.append(self._read_message(None))
        elif kind == b"r" and self._rank == SENDER:
            self._num_granted += 1
        elif kind == b"s" and may_pair:
            self._read_entry()
        elif kind == b"g" and self._rank == RECEIVER and may_pair:
            self._arrived.append(self._read_message(self._read_count()))
        else:
            raise MessageError(f"a frame of kind {kind!r} was not due")
        self._has_heard = True

    def _read_count(self) -> int:
        (count,) = _COUNT.unpack(self._stream.read(_COUNT.size))
        return int(count)

    def _read_message(self, min_late_bytes: int | None) -> _Arriving:
        """A message with the tensors that follow it here."""
        length = header_length(self._stream.read(LENGTH.size))
        message, specs = unpack_header(self._stream.read(length))
        late = tuple(
            spec
            for spec in specs
            if min_late_bytes is not None and spec.num_bytes >= max(1, min_late_bytes)
        )
        here = {spec.name: self._stream.read_tensor(spec) for spec in specs if spec not in late}
        return _Arriving(replace(message, tensors=here), specs, late)

    def _read_entry(self) -> None:
        """An entry of the ranks' store."""
        length = self._read_count()
        if length > _MAX_ENTRY_BYTES or len(self._entries) >= _MAX_ENTRIES:
            raise MessageError("the ranks' store is overrun")
        key, value = msgpack.unpackb(self._stream.read(length))
        if not isinstance(key, str) or not isinstance(value, bytes):
            raise MessageError("an entry of the ranks' store is none")
        self._entries[key] = value

    def _ready_pair(self) -> Pair:
        """The pair, made with the other side when it is first needed."""
        if self._pair is None:
            self._pair = make_pair(
                self._backend,
                LinkStore(publish=self._publish, await_entry=self._await_entry),
                self._rank,
                host=self._stream.local_host,
                device=self._device,
                timeout_s=min(SETUP_S, self._timeout_s),
            )
        pair = self._pair
        if self._is_closed:
            self.close()
            raise ConnectionError("the link was closed")
        return pair

    def _publish(self, key: str, value: bytes) -> None:
        """Tell the other rank an entry of the store."""
        data: bytes = msgpack.packb((key, value))
        with self._writing:
            self._stream.write(b"s" + _COUNT.pack(len(data)) + data)

    def _await_entry(self, key: str) -> bytes:
        """What the other rank told."""
        timeout_s = min(SETUP_S, self._timeout_s)
        return self._await(lambda: self._entries.get(key), timeout_s)

    @contextlib.contextmanager
    def _down_on_error(self, what: str) -> Iterator[None]:
        """Close the link on any error; that a message did not begin in time is none."""
        try:
            yield
        except LinkIdle:
            raise
        except (OSError, ValueError, RuntimeError, msgpack.UnpackException) as error:
            # torch raises RuntimeError for a tensor that memory cannot hold.
            self.close()
            text = " ".join(str(error).split()) or type(error).__name__
            raise LinkDown(f"{what}: {text}") from error

    def close(self) -> None:
        """End both directions; a thread that waits in `send` or `recv` finds the link down."""
        self._is_closed = True
        self._stream.close()
        pair, self._pair = self._pair, None
        if pair is not None:
            pair.close()


class GroupListener:
    """Listens for such links at `gloo+unix:PATH`, `gloo+tcp:HOST:PORT`, or with `nccl`."""

    def __init__(self, address: str, *, timeout_s: float) -> None:
        """Bind and listen.

        Raises:
            ValueError: the address is taken or of no known kind, or the backend is not here.
        """
        self._backend, inner = split_address(address)
        self._device = _CPU
        if self._backend == "nccl":
            self._device = torch.device("cuda", torch.cuda.current_device())
        self._timeout_s = timeout_s
        self._listener = SocketListener(inner, timeout_s=timeout_s)

    @property
    def address(self) -> str:
        """What the other side connects to."""
        return f"{self._backend}+{self._listener.address}"

    def accept(self, timeout_s: float) -> GroupLink:
        """The next link."""
        return GroupLink(
            self._listener.accept_stream(timeout_s),
            backend=self._backend,
            rank=RECEIVER,
            timeout_s=self._timeout_s,
            device=self._device,
        )

    def close(self) -> None:
        """Accept no more; nobody may wait in `accept` meanwhile."""
        self._listener.close()


def connect_group(address: str, *, timeout_s: float) -> GroupLink:
    """A link to a listener of such links."""
    backend, inner = split_address(address)
    stream = connect_stream(inner, timeout_s=timeout_s)
    return GroupLink(stream, backend=backend, rank=SENDER, timeout_s=timeout_s)


def split_address(address: str) -> tuple[str, str]:
    """The backend and the socket's address.

    Raises:
        ValueError: there is no such backend, or not in this process.
    """
    backend, _, inner = address.partition("+")
    if backend not in BACKENDS:
        raise ValueError(f"address {address!r}: there is no backend {backend!r}")
    if backend == "nccl" and not torch.cuda.is_available():
        raise ValueError(f"address {address!r} needs a GPU, and none is here: use gloo or unix")
    return backend, inner
