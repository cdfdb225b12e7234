"""Hair meshes fitted onto the mean head, and their bond to every identity.

Shapes: H hair vertices, V head vertices. Lengths in centimetres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse  # type: ignore[import-untyped]  # SciPy ships no types
from scipy.spatial import cKDTree  # type: ignore[import-untyped]  # as above

from training.facekit import REGIONS, Array, FaceKit, Ints
from training.paint import smoothstep

# Top of the skull (y) and middle of the skull (z) in each asset's own frame, decimetres: the
# assets were modelled on bodies of three heights.
FRAMES: dict[str, tuple[float, float]] = {
    "afro01": (8.5, 0.47),
    "bob01": (7.94, 0.47),
    "bob02": (7.94, 0.47),
    "braid01": (7.94, 0.49),
    "long01": (7.94, 0.40),
    "ponytail01": (7.94, 0.36),
    "short01": (9.47, 0.68),
    "short02": (9.45, 0.62),
    "short03": (7.94, 0.50),
    "short04": (8.50, 0.47),
}
LONG_STYLES = ("bob01", "bob02", "braid01", "long01")
CM_PER_UNIT = 9.8
SKULL_CENTRE = np.array([0.0, 4.5, 1.0], np.float32)


@dataclass(frozen=True)
class HairFit:
    """One style on the mean head.

    Attributes:
        vertices_H3: positions on the mean head.
        follow_HV: sparse weights: hair moves by these averages of the head's displacement.
        normal_operator: sparse [H, F] sum of triangle normals.
    """

    vertices_H3: Array
    uv_H2: Array
    triangles_F3: Ints
    follow_HV: sparse.csr_matrix
    normal_operator: sparse.csr_matrix


def fit_hair(kit: FaceKit, style: str) -> HairFit:
    """Place a style on the mean head, clear of the skull."""
    mesh = kit.hair[style]
    top, middle = FRAMES[style]
    placed = (mesh.vertices_V3 - np.array([0, top, middle], np.float32)) * CM_PER_UNIT
    placed += np.array([0, 14.7, 1.05], np.float32)
    placed = _clear_of_skull(kit, placed, over_ears=style in LONG_STYLES)
    columns = np.repeat(np.arange(len(mesh.triangles_F3)), 3)
    shape = (len(placed), len(mesh.triangles_F3))
    ones = np.ones(columns.size, np.float32)
    operator = sparse.csr_matrix((ones, (mesh.triangles_F3.ravel(), columns)), shape=shape)
    return HairFit(placed, mesh.uv_V2, mesh.triangles_F3, _follow(kit, placed), operator)


def _surface(kit: FaceKit) -> Ints:
    stop = REGIONS["head"][1]
    return np.flatnonzero(kit.vertices_V3[:stop, 1] > -5).astype(np.int32)


def _clear_of_skull(kit: FaceKit, points_H3: Array, over_ears: bool) -> Array:
    surface = kit.vertices_V3[_surface(kit)]
    if not over_ears:
        surface = surface[np.abs(surface[:, 0]) < 8.0]
    offsets = surface - SKULL_CENTRE
    radii = np.linalg.norm(offsets, axis=1)
    tree = cKDTree(offsets / radii[:, None])
    own = points_H3 - SKULL_CENTRE
    own_radius = np.maximum(np.linalg.norm(own, axis=1), 1e-6)
    near = tree.query(own / own_radius[:, None], k=4)[1]
    wanted = radii[near].max(axis=1) + 0.35
    applies = smoothstep(-3.0, 1.0, points_H3[:, 1]) * (own_radius > 3)
    stretch = np.maximum(wanted / own_radius, 1) - 1
    cleared: Array = SKULL_CENTRE + own * (1 + stretch * applies)[:, None]
    return cleared.astype(np.float32)


def _follow(kit: FaceKit, points_H3: Array) -> sparse.csr_matrix:
    surface = _surface(kit)
    surface = surface[np.abs(kit.vertices_V3[surface, 0]) < 8.2][::3]
    gaps, near = cKDTree(kit.vertices_V3[surface]).query(points_H3, k=24)
    weights = 1 / (0.6 + gaps)
    weights /= weights.sum(axis=1, keepdims=True)
    rows = np.repeat(np.arange(len(points_H3)), near.shape[1])
    shape = (len(points_H3), len(kit.vertices_V3))
    entries = (weights.ravel().astype(np.float32), (rows, surface[near].ravel()))
    return sparse.csr_matrix(entries, shape=shape)
