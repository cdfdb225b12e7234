"""Two ranks of torch.distributed that pass tensors from the first to the second.

A pair belongs to one link and dies with it; nothing is sent over it again after an error. On CPUs
it is gloo, on GPUs NCCL (`nccl_pair.py`). Measured of gloo in torch 2.13:

- the death of a peer frees a side that waits to receive, or to begin, in 20 ms, but one in the
  middle of writing more than the kernel holds (2 MB went, 4 MB did not) only when its time is over;
  `abort` and `shutdown` free nobody;
- a peer that dies between telling its address and connecting costs five times the timeout;
- one that sends more bytes than were asked for ends the process, and so does an address that is
  none.

Hence a pair is made only once the other side has shown that it belongs to the chain, sizes come
from the header that both have, nobody waits in a pair for anything but a transfer that the other
side has begun, too, and all waits are short.
"""

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Protocol

import torch
from torch.distributed.distributed_c10d import ProcessGroupGloo, Store

from pipeline.message import TensorSpec

SENDER, RECEIVER = 0, 1
# gloo waits five times as long for a peer that has told its address; a connection takes a moment.
CONNECT_S = 0.4


class PairError(ConnectionError):
    """The pair is of no use any more; one line saying why."""


class Receipt(Protocol):
    """Tensors on their way."""

    def wait(self, timeout_s: float) -> list[torch.Tensor]:
        """The tensors, once they are there.

        Raises:
            PairError: they did not come in time, or the other side is gone.
        """
        ...


class Pair(Protocol):
    """One rank's end."""

    def send(self, tensors: Sequence[torch.Tensor], timeout_s: float) -> None:
        """Send them in order; they may be written to afterwards.

        Raises:
            PairError: the other side did not take them in time, or is gone.
        """
        ...

    def receive(self, specs: Sequence[TensorSpec]) -> Receipt:
        """Make room and begin to receive into it; returns at once."""
        ...

    def close(self) -> None:
        """Give up the pair: the other side's wait ends. Closing twice is no error."""
        ...


class GlooPair:
    """A pair over TCP between CPUs; tensors of other devices are copied through the CPU."""

    def __init__(self, store: Store, rank: int, *, host: str) -> None:
        """Meet the other rank; `host` is this machine's address as that one reaches it.

        Raises:
            PairError: it did not come in time, or is gone.
        """
        gloo: Any = ProcessGroupGloo
        options = gloo._Options()
        options._devices = [gloo.create_device(hostname=host, lazy_init=False)]
        options._timeout = timedelta(seconds=CONNECT_S)
        options._threads = 1  # for collectives, of which there are none
        try:
            self._group: Any = gloo(store, rank, 2, options)
        except (RuntimeError, ValueError, OSError) as error:
            raise PairError(f"gloo: {one_line(error)}") from None
        self._peer = RECEIVER if rank == SENDER else SENDER

    def send(self, tensors: Sequence[torch.Tensor], timeout_s: float) -> None:
        """Begin to send all of them, then wait."""
        flat = [_flat(tensor) for tensor in tensors]
        try:
            works = [self._open().send([x], self._peer, tag) for tag, x in enumerate(flat)]
            _finish(works, timeout_s)
        except RuntimeError as error:
            self.close()
            raise PairError(f"gloo: {one_line(error)}") from None

    def receive(self, specs: Sequence[TensorSpec]) -> "GlooReceipt":
        """Begin to receive all of them."""
        tensors = [spec.empty() for spec in specs]
        try:
            works = [
                self._open().recv([_flat(tensor)], self._peer, tag)
                for tag, tensor in enumerate(tensors)
            ]
        except RuntimeError as error:
            self.close()
            raise PairError(f"gloo: {one_line(error)}") from None
        return GlooReceipt(self, tensors, works)

    def _open(self) -> Any:
        if self._group is None:
            raise PairError("gloo: the pair is closed")
        return self._group

    def close(self) -> None:
        """Let the group go: its connection closes with the last who holds it."""
        self._group = None


class GlooReceipt:
    """Tensors that gloo is receiving."""

    def __init__(self, pair: GlooPair, tensors: list[torch.Tensor], works: list[Any]) -> None:
        """Of this pair."""
        self._pair, self._tensors, self._works = pair, tensors, works

    def wait(self, timeout_s: float) -> list[torch.Tensor]:
        """Wait for all of them."""
        try:
            _finish(self._works, timeout_s)
        except RuntimeError as error:
            self._pair.close()
            raise PairError(f"gloo: {one_line(error)}") from None
        return self._tensors


def _finish(works: list[Any], timeout_s: float) -> None:
    """Wait for all of them together; gloo closes its connection when a wait is over in vain.

    None is left in the list: whoever keeps one keeps the connection open.
    """
    until_s = time.monotonic() + timeout_s
    try:
        while works:
            works.pop(0).wait(timedelta(seconds=max(0.001, until_s - time.monotonic())))
    finally:
        works.clear()


def make_pair(
    backend: str,
    store: Store,
    rank: int,
    *,
    host: str,
    device: torch.device,
    timeout_s: float,
) -> Pair:
    """A pair of the wanted backend; both ranks come to the same.

    `nccl` wants two GPUs: between stages on one GPU it is gloo, through the host's memory.

    Raises:
        PairError: the other rank did not come in time, or is gone.
    """
    if backend == "nccl":
        from pipeline.nccl_pair import NcclPair, are_apart

        if are_apart(store, rank, device):
            return NcclPair(store, rank, device=device, timeout_s=timeout_s)
    return GlooPair(store, rank, host=host)


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """A CPU tensor's bytes in a row: gloo then need not know the type."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)


def one_line(error: BaseException) -> str:
    """What an error says, in one line that is not long."""
    return " ".join(str(error).split())[:200] or type(error).__name__
