"""A film on its way home: it has its name only once all of it is there."""

import hashlib
from pathlib import Path

import grpc
from viva.v1 import render_pb2

from services.client_words import reason_of


class DownloadBroken(ValueError):
    """What came is not the film that was announced: one line naming the file and the remedy."""


class FilmPart:
    """The bytes so far, in `NAME.part` beside the film; a download that broke off goes on there.

    Use it as a context manager: its file is open between.
    """

    def __init__(self, path: Path) -> None:
        """Bring a film to `path`."""
        self.path, self.part = path, path.with_name(f"{path.name}.part")
        self._file = self.part.open("ab")
        self._start = render_pb2.DownloadStart()

    def __enter__(self) -> "FilmPart":
        """The part."""
        return self

    def __exit__(self, _kind: object, error: object, _trace: object) -> None:
        """Keep what came for the next time, unless it cannot be the beginning of this film."""
        is_useless = not self._file.closed and not self._file.tell()
        self._file.close()
        if isinstance(error, grpc.RpcError):
            is_useless |= reason_of(error) == "PAST_THE_END"
        if is_useless:
            self.part.unlink(missing_ok=True)

    def request(self, render: str) -> render_pb2.DownloadResultRequest:
        """A download that leaves out what is there already."""
        return render_pb2.DownloadResultRequest(id=render, offset_bytes=self._file.tell())

    def take(self, response: render_pb2.DownloadResultResponse) -> None:
        """Keep what a message brings."""
        if response.WhichOneof("part") == "start":
            self._start = response.start
        self._file.write(response.data)

    def finish(self) -> None:
        """Give the film its name, if it is what was announced.

        Raises:
            DownloadBroken: it is not; nothing of it is left.
        """
        self._file.close()
        num_bytes, sha256 = self._start.size_bytes, self._start.sha256
        with self.part.open("rb") as file:
            is_whole = not sha256 or hashlib.file_digest(file, "sha256").hexdigest() == sha256
        if not is_whole or num_bytes not in (0, self.part.stat().st_size):
            self.part.unlink()
            raise DownloadBroken(f"{self.path.name} did not come as it is there: download it again")
        self.part.replace(self.path)
