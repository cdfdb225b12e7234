"""States of sessions as bytes, so that a stage that dies can be followed by one that knows them.

On one machine they are files, in shared memory where there is any (`checkpoint_store.py`): a file
costs one copy and outlives its writer. A node elsewhere keeps its own in memory, and the driver
fetches copies.
"""

import struct
import threading
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from pipeline.message import (
    LENGTH,
    Message,
    MessageError,
    TensorSpec,
    bytes_of,
    header_length,
    unpack_header,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A checkpoint as it is handed about: the state after `chunk`, and what the stage had made."""

    chunk: int
    data: bytes


class Checkpoints(Protocol):
    """One checkpoint per session (by epoch) of one stage; the newest replaces the one before."""

    def save(self, epoch: int, messages: list[Message]) -> None:
        """Keep these messages, a state and a log, in place of the ones kept before."""
        ...

    def load(self, epoch: int) -> list[Message]:
        """What was kept last; empty if nothing was."""
        ...

    def drop(self, epoch: int) -> None:
        """Forget a session; one that is unknown is no error."""
        ...

    def kept(self, epoch: int) -> Kept | None:
        """What was kept last, to be handed about; None if nothing was."""
        ...


class MemoryCheckpoints:
    """Checkpoints in this process; they die with it.

    A log's messages are kept as they are, because none changes; they are packed for whoever asks.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self._saved: dict[int, tuple[Kept, list[Message]]] = {}
        self._lock = threading.Lock()

    def save(self, epoch: int, messages: list[Message]) -> None:
        """Keep a copy."""
        state, *log = messages
        kept = Kept(chunk=state.chunk, data=pack_messages([state]))
        with self._lock:
            self._saved[epoch] = kept, log

    def load(self, epoch: int) -> list[Message]:
        """What was kept last."""
        kept = self.kept(epoch)
        return [] if kept is None else unpack_messages(kept.data)

    def drop(self, epoch: int) -> None:
        """Forget a session."""
        with self._lock:
            self._saved.pop(epoch, None)

    def kept(self, epoch: int) -> Kept | None:
        """What was kept last."""
        with self._lock:
            saved = self._saved.get(epoch)
        if saved is None:
            return None
        kept, log = saved
        if log:
            kept = replace(kept, data=kept.data + pack_messages(log))
            with self._lock:
                if self._saved.get(epoch) is saved:
                    self._saved[epoch] = kept, []
        return kept


def pack_messages(messages: list[Message]) -> bytes:
    """Messages one after the other, as on a link."""
    return b"".join(part for message in messages for part in message.parts())


def unpack_messages(data: bytes) -> list[Message]:
    """The messages that were packed.

    Raises:
        MessageError: the bytes are damaged.
    """
    view = memoryview(data)
    messages = []
    while view:
        message, view = _read_one(view)
        messages.append(message)
    return messages


def _read_one(view: memoryview) -> tuple[Message, memoryview]:
    """The first message of the bytes, and the bytes after it."""
    try:
        length = header_length(bytes(view[: LENGTH.size]))
        view = view[LENGTH.size :]
        message, specs = unpack_header(bytes(view[:length]))
        view = view[length:]
        tensors = {}
        for spec in specs:
            tensors[spec.name] = _read_tensor(spec, view[: spec.num_bytes])
            view = view[spec.num_bytes :]
    except (ValueError, struct.error) as error:
        raise MessageError(f"a damaged state file: {error}") from error
    return replace(message, tensors=tensors), view


def _read_tensor(spec: TensorSpec, view: memoryview) -> torch.Tensor:
    tensor = spec.empty()
    if spec.num_bytes:
        bytes_of(tensor)[:] = view
    return tensor
