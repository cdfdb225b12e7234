"""The open 3-D face kit: geometry, identity and expression shapes, read from a user's folder.

Shapes: V vertices, F triangles, K identity modes, E expressions. Lengths in centimetres, y up,
z toward the viewer. Source of the data: ICT-FaceKit (MIT) and MakeHuman hair (CC0).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

Array = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int32]

REGIONS: dict[str, tuple[int, int]] = {
    "face": (0, 9409),
    "head": (9409, 11248),
    "socket": (11248, 13294),
    "eye_socket": (13294, 14062),
    "gums": (14062, 17039),
    "teeth": (17039, 21451),
    "eye_left": (21451, 22221),
    "eye_right": (23021, 23791),
    "lashes": (25351, 26719),
}
"""Vertex ranges that are drawn; irises, fluid and the blend meshes are painted or left out."""

MATERIALS: dict[str, int] = {
    "face": 1,
    "head": 1,
    "socket": 3,
    "eye_socket": 7,
    "gums": 4,
    "teeth": 5,
    "eye_left": 6,
    "eye_right": 6,
    "lashes": 9,
}

# Multi-PIE 68 points: jaw 0-16, brows 17-26, nose 27-35, eyes 36-47, lips 48-67.
_LANDMARK_VERTICES = (
    "1225 1888 1052 367 1719 1722 2199 1447 966 3661 4390 3927 "
    "3924 2608 3272 4088 3443 268 493 1914 2044 1401 3615 4240 "
    "4114 2734 2509 978 4527 4942 4857 1140 2075 1147 4269 3360 "
    "1507 1542 1537 1528 1518 1511 3742 3751 3756 3721 3725 3732 "
    "5708 5695 2081 0 4275 6200 6213 6346 6461 5518 5957 5841 "
    "5702 5711 5533 6216 6207 6470 5517 5966"
)
LANDMARKS = np.array(_LANDMARK_VERTICES.split(), dtype=np.int32)

HAIR_STYLES = (
    "afro01",
    "bob01",
    "bob02",
    "braid01",
    "long01",
    "ponytail01",
    "short01",
    "short02",
    "short03",
    "short04",
)


class FaceKitError(ValueError):
    """The face kit folder is missing or does not hold what the renderer needs."""


@dataclass(frozen=True)
class HairMesh:
    """One hair style in MakeHuman's frame (decimetres)."""

    vertices_V3: Array
    uv_V2: Array
    triangles_F3: Ints


@dataclass(frozen=True)
class FaceKit:
    """Everything the renderer knows about heads before an identity is chosen."""

    vertices_V3: Array
    triangles_F3: Ints
    identity_KX: Array
    expression_EX: Array
    expression_names: tuple[str, ...]
    hair: dict[str, HairMesh]

    @cached_property
    def triangle_materials(self) -> Ints:
        """Material number of every triangle; 0 marks one that is not drawn."""
        region_V = np.zeros(len(self.vertices_V3), np.int32)
        for name, (start, stop) in REGIONS.items():
            region_V[start:stop] = MATERIALS[name]
        corners_F3 = region_V[self.triangles_F3]
        drawn_F = (corners_F3.min(axis=1) > 0) & (self._facing > -0.65)
        return np.where(drawn_F, corners_F3.max(axis=1), 0).astype(np.int32)

    @property
    def _facing(self) -> Array:
        """How far each triangle faces the viewer; the back is never seen in portraits."""
        corner = self.vertices_V3[self.triangles_F3]
        normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
        facing: Array = normal[:, 2] / np.maximum(np.linalg.norm(normal, axis=1), 1e-9)
        return facing

    @cached_property
    def normal_operator(self) -> sparse.csr_matrix:
        """Sparse [V, F] matrix that sums triangle normals into their vertices."""
        num_triangles = len(self.triangles_F3)
        columns = np.repeat(np.arange(num_triangles), 3)
        ones = np.ones(columns.size, np.float32)
        shape = (len(self.vertices_V3), num_triangles)
        return sparse.csr_matrix((ones, (self.triangles_F3.ravel(), columns)), shape=shape)

    @cached_property
    def neighbours(self) -> sparse.csr_matrix:
        """Sparse [V, V] row-normalised adjacency, for smoothing over the surface."""
        edges = np.concatenate([self.triangles_F3[:, (0, 1)], self.triangles_F3[:, (1, 2)]])
        edges = np.concatenate([edges, self.triangles_F3[:, (2, 0)]])
        rows, columns = np.concatenate([edges, edges[:, ::-1]]).T
        size = len(self.vertices_V3)
        ones = np.ones(rows.size, np.float32)
        links = sparse.csr_matrix((ones, (rows, columns)), shape=(size, size))
        degree = np.maximum(np.asarray(links.sum(axis=1)).ravel(), 1)
        return sparse.csr_matrix(sparse.diags(1 / degree) @ links).astype(np.float32)

    @cached_property
    def eyes(self) -> tuple[tuple[Array, float], tuple[Array, float]]:
        """Centre [3] and radius of the left and the right eyeball of the mean head."""
        return self._sphere("eye_left"), self._sphere("eye_right")

    def shape(self, weights_K: Array) -> Array:
        """Neutral head of an identity, [V, 3]."""
        offsets_X = weights_K.astype(np.float32) @ self.identity_KX
        return self.vertices_V3 + offsets_X.reshape(-1, 3)

    def express(self, neutral_V3: Array, expression_TE: Array) -> Array:
        """Heads [T, V, 3] of one identity under T expressions."""
        offsets_TX = expression_TE.astype(np.float32) @ self.expression_EX
        return neutral_V3[None] + offsets_TX.reshape(len(expression_TE), -1, 3)

    def normals(self, vertices_V3: Array) -> Array:
        """Area-weighted unit vertex normals [V, 3]."""
        return vertex_normals(vertices_V3, self.triangles_F3, self.normal_operator)

    def expression_index(self, name: str) -> int:
        """Column of a named expression shape; raises FaceKitError for an unknown name."""
        if name not in self.expression_names:
            raise FaceKitError(f"expression {name!r} is not in the face kit")
        return self.expression_names.index(name)

    def _sphere(self, region: str) -> tuple[Array, float]:
        start, stop = REGIONS[region]
        points = self.vertices_V3[start:stop].astype(np.float64)
        back = points[points[:, 2] < np.percentile(points[:, 2], 60)]  # without the cornea
        system = np.concatenate([2 * back, np.ones((len(back), 1))], axis=1)
        solution = np.linalg.lstsq(system, (back**2).sum(axis=1), rcond=None)[0]
        radius = float(np.sqrt(solution[3] + (solution[:3] ** 2).sum()))
        return solution[:3].astype(np.float32), radius


def vertex_normals(vertices_V3: Array, triangles_F3: Ints, operator_VF: sparse.csr_matrix) -> Array:
    """Area-weighted unit vertex normals [V, 3] through a sparse sum."""
    corner = vertices_V3[triangles_F3]
    a, b = corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]
    face_F3 = np.empty_like(a)  # written out: numpy.cross is several times slower
    face_F3[:, 0] = a[:, 1] * b[:, 2] - a[:, 2] * b[:, 1]
    face_F3[:, 1] = a[:, 2] * b[:, 0] - a[:, 0] * b[:, 2]
    face_F3[:, 2] = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    normals: Array = operator_VF @ face_F3
    lengths = np.sqrt((normals * normals).sum(axis=1, keepdims=True))
    unit: Array = normals / np.maximum(lengths, 1e-9)
    return unit


def load_facekit(folder: Path) -> FaceKit:
    """Read `ict_face_model_light.npz` and `makehuman_hair.npz`.

    Raises:
        FaceKitError: a file is missing, or the folder is a clone that was not imported.
    """
    head_path, hair_path = folder / "ict_face_model_light.npz", folder / "makehuman_hair.npz"
    if not head_path.is_file() and _is_clone(folder):
        raise FaceKitError(
            f"{folder} holds OBJ files: make the kit with python -m training.facekit_import "
            f"--ict {folder} --hair MAKEHUMAN_ASSETS --out KIT, then pass KIT"
        )
    for path in (head_path, hair_path):
        if not path.is_file():
            raise FaceKitError(f"face kit file {path} is missing; pass the folder that holds it")
    with np.load(head_path) as head:
        return FaceKit(
            vertices_V3=head["vertices"],
            triangles_F3=head["triangles"],
            identity_KX=_rows(head["identity_deltas"]),
            expression_EX=_rows(head["expression_deltas"]),
            expression_names=tuple(str(name) for name in head["expression_names"]),
            hair=_load_hair(hair_path),
        )


def _is_clone(folder: Path) -> bool:
    name = "generic_neutral_mesh.obj"
    return (folder / name).is_file() or (folder / "FaceXModel" / name).is_file()


def _rows(deltas: npt.NDArray[np.float16]) -> Array:
    return deltas.reshape(len(deltas), -1).astype(np.float32)


def _load_hair(path: Path) -> dict[str, HairMesh]:
    with np.load(path) as store:
        return {name: _hair_mesh(store, name) for name in HAIR_STYLES}


def _hair_mesh(store: np.lib.npyio.NpzFile, name: str) -> HairMesh:
    triangles, triangle_uv = store[f"{name}/triangles"], store[f"{name}/triangle_uv"]
    uv_V2 = np.zeros((len(store[f"{name}/vertices"]), 2), np.float32)
    uv_V2[triangles.ravel()] = store[f"{name}/uv"][triangle_uv.ravel()]
    return HairMesh(store[f"{name}/vertices"].astype(np.float32), uv_V2, triangles.astype(np.int32))
