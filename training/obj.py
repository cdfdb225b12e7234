"""Wavefront OBJ meshes as arrays: positions, texture coordinates and triangles.

V vertices, U texture coordinates, F triangles. Only `v`, `vt` and `f` lines count. A face of more
than three corners becomes a fan about its first corner, in the order of the file.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

_MAX_BYTES = 64 * 1024 * 1024


class ObjError(ValueError):
    """An OBJ file is missing, too large or not what it should be."""


@dataclass(frozen=True)
class ObjMesh:
    """One mesh; indices count from 0."""

    vertices_V3: Floats
    uv_U2: Floats
    triangles_F3: Ints
    triangle_uv_F3: Ints


def read_obj(path: Path) -> ObjMesh:
    """Read a mesh whose faces all carry texture coordinates.

    Raises:
        ObjError: the file cannot be read, or a line or an index of it is wrong.
    """
    lines = _lines(path)
    vertices_V3, uv_U2 = _table(lines, "v", 3, path), _table(lines, "vt", 2, path)
    faces = [line.split()[1:] for line in lines if line.startswith("f ")]
    sizes = (len(vertices_V3), len(uv_U2))
    try:
        corners = [[_corner(text, sizes) for text in face] for face in faces]
    except (ValueError, IndexError):
        raise ObjError(f"{path}: a face has a corner without a place in the file") from None
    fans = [(face[0], face[i], face[i + 1]) for face in corners for i in range(1, len(face) - 1)]
    if not fans:
        raise ObjError(f"{path}: holds no faces")
    triangles_F32 = np.array(fans, np.int32)
    return ObjMesh(vertices_V3, uv_U2, triangles_F32[..., 0], triangles_F32[..., 1])


def read_vertices(path: Path) -> Floats:
    """Read only the positions [V, 3].

    Raises:
        ObjError: the file cannot be read, or a position is not three finite numbers.
    """
    return _table(_lines(path), "v", 3, path)


def _lines(path: Path) -> list[str]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ObjError(f"{path}: larger than {_MAX_BYTES >> 20} MiB; give the original file")
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise ObjError(f"{path}: cannot be read: {error.strerror}") from error


def _table(lines: list[str], key: str, width: int, path: Path) -> Floats:
    prefix = f"{key} "
    rows = [line.split()[1 : 1 + width] for line in lines if line.startswith(prefix)]
    try:
        table = np.array(rows, np.float64).reshape(-1, width).astype(np.float32)
    except ValueError:
        raise ObjError(f"{path}: a {key!r} line does not hold {width} numbers") from None
    if not np.isfinite(table).all():
        raise ObjError(f"{path}: a {key!r} line holds a number that is not finite")
    return table


def _corner(text: str, sizes: tuple[int, int]) -> tuple[int, int]:
    """Position and texture index of "7/9" or "7/9/2"; negative ones count from the end."""
    vertex, uv = (int(part) for part in text.split("/")[:2])
    found = (
        vertex - 1 if vertex > 0 else sizes[0] + vertex,
        uv - 1 if uv > 0 else sizes[1] + uv,
    )
    if not all(0 <= index < size for index, size in zip(found, sizes, strict=True)):
        raise IndexError(text)
    return found
