"""A file that FFmpeg writes into and that forgets no error.

FFmpeg's MP4 muxer, given a path, does not report every failed write: data it still holds when
the disk is full is lost in silence when the file is finished. So the bytes go through here.
"""

import io
from pathlib import Path
from types import TracebackType
from typing import Self


class OutputFile:
    """An unbuffered file for `av.open(..., "w")`; keeps the first failure of a write.

    Raises:
        OSError: the file cannot be created.
    """

    def __init__(self, path: Path) -> None:
        """Create the file, or empty it."""
        # What FFmpeg calls the file and hands back: the path itself need not be UTF-8.
        self.name = "output.mp4"
        self._path = path
        self._file = io.FileIO(path, "w")
        self._error: OSError | None = None

    def write(self, data: bytes) -> int:
        """Write all of `data`, or raise."""
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            self._error = self._error or error
            raise
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move, and say where to."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Where the next byte goes."""
        return self._file.tell()

    def check(self) -> None:
        """Raise the first failure, if there was one."""
        if self._error is not None:
            raise self._error

    def open_again(self, _url: str, _flags: int, _options: dict[str, str]) -> io.FileIO:
        """What FFmpeg asks for to move the data behind the index: the same file, to read."""
        return io.FileIO(self._path, "r")

    def close(self) -> None:
        """Let go of the file; harmless twice."""
        self._file.close()

    def __enter__(self) -> Self:
        """The file itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of the file."""
        self.close()
