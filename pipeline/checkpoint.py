"""States of sessions as bytes, so that a stage that dies can be followed by one that knows them.

On one machine they are files, in shared memory where there is any: a file costs one copy and
outlives its writer. A node elsewhere keeps its own in memory, and the driver fetches copies.
"""

import struct
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch

from pipeline.byte_stream import bytes_of
from pipeline.message import (
    LENGTH,
    Message,
    MessageError,
    TensorSpec,
    header_length,
    pack_header,
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


class CheckpointStore:
    """Checkpoints as files."""

    def __init__(self, folder: Path) -> None:
        """Keep files in `folder`, which is made if missing."""
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def save(self, epoch: int, messages: list[Message]) -> None:
        """Keep messages; a crash half-way changes nothing.

        Raises:
            OSError: the folder is full or gone.
        """
        path = self._path(epoch)
        partial = path.with_suffix(".part")
        with partial.open("wb") as file:
            for message in messages:
                for part in _parts(message):
                    file.write(part)
        partial.replace(path)

    def load(self, epoch: int) -> list[Message]:
        """What was kept last.

        Raises:
            MessageError: the file is damaged.
        """
        kept = self.kept(epoch)
        return [] if kept is None else unpack_messages(kept.data)

    def drop(self, epoch: int) -> None:
        """Forget a session."""
        self._path(epoch).unlink(missing_ok=True)

    def kept(self, epoch: int) -> Kept | None:
        """The file, if there is one."""
        try:
            data = self._path(epoch).read_bytes()
        except FileNotFoundError:
            return None
        return Kept(chunk=_first_chunk(data), data=data)

    def _path(self, epoch: int) -> Path:
        return self._folder / f"{epoch}.state"


class MemoryCheckpoints:
    """Checkpoints in this process; they die with it."""

    def __init__(self) -> None:
        """Begin with none."""
        self._kept: dict[int, Kept] = {}
        self._lock = threading.Lock()

    def save(self, epoch: int, messages: list[Message]) -> None:
        """Keep a copy."""
        kept = Kept(chunk=messages[0].chunk, data=pack_messages(messages))
        with self._lock:
            self._kept[epoch] = kept

    def load(self, epoch: int) -> list[Message]:
        """What was kept last."""
        kept = self.kept(epoch)
        return [] if kept is None else unpack_messages(kept.data)

    def drop(self, epoch: int) -> None:
        """Forget a session."""
        with self._lock:
            self._kept.pop(epoch, None)

    def kept(self, epoch: int) -> Kept | None:
        """What was kept last."""
        with self._lock:
            return self._kept.get(epoch)


def pack_messages(messages: list[Message]) -> bytes:
    """Messages one after the other, as on a link."""
    return b"".join(part for message in messages for part in _parts(message))


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


def _parts(message: Message) -> list[bytes | memoryview]:
    """A message's header and its tensors' bytes; these are not copied."""
    tensors = [t.detach().cpu().contiguous() for t in message.tensors.values() if t.numel()]
    return [pack_header(message), *map(bytes_of, tensors)]


def _first_chunk(data: bytes) -> int:
    """The chunk that the first message is of.

    Raises:
        MessageError: the bytes are damaged.
    """
    try:
        length = header_length(data[: LENGTH.size])
        return unpack_header(data[LENGTH.size : LENGTH.size + length])[0].chunk
    except (ValueError, struct.error) as error:
        raise MessageError(f"a damaged state file: {error}") from error


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
