"""Where jobs keep what, and what they may read: folders, limits, and URLs through fsspec.

Covered: only allowed schemes are opened; files only below allowed folders, links resolved; sizes
are bounded while reading; what is read once is kept by its checksum, so that a job's input cannot
change under it.
Not covered: where an allowed web host leads to (`https` is not allowed unless asked for), and
secrets of storages, which their own libraries read from the environment.
"""

import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec

from services.job_queue import JobRefused, QueueFull

BLOCK_BYTES = 1 << 20
UPLOAD_SCHEME = "upload"
RESULT_SCHEME = "job"
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://")
_UPLOAD = re.compile(r"upload://([0-9a-f]{64}(?:\.[a-z0-9]{1,8})?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRules:
    """What jobs may read and write, and how much; sizes in bytes.

    `schemes` are fsspec's (`s3`, `https`); `roots` are folders whose files may be named.
    """

    schemes: frozenset[str] = frozenset()
    roots: tuple[Path, ...] = ()
    max_input_bytes: int = 4 << 30
    max_data_bytes: int = 200 << 30
    min_free_bytes: int = 256 << 20


@dataclass(frozen=True)
class JobFiles:
    """The data folder that all servers of one queue share."""

    folder: Path
    rules: FileRules = field(default_factory=FileRules)

    def __post_init__(self) -> None:
        """Make the folders."""
        for name in ("inputs", "work", "results"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)

    def work(self, job_id: str) -> Path:
        """What a job needs while it runs."""
        return self.folder / "work" / job_id

    def film(self, job_id: str) -> Path:
        """A finished film."""
        return self.folder / "results" / f"{job_id}.mp4"

    def captions(self, job_id: str) -> Path:
        """A finished film's captions, beside it."""
        return self.folder / "results" / f"{job_id}.vtt"

    def preview(self, job_id: str) -> Path:
        """A job's preview clip."""
        return self.folder / "results" / f"{job_id}.preview.mp4"

    def input(self, word: str, field_name: str = "input") -> Path:
        """The file that `keep` gave the word for.

        Raises:
            JobRefused: there is none.
        """
        match = _UPLOAD.fullmatch(word)
        path = None if match is None else self.folder / "inputs" / match[1]
        if path is None or not path.is_file():
            raise JobRefused(field_name, f"{field_name} {word[:80]!r} is not there: bring it again")
        os.utime(path)
        return path

    def keep(self, name: str, blocks: Iterator[bytes], field_name: str) -> str:
        """Keep a file's content; returns the word to name it by, the same for the same content.

        Raises:
            JobRefused: it is too large.
        """
        writing = self.begin_input()
        try:
            with writing.open("wb") as file:
                digest = _copied(blocks, file, self.rules.max_input_bytes, field_name)
            return self.end_input(writing, name, digest)
        finally:
            writing.unlink(missing_ok=True)

    def begin_input(self) -> Path:
        """A place for bytes that come."""
        return self.folder / "inputs" / f".{uuid.uuid4().hex}.writing"

    def end_input(self, writing: Path, name: str, sha256: str) -> str:
        """Have those bytes count; returns the word to name them by."""
        suffix = Path(name).suffix.lower()
        stem = f"{sha256}{suffix if re.fullmatch(r'[.][a-z0-9]{1,8}', suffix) else ''}"
        writing.replace(self.folder / "inputs" / stem)
        return f"{UPLOAD_SCHEME}://{stem}"

    def fetch(self, url: str, field_name: str) -> str:
        """Keep what a path or URL leads to, if it may be read.

        Raises:
            JobRefused: it may not, it is not there, or it is too large.
        """
        if _UPLOAD.fullmatch(url):
            self.input(url, field_name)
            return url
        with self._opened(url, field_name) as file:
            return self.keep(
                url.rsplit("/", 1)[-1], iter(lambda: file.read(BLOCK_BYTES), b""), field_name
            )

    def _opened(self, url: str, field_name: str) -> Any:
        """A file to read."""
        self.require_allowed(url, field_name)
        try:
            return fsspec.open(url, "rb", **_options(url)).open()
        except (OSError, ValueError, ImportError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise JobRefused(field_name, f"{url[:200]} cannot be read: {reason}") from error

    def require_allowed(self, url: str, field_name: str) -> None:
        """Refuse what may be neither read nor written.

        Raises:
            JobRefused: says what may.
        """
        match = _SCHEME.match(url)
        if match is None or match[1] == "file":
            path = Path(url[len("file://") :] if match else url)
            if "\0" in url or not any(_is_below(path, root) for root in self.rules.roots):
                raise JobRefused(field_name, f"{url[:200]} is not in a folder that jobs may use")
        elif match[1] not in self.rules.schemes or "::" in url:
            allowed = ", ".join(sorted(self.rules.schemes)) or "none"
            raise JobRefused(field_name, f"{url[:200]}: URLs allowed here: {allowed}")

    def deliver(self, path: Path, url: str) -> None:
        """Copy a finished file to a path or URL.

        Raises:
            OSError: it cannot be written.
        """
        match = _SCHEME.match(url)
        if match is None or match[1] == "file":
            target = Path(url[len("file://") :] if match else url)
            writing = target.with_name(f".{target.name}.writing")
            shutil.copyfile(path, writing)
            writing.replace(target)
            return
        with path.open("rb") as source, fsspec.open(url, "wb", **_options(url)) as goal:
            shutil.copyfileobj(source, goal, BLOCK_BYTES)

    def require_room(self) -> None:
        """Refuse more work where the disk, or what may be used of it, is full.

        Raises:
            QueueFull: says which.
        """
        if shutil.disk_usage(self.folder).free < self.rules.min_free_bytes:
            raise QueueFull("the server's disk is full: free some space", retry_after_s=60.0)
        used = self._used_bytes()
        if used > self.rules.max_data_bytes:
            raise QueueFull(
                f"jobs use {used >> 20} MiB, the limit is {self.rules.max_data_bytes >> 20} MiB: "
                "wait until results are forgotten",
                retry_after_s=600.0,
            )

    def _used_bytes(self) -> int:
        """How much lies here; what workers remove meanwhile does not count."""
        used = 0
        for folder, _, names in os.walk(self.folder):
            for name in names:
                with suppress(FileNotFoundError):
                    used += Path(folder, name).stat().st_size
        return used

    def forget(self, job_id: str) -> None:
        """Remove all that a job left."""
        self.forget_work(job_id)
        for path in (self.film(job_id), self.captions(job_id), self.preview(job_id)):
            path.unlink(missing_ok=True)

    def forget_work(self, job_id: str) -> None:
        """Remove what a job needed while it ran."""
        shutil.rmtree(self.work(job_id), ignore_errors=True)

    def forget_inputs(self, before_s: float) -> None:
        """Remove inputs that nobody used since a time; those of waiting jobs were touched."""
        for path in (self.folder / "inputs").iterdir():
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < before_s:
                    path.unlink()


def _copied(blocks: Iterator[bytes], file: Any, max_bytes: int, field_name: str) -> str:
    """Write blocks to a file up to a limit; returns their checksum."""
    digest, size = hashlib.sha256(), 0
    for block in blocks:
        size += len(block)
        if size > max_bytes:
            raise JobRefused(field_name, f"{field_name} is over {max_bytes >> 20} MiB: cut it")
        digest.update(block)
        file.write(block)
    return digest.hexdigest()


def _is_below(path: Path, root: Path) -> bool:
    """Whether a path, links resolved, lies in a folder."""
    return path.resolve().is_relative_to(root.resolve())


def _options(url: str) -> dict[str, Any]:
    """A web host may not lead elsewhere, to where the caller could not go itself."""
    return {"allow_redirects": False} if url.startswith(("http://", "https://")) else {}
