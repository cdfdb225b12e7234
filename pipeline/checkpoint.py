"""States of sessions as files, so that a stage that dies can be followed by one that knows them.

The folder lies in shared memory where there is any: a file costs one copy and outlives its writer.
"""

import struct
from dataclasses import replace
from pathlib import Path

import torch

from pipeline.message import (
    LENGTH,
    Message,
    MessageError,
    TensorSpec,
    header_length,
    pack_header,
    unpack_header,
)
from pipeline.socket_link import bytes_of


class CheckpointStore:
    """One file per session (by epoch) for one stage; the newest replaces the one before."""

    def __init__(self, folder: Path) -> None:
        """Keep files in `folder`, which is made if missing."""
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def save(self, epoch: int, messages: list[Message]) -> None:
        """Keep these messages in place of the ones kept before; a crash half-way changes nothing.

        Raises:
            OSError: the folder is full or gone.
        """
        path = self._path(epoch)
        partial = path.with_suffix(".part")
        with partial.open("wb") as file:
            for message in messages:
                file.write(pack_header(message))
                for tensor in message.tensors.values():
                    if tensor.numel():
                        file.write(bytes_of(tensor.detach().cpu().contiguous()))
        partial.replace(path)

    def load(self, epoch: int) -> list[Message]:
        """What was kept last; empty if nothing was.

        Raises:
            MessageError: the file is damaged.
        """
        path = self._path(epoch)
        if not path.is_file():
            return []
        view = memoryview(bytearray(path.read_bytes()))
        messages = []
        while view:
            message, view = _read_one(view)
            messages.append(message)
        return messages

    def drop(self, epoch: int) -> None:
        """Forget a session; one that is unknown is no error."""
        self._path(epoch).unlink(missing_ok=True)

    def _path(self, epoch: int) -> Path:
        return self._folder / f"{epoch}.state"


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
