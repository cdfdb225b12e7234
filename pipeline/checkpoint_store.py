"""Checkpoints as files in a folder of memory that outlives the process that writes it.

Of a session's log only what is new is written: a log is kept in segments, one for each checkpoint.
An index, which is replaced in one step, says which files hold the state and the log; whatever it
does not name is of no account, and is written over by later checkpoints. So a crash at any moment
leaves the checkpoint before, and memory that the kernel has given once is used again.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.byte_stream import MAX_PARTS, rest_of
from pipeline.checkpoint import Kept, unpack_messages
from pipeline.message import Message, MessageError, Part


@dataclass(frozen=True, slots=True)
class _Segment:
    """Some messages that follow each other, and the file that holds them."""

    number: int
    num_bytes: int
    messages: tuple[Message, ...]


@dataclass(slots=True)
class _Files:
    """A session's files: those that count, the state's first, and those that can be used again."""

    segments: list[_Segment] = field(default_factory=list)
    spare: list[int] = field(default_factory=list)
    count: int = 0

    def free(self) -> int:
        """The number of a file that holds nothing of account."""
        if self.spare:
            return self.spare.pop()
        self.count += 1
        return self.count - 1

    def adopt(self, segments: list[_Segment]) -> None:
        """These count from now on."""
        counting = {segment.number for segment in segments}
        self.spare += [s.number for s in self.segments if s.number not in counting]
        self.segments = segments


class CheckpointStore:
    """Checkpoints as files; one thread writes, and any process may read."""

    def __init__(self, folder: Path) -> None:
        """Keep files in `folder`, which is made if missing."""
        self._folder = folder
        self._files: dict[int, _Files] = {}
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def save(self, epoch: int, messages: list[Message]) -> None:
        """Keep messages; a crash half-way changes nothing.

        Raises:
            OSError: the folder is full or gone.
        """
        files = self._files.setdefault(epoch, _Files())
        state, *log = messages
        wanted = {id(message) for message in log}
        kept = [s for s in files.segments[1:] if not wanted.isdisjoint(map(id, s.messages))]
        written = {id(message) for segment in kept for message in segment.messages}
        fresh = tuple(message for message in log if id(message) not in written)
        segments = [self._written(epoch, files, (state,)), *kept]
        if fresh:
            segments.append(self._written(epoch, files, fresh))
        self._write_index(epoch, state, segments)
        files.adopt(segments)

    def _written(self, epoch: int, files: _Files, messages: tuple[Message, ...]) -> _Segment:
        """The messages in a file that did not count until now."""
        number = files.free()
        parts = tuple(part for message in messages for part in message.parts())
        _write(self._path(epoch, number), parts)
        num_bytes = sum(map(len, parts))
        return _Segment(number=number, num_bytes=num_bytes, messages=messages)

    def _write_index(self, epoch: int, state: Message, segments: list[_Segment]) -> None:
        """Have these files count, and no others."""
        sizes = {str(segment.number): segment.num_bytes for segment in segments}
        index = Message(
            kind="state",
            session=state.session,
            epoch=epoch,
            chunk=state.chunk,
            facts={"files": sizes},
        )
        partial = self._index(epoch).with_suffix(".part")
        _write(partial, index.parts())
        partial.replace(self._index(epoch))

    def load(self, epoch: int) -> list[Message]:
        """What was kept last; the next checkpoint goes on from it.

        Raises:
            MessageError: a file is damaged.
        """
        found = self._read(epoch)
        if found is None:
            return []
        segments = [
            _Segment(number, len(data), tuple(unpack_messages(data)))
            for number, data in found[1].items()
        ]
        there = {int(path.stem.partition("-")[2]) for path in self._folder.glob(f"{epoch}-*.log")}
        self._files[epoch] = _Files(
            segments=segments,
            spare=sorted(there - set(found[1])),
            count=max(there) + 1,
        )
        return [message for segment in segments for message in segment.messages]

    def drop(self, epoch: int) -> None:
        """Forget a session."""
        self._index(epoch).unlink(missing_ok=True)
        self._index(epoch).with_suffix(".part").unlink(missing_ok=True)
        for path in self._folder.glob(f"{epoch}-*.log"):
            path.unlink(missing_ok=True)
        self._files.pop(epoch, None)

    def kept(self, epoch: int) -> Kept | None:
        """What the files hold, if there are any.

        Raises:
            MessageError: a file is damaged.
        """
        found = self._read(epoch)
        return None if found is None else Kept(chunk=found[0], data=b"".join(found[1].values()))

    def _read(self, epoch: int) -> tuple[int, dict[int, bytes]] | None:
        """The state's chunk, and the bytes of all files that count, by number."""
        index = self._read_index(epoch)
        while index is not None:
            try:
                chunk, sizes = _unpacked_index(index)
                found = {n: self._read_file(epoch, n, size) for n, size in sizes.items()}
            except MessageError:
                # Files may be written over once the index has changed.
                if self._read_index(epoch) == index:
                    raise
                found = {}
            before, index = index, self._read_index(epoch)
            if index == before:
                return chunk, found
        return None

    def _read_index(self, epoch: int) -> bytes | None:
        try:
            return self._index(epoch).read_bytes()
        except FileNotFoundError:
            return None

    def _read_file(self, epoch: int, number: int, size: int) -> bytes:
        try:
            with self._path(epoch, number).open("rb") as file:
                data = file.read(size)
        except FileNotFoundError:
            data = b""
        if len(data) != size:
            raise MessageError(f"a damaged state file: {len(data)} bytes are there of {size}")
        return data

    def _index(self, epoch: int) -> Path:
        return self._folder / f"{epoch}.state"

    def _path(self, epoch: int, number: int) -> Path:
        return self._folder / f"{epoch}-{number}.log"


def _unpacked_index(data: bytes) -> tuple[int, dict[int, int]]:
    """The state's chunk, and the files that count with their bytes, in order.

    Raises:
        MessageError: the bytes are damaged.
    """
    messages = unpack_messages(data)
    sizes = messages[0].facts.get("files") if messages else None
    if not isinstance(sizes, dict) or not all(number.isdigit() for number in sizes):
        raise MessageError("a damaged state file: it names no files")
    return messages[0].chunk, {int(number): size for number, size in sizes.items()}


def _write(path: Path, parts: tuple[Part, ...]) -> None:
    """Put the parts at a file's beginning; what it held beyond them may stay."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        while parts:
            parts = rest_of(parts, os.writev(file, parts[:MAX_PARTS]))
    finally:
        os.close(file)
