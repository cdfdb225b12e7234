"""One person's geometry: head, clothes and eyeballs that look under any expression, and hair.

Shapes: N vertices, E expressions. Lengths in centimetres.
"""

from __future__ import annotations

import numpy as np

from training.camera import NECK_PIVOT
from training.facekit import LANDMARKS, REGIONS, Array, FaceKit, Ints
from training.identity import Identity
from training.paint import Paint, smoothstep
from training.strands import Strands, grow_hair

Gaze = tuple[float, float]


class Head:
    """Geometry of one identity."""

    def __init__(self, kit: FaceKit, paint: Paint, identity: Identity) -> None:
        """Shape, dress and comb the head of an identity."""
        self._kit, self._paint, self._identity = kit, paint, identity
        plain = kit.shape(identity.weights_K)
        self.hair: Strands | None = None
        if identity.hair_style is not None:
            scalp_V = paint.skin_V4[:, 3]
            self.hair = grow_hair(kit, scalp_V, plain, identity.hair_style, identity.hair_seed)
        self.neutral_V3 = dress(kit, plain, identity)
        waist = np.abs(kit.vertices_V3[:11248, 1] - NECK_PIVOT[1]) < 1.5
        self.pivot_3 = NECK_PIVOT + (plain - kit.vertices_V3)[:11248][waist].mean(axis=0)

    def pose(self, expression_E: Array, gaze: Gaze) -> Array:
        """Vertices [N, 3]; gaze is (to the viewer's right, up) in radians."""
        vertices = self._kit.express(self.neutral_V3, expression_E[None])[0]
        for name, (centre, _) in zip(("eye_left", "eye_right"), self._kit.eyes, strict=True):
            part = slice(*REGIONS[name])
            shift = self.neutral_V3[part].mean(axis=0) - self._kit.vertices_V3[part].mean(axis=0)
            own = centre + shift
            vertices[part] = (vertices[part] - own) @ _look(gaze).T + own
        posed: Array = vertices
        return posed

    def normals(self, vertices_N3: Array) -> Array:
        """Unit normals [N, 3] of posed vertices."""
        return self._kit.normals(vertices_N3)

    def landmarks(self, vertices_N3: Array) -> Array:
        """The 68 points [68, 3] of posed vertices."""
        return vertices_N3[LANDMARKS]

    def landmark_track(self, expression_TE: Array) -> Array:
        """The 68 points [T, 68, 3] under T expressions, without posing the rest."""
        shapes = self._kit.expression_EX.reshape(expression_TE.shape[1], -1, 3)[:, LANDMARKS]
        track: Array = self.neutral_V3[LANDMARKS] + np.einsum(
            "te,epc->tpc", expression_TE.astype(np.float32), shapes
        )
        return track

    def attributes(self) -> Array:
        """Fixed attributes [N, 13]: rest 3, skin 4, lines 4, material, headness."""
        paint = self._paint
        skin = paint.skin_V4.copy()
        for name in ("eye_left", "eye_right"):
            skin[slice(*REGIONS[name]), :3] = paint.rest_V3[slice(*REGIONS[name])]
        kinds = _vertex_materials(self._kit)
        head = np.concatenate(
            [paint.rest_V3, skin, paint.lines_V4, kinds[:, None], paint.head_V[:, None]], axis=1
        )
        return head.astype(np.float32)

    def triangles(self) -> dict[str, Ints]:
        """Vertex indices of every draw call; `closed` is all of the head but lashes."""
        kinds, faces = self._kit.triangle_materials, self._kit.triangles_F3
        skin = faces[kinds == 1]
        rest_V3 = self._kit.vertices_V3
        bare = (rest_V3[:, 1] >= collar_limit(rest_V3, self._identity) - 0.05)[skin]
        groups = {
            "skin": skin[bare.any(axis=1)],
            "cloth": skin[~bare.all(axis=1)],
            "interior": faces[np.isin(kinds, (3, 4, 5, 7))],
            "eyes": faces[kinds == 6],
            "lashes": faces[kinds == 9],
        }
        groups["closed"] = np.concatenate([skin, groups["interior"], groups["eyes"]])
        return groups


def dress(kit: FaceKit, plain_V3: Array, identity: Identity) -> Array:
    """Widen the shoulders beyond the scan's cut and lift the cloth off the skin."""
    rest = kit.vertices_V3
    stop = REGIONS["head"][1]
    x, y = np.abs(rest[:, 0]), rest[:, 1]
    wide = smoothstep(5.0, 12.5, x) * smoothstep(-9.5, -13.5, y)
    wide[stop:] = 0
    dressed = plain_V3.copy()
    dressed[:, 0] *= 1 + 0.75 * wide
    dressed[:, 1] -= 1.2 * wide
    depth = collar_limit(rest, identity) - y
    lift = smoothstep(0.0, 0.35, depth) * 0.22
    lift[stop:] = 0
    return dressed + kit.normals(plain_V3) * lift[:, None]


def collar_limit(rest_V3: Array, identity: Identity) -> Array:
    """Height below which the mean head's skin is covered; the skin shader has the same rule."""
    x, z = np.abs(rest_V3[:, 0]), rest_V3[:, 2]
    neckline = identity.neckline * np.maximum(0, 4.5 - x) * smoothstep(0, 3, z)
    limit: Array = identity.collar_cm + 0.25 * np.maximum(0, 3 - z) - neckline
    return limit


def _vertex_materials(kit: FaceKit) -> Array:
    kinds = np.zeros(len(kit.vertices_V3), np.float32)
    for kind in (1, 3, 4, 5, 6, 7, 9):
        kinds[kit.triangles_F3[kit.triangle_materials == kind].ravel()] = kind
    return kinds


def _look(gaze: Gaze) -> Array:
    across, up = gaze
    ca, sa, cu, su = np.cos(across), np.sin(across), np.cos(up), np.sin(up)
    about_y = np.array([[ca, 0, sa], [0, 1, 0], [-sa, 0, ca]], np.float32)
    about_x = np.array([[1, 0, 0], [0, cu, su], [0, -su, cu]], np.float32)
    look: Array = (about_y @ about_x).astype(np.float32)
    return look
