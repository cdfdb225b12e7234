"""Finished segments of a render in a folder: all of a segment counts, or nothing.

`NNNNNN.mp4` holds the pictures (absent where there are none), `NNNNNN.state` the state that the
segment leaves (safetensors), `NNNNNN.manifest` (msgpack) what belongs to it, with sizes and
checksums. Each is written under another name, forced to disk and renamed, the manifest last: what
no manifest names does not count. Whatever is damaged is found by its checksum and made again.
`commits.log` has the index of each segment that was made to count, one a line, in that order.

`fingerprint` says what is rendered of what: segments of another render in the folder do not count.
"""

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import msgpack
from pydantic import TypeAdapter, ValidationError
from safetensors import safe_open
from safetensors.torch import save_file

from pipeline.segment_plan import is_state_kept
from pipeline.session_state import SessionState

VERSION = 1
MAX_MANIFEST_BYTES = 1 << 16
COMMITS = "commits.log"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file as it was written."""

    num_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What belongs to a segment; `media` is None where it holds no pictures."""

    version: int
    fingerprint: str
    index: int
    first_frame: int
    num_frames: int
    media: StoredFile | None
    state: StoredFile


_MANIFEST = TypeAdapter(Manifest)


@dataclass(frozen=True, slots=True)
class Health:
    """What can be used: segments whose pictures are whole, and whose states are."""

    whole: dict[int, Manifest]
    states: frozenset[int]


class SegmentStore:
    """One render's segments; one process writes at a time.

    Raises (all that write):
        OSError: the disk is full or gone; what counted before still counts.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        """Keep files in `folder`, which is made if missing."""
        self.folder, self.fingerprint = folder, fingerprint
        folder.mkdir(parents=True, exist_ok=True)

    def media_path(self, index: int) -> Path:
        """Where a segment's pictures are."""
        return self.folder / f"{index:06d}.mp4"

    def writing_path(self, index: int) -> Path:
        """Where a segment's pictures are written before they count."""
        return self.folder / f"{index:06d}.mp4.writing"

    def _state_path(self, index: int) -> Path:
        return self.folder / f"{index:06d}.state"

    def _manifest_path(self, index: int) -> Path:
        return self.folder / f"{index:06d}.manifest"

    def commit(
        self, index: int, *, first_frame: int, num_frames: int, state: SessionState
    ) -> Manifest:
        """Have a segment count: its pictures are at `writing_path`, unless there are none."""
        media = None
        if num_frames:
            media = settle(self.writing_path(index), self.media_path(index))
        writing = self._state_path(index).with_suffix(".state.writing")
        save_state(writing, state)
        manifest = Manifest(
            version=VERSION,
            fingerprint=self.fingerprint,
            index=index,
            first_frame=first_frame,
            num_frames=num_frames,
            media=media,
            state=settle(writing, self._state_path(index)),
        )
        write_atomically(self._manifest_path(index), msgpack.packb(asdict(manifest)))
        with (self.folder / COMMITS).open("a", encoding="ascii") as log:
            log.write(f"{index}\n")
        self._drop_states(index)
        return manifest

    def _drop_states(self, last: int) -> None:
        """Remove states that no repair needs."""
        for path in self.folder.glob("*.state"):
            with contextlib.suppress(ValueError):
                if int(path.stem) < last and not is_state_kept(int(path.stem), last):
                    path.unlink(missing_ok=True)

    def check(self, num_segments: int, on_each: Callable[[], None] = lambda: None) -> Health:
        """Read everything and say what is whole; `on_each` may raise to stop."""
        for path in self.folder.glob("*.writing"):
            path.unlink(missing_ok=True)
        whole: dict[int, Manifest] = {}
        states: set[int] = set()
        for index in range(num_segments):
            on_each()
            manifest = self._manifest(index)
            if manifest is None:
                continue
            if manifest.media is None or is_whole(self.media_path(index), manifest.media):
                whole[index] = manifest
            if is_whole(self._state_path(index), manifest.state):
                states.add(index)
        return Health(whole, frozenset(states))

    def _manifest(self, index: int) -> Manifest | None:
        """A segment's manifest, if there is one of this render and it can be read."""
        path = self._manifest_path(index)
        try:
            if path.stat().st_size > MAX_MANIFEST_BYTES:
                return None
            manifest = _MANIFEST.validate_python(msgpack.unpackb(path.read_bytes()))
        except (FileNotFoundError, ValueError, ValidationError, msgpack.UnpackException):
            return None
        is_ours = (manifest.version, manifest.fingerprint, manifest.index) == (
            VERSION,
            self.fingerprint,
            index,
        )
        return manifest if is_ours else None

    def state(self, index: int) -> SessionState:
        """The state after a segment that `check` found whole."""
        return load_state(self._state_path(index))


def save_state(path: Path, state: SessionState) -> None:
    """Write a session's state as safetensors; its numbers are in the header."""
    numbers = {name: str(value) for name, value in state.numbers.items()}
    try:
        save_file(state.tensors, path, metadata=numbers)
    except Exception as error:
        # safetensors has an error of its own for a full disk, with the number in its text only.
        if f"os error {errno.ENOSPC}" in str(error):
            raise OSError(errno.ENOSPC, "No space left on device", str(path)) from error
        raise


def load_state(path: Path) -> SessionState:
    """Read what `save_state` wrote."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
        numbers: Mapping[str, str] = file.metadata() or {}
    return SessionState(
        tensors=tensors, numbers={name: int(value) for name, value in numbers.items()}
    )


def settle(writing: Path, path: Path) -> StoredFile:
    """Give a written file its name once it is on the disk; returns what it is."""
    with writing.open("rb") as file:
        os.fsync(file.fileno())
    stored = stored_file(writing)
    writing.replace(path)
    return stored


def write_atomically(path: Path, data: bytes) -> None:
    """Put bytes at a path, on the disk, in one step."""
    writing = path.with_name(f"{path.name}.writing")
    with writing.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    writing.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def stored_file(path: Path) -> StoredFile:
    """A file's size and checksum, read in constant memory."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return StoredFile(num_bytes=file.tell(), sha256=sha256)


def is_whole(path: Path, expected: StoredFile) -> bool:
    """Whether a file is as it was written."""
    try:
        return path.stat().st_size == expected.num_bytes and stored_file(path) == expected
    except OSError:
        return False
