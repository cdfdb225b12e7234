"""Two ranks of NCCL that pass tensors from one GPU to another.

Written after PyTorch's and NCCL's documentation; where no GPU is at hand its tests skip and say
so. Nothing of it runs while a link is idle: a receive is a kernel that spins on the GPU, and the
link has one begin only when the other side is about to send.

NCCL does not notice by itself that a peer has died, and PyTorch's watchdog would end the process
that survived, with all it keeps. It is switched off; every wait here has a deadline, and closing
the pair from any thread aborts the communicator, which frees a wait.
"""

import os
import time
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed
from torch.distributed.distributed_c10d import Store

from pipeline.message import TensorSpec
from pipeline.parallel import RECEIVER, SENDER, PairError, one_line

_POLL_S = 0.0002
# Read when a group is made: no watchdog that ends the process, no monitor that asks our store.
_ENVIRONMENT = {
    "TORCH_NCCL_ASYNC_ERROR_HANDLING": "0",
    "TORCH_NCCL_ENABLE_MONITORING": "0",
    "TORCH_NCCL_DUMP_ON_TIMEOUT": "0",
}


class NcclPair:
    """A pair over NVLink, PCIe or a network, straight between the GPUs' memories.

    Tensors must be complete on the device's default stream when they are handed over.
    """

    def __init__(self, store: Store, rank: int, *, device: torch.device, timeout_s: float) -> None:
        """Meet the other rank and send it one number: the first transfer is what builds all.

        Raises:
            PairError: it did not come in time, or is gone.
        """
        os.environ.update(_ENVIRONMENT)
        self._device, self._peer = device, RECEIVER if rank == SENDER else SENDER
        self._group: Any = None
        try:
            with torch.cuda.device(device):
                self._group = make_nccl_group(store, rank, 2, device)
                number = torch.zeros(1, device=device)
                meet = self._group.send if rank == SENDER else self._group.recv
                self.finish([meet([number], self._peer, 0)], timeout_s)
        except RuntimeError as error:
            self.close()
            raise PairError(f"NCCL: {one_line(error)}") from None

    def send(self, tensors: Sequence[torch.Tensor], timeout_s: float) -> None:
        """Begin to send all of them in order, then wait."""
        with torch.cuda.device(self._device):
            here = [x.detach().to(self._device).contiguous() for x in tensors]
            self.finish([self._begin("send", x) for x in here], timeout_s)

    def receive(self, specs: Sequence[TensorSpec]) -> "NcclReceipt":
        """Begin to receive all of them in order, into memory of the GPU."""
        with torch.cuda.device(self._device):
            tensors = [spec.empty(self._device) for spec in specs]
            return NcclReceipt(self, tensors, [self._begin("recv", x) for x in tensors])

    def _begin(self, method: str, tensor: torch.Tensor) -> Any:
        group = self._group
        if group is None:
            raise PairError("NCCL: the pair is closed")
        try:
            return getattr(group, method)([tensor.reshape(-1).view(torch.uint8)], self._peer, 0)
        except RuntimeError as error:
            self.close()
            raise PairError(f"NCCL: {one_line(error)}") from None

    def finish(self, works: Sequence[Any], timeout_s: float) -> None:
        """Wait until the GPU is done with all of them.

        Raises:
            PairError: it was not in time, or the pair was closed.
        """
        until_s = time.monotonic() + timeout_s
        try:
            for work in works:
                while not work.is_completed():
                    if self._group is None or time.monotonic() > until_s:
                        raise PairError("NCCL: the other side did not take part in time")
                    time.sleep(_POLL_S)
                work.wait()
        except RuntimeError as error:
            self.close()
            raise PairError(f"NCCL: {one_line(error)}") from None
        except PairError:
            self.close()
            raise

    def close(self) -> None:
        """Abort the communicator: kernels that wait for the other side end."""
        group, self._group = self._group, None
        if group is not None:
            group.abort()


class NcclReceipt:
    """Tensors that NCCL is receiving."""

    def __init__(self, pair: NcclPair, tensors: list[torch.Tensor], works: list[Any]) -> None:
        """Of this pair."""
        self._pair, self._tensors, self._works = pair, tensors, works

    def wait(self, timeout_s: float) -> list[torch.Tensor]:
        """Wait until the GPU has all of them."""
        self._pair.finish(self._works, timeout_s)
        return self._tensors


def make_nccl_group(store: Store, rank: int, size: int, device: torch.device) -> Any:
    """A group whose communicator is there at once, not with the first transfer."""
    nccl: Any = torch.distributed.ProcessGroupNCCL
    group = nccl(store, rank, size, nccl.Options())
    group.eager_connect_single_device(device)
    return group


def are_apart(store: Store, rank: int, device: torch.device) -> bool:
    """Whether the two ranks have a GPU each: NCCL refuses two ranks on one.

    Raises:
        PairError: the other rank told nothing in time.
    """
    try:
        mine = str(torch.cuda.get_device_properties(device).uuid)
        store.set(f"device{rank}", mine)
        return bool(store.get(f"device{RECEIVER if rank == SENDER else SENDER}") != mine.encode())
    except (RuntimeError, OSError) as error:
        raise PairError(f"NCCL: {one_line(error)}") from None
