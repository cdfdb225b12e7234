"""A checksum of weights by their content, fast enough for each start of a render.

Covered: any byte changed in a file of up to 256 MiB; in larger ones a changed size, name, shape or
place of a tensor (the safetensors header), and any byte in the first or last mebibyte of the data.
Not covered: bytes in the middle of larger files. Reading tens of gigabytes at each start would cost
minutes, and training or conversion changes all of a file.
"""

import hashlib
from pathlib import Path
from typing import Any, BinaryIO

WHOLE_BYTES = 256 << 20
EDGE_BYTES = 1 << 20
MAX_HEADER_BYTES = 100 << 20  # as the format has it
_LENGTH_BYTES = 8


def weights_digest(path: Path, *, whole_bytes: int = WHOLE_BYTES) -> str:
    """SHA-256 (hexadecimal) of a file of at most `whole_bytes`; else of its size, header and edges.

    Raises:
        OSError: it cannot be read.
    """
    num_bytes = path.stat().st_size
    with path.open("rb") as file:
        if num_bytes <= whole_bytes:
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256(num_bytes.to_bytes(_LENGTH_BYTES, "little"))
        _add_edges(file, num_bytes, digest)
    return digest.hexdigest()


def _add_edges(file: BinaryIO, num_bytes: int, digest: Any) -> None:
    """Take in the header, and the first and last bytes behind it."""
    length = file.read(_LENGTH_BYTES)
    digest.update(length)
    digest.update(file.read(min(int.from_bytes(length, "little"), MAX_HEADER_BYTES)))
    digest.update(file.read(EDGE_BYTES))
    file.seek(max(file.tell(), num_bytes - EDGE_BYTES))
    digest.update(file.read(EDGE_BYTES))
