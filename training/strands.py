"""Hair grown strand by strand on a person's own skull: guides that fall, and locks around them.

Shapes: R roots (drawn strands), G guides, P points a strand. Lengths in centimetres, head space.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from training.facekit import REGIONS, Array, FaceKit
from training.hairstyle import CUTS, Cut, comb
from training.paint import smoothstep

NUM_STRANDS, NUM_GUIDES, NUM_POINTS = 6000, 460, 11
SKULL_CENTRE = np.array([0.0, 4.5, 1.0], np.float32)


@dataclass(frozen=True)
class Strands:
    """Grown hair.

    Attributes:
        points_RP3: from root to tip; a cut strand repeats its last point.
        tint_R: own brightness of each strand around 1.
        width_R: cm.
        outer_RP: 0 at the skull to 1 at the surface of the hair.
    """

    points_RP3: Array
    tint_R: Array
    width_R: Array
    outer_RP: Array


def thinned(strands: Strands, every: int) -> Strands:
    """Every so many strands, so much wider: enough to cast a shadow."""
    return Strands(
        strands.points_RP3[::every],
        strands.tint_R[::every],
        strands.width_R[::every] * every,
        strands.outer_RP[::every],
    )


class Skull:
    """How far the skin lies from the skull's centre in every direction."""

    def __init__(self, vertices_V3: Array, shift_3: Array, *, with_ears: bool) -> None:
        """Take the head above the neck, with the ears or without."""
        stop = REGIONS["head"][1]
        surface = vertices_V3[:stop][vertices_V3[:stop, 1] > -5]
        if not with_ears:
            surface = surface[np.abs(surface[:, 0]) < 8.0]
        self.centre_3 = SKULL_CENTRE + shift_3
        offsets = surface - self.centre_3
        self._radii = np.linalg.norm(offsets, axis=1)
        self._tree = cKDTree(offsets / self._radii[:, None])

    def settle(self, points_N3: Array, clearance_N: Array, hug: float = 0.0) -> Array:
        """Points at least `clearance_N` off the skin; below the ears they hang freely.

        `hug` takes back that share of any greater distance.
        """
        return self.settle_and_measure(points_N3, clearance_N, hug)[0]

    def settle_and_measure(
        self, points_N3: Array, clearance_N: Array, hug: float = 0.0
    ) -> tuple[Array, Array]:
        """The same, and how far each point then lies off the skin."""
        own = points_N3 - self.centre_3
        radius = np.maximum(np.sqrt((own * own).sum(axis=1)), 1e-6)
        skin = self._radii[self._tree.query(own / radius[:, None], k=1)[1]]
        wanted = skin + 0.06 + clearance_N
        applies = smoothstep(-4.5, -0.5, points_N3[:, 1])
        stretch = wanted / radius - 1
        stretch = np.where(stretch > 0, stretch, stretch * hug) * applies
        settled: Array = self.centre_3 + own * (1 + stretch)[:, None]
        return settled.astype(np.float32), radius * (1 + stretch) - skin


def grow_hair(kit: FaceKit, scalp_V: Array, vertices_V3: Array, style: str, seed: int) -> Strands:
    """Grow a style on a head; the seed chooses its lengths, parting and disorder."""
    rng = np.random.default_rng(seed)
    cut = CUTS[style](rng)
    shift = (vertices_V3 - kit.vertices_V3)[: REGIONS["head"][1]]
    shift = shift[kit.vertices_V3[: len(shift), 1] > 4].mean(axis=0)
    skull = Skull(vertices_V3, shift, with_ears=cut.over_ears)
    roots_R3, mean_R3 = _roots(kit, scalp_V, vertices_V3, cut, rng)
    chosen = rng.permutation(len(roots_R3))[:NUM_GUIDES]
    guides_GP3 = _grow_guides(skull, roots_R3[chosen], mean_R3[chosen], cut, rng)
    points, height = _locks(skull, roots_R3, guides_GP3, cut, rng)
    points = _trim(points, cut, rng)
    deep = np.percentile(height, 92) + 0.3
    tint = np.exp(rng.normal(0, 0.17, len(points)))
    width = cut.width_cm * rng.uniform(0.6, 1.3, len(points))
    outer = np.clip(height / deep, 0, 1)
    return Strands(points, tint.astype(np.float32), width.astype(np.float32), outer)


def _roots(
    kit: FaceKit, scalp_V: Array, vertices_V3: Array, cut: Cut, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Points on the scalp of this head [R, 3] and the same points of the mean head.

    They stand closer where a viewer looks between them: at the front and along a parting.
    """
    faces = kit.triangles_F3
    faces = faces[faces.max(axis=1) < REGIONS["head"][1]]
    share = scalp_V[faces].mean(axis=1)
    corner = kit.vertices_V3[faces]
    area = np.linalg.norm(
        np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), axis=1
    )
    front = 0.25 + 0.75 * smoothstep(-7, -1, corner[:, :, 2].mean(axis=1))
    x, y, z = corner.mean(axis=1).T
    front = front * (1 + 1.6 * smoothstep(4.0, 7.5, z))
    if cut.way == "part":
        front = front * (1 + 3 * np.exp(-(((x - cut.part_x) / 1.3) ** 2)) * smoothstep(8, 10, y))
    chance = area * front * smoothstep(0.12, 0.8, share)
    picked = rng.choice(len(faces), NUM_STRANDS, p=chance / chance.sum())
    mix = rng.dirichlet(np.ones(3), NUM_STRANDS).astype(np.float32)
    here = (vertices_V3[faces[picked]] * mix[:, :, None]).sum(axis=1)
    mean = (corner[picked] * mix[:, :, None]).sum(axis=1)
    return here.astype(np.float32), mean.astype(np.float32)


def _grow_guides(
    skull: Skull, roots_G3: Array, mean_G3: Array, cut: Cut, rng: np.random.Generator
) -> Array:
    outward = roots_G3 - skull.centre_3
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    along, lift, length = comb(cut, mean_G3, outward, rng)
    heading = _unit(along + outward * lift[:, None])
    step = (length / (NUM_POINTS - 1))[:, None]
    clearance = 0.06 + cut.volume_cm * rng.uniform(0.15, 1, len(roots_G3))
    points = [roots_G3]
    for index in range(1, NUM_POINTS):
        pull = cut.gravity * step * np.array([0, -1, 0], np.float32)
        stray = rng.normal(0, cut.disorder, heading.shape) * np.sqrt(step)
        heading = _unit(heading + pull + stray)
        heading = _unit(heading + _curtain(points[-1], cut) * step)
        free = points[-1] + heading * step
        rise = clearance * min(index / 3, 1.0)
        placed = skull.settle(free, rise, cut.hug)
        placed = np.where(placed[:, 1:2] < cut.floor_y, points[-1], placed)
        moved = placed - points[-1]
        going = np.linalg.norm(moved, axis=1, keepdims=True) > 1e-4
        heading = np.where(going, _unit(moved), heading)
        points.append(placed.astype(np.float32))
    return np.stack(points, axis=1)


def _curtain(points_G3: Array, cut: Cut) -> Array:
    """What draws hair aside from the face, stronger the farther it has come down."""
    x, y, z = points_G3.T
    inside = smoothstep(3.0, 6.0, z) * smoothstep(2.5, -0.5, y - cut.fringe_y + cut.arch * x * x)
    inside = inside * smoothstep(cut.face_half_cm + 1.2, cut.face_half_cm, np.abs(x))
    aside = np.where(x > cut.part_x, 1.0, -1.0) * inside * cut.curtain
    pull: Array = np.stack([aside, 0.3 * np.abs(aside), np.zeros_like(aside)], axis=1)
    return pull


def _locks(
    skull: Skull, roots_R3: Array, guides_GP3: Array, cut: Cut, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Strands that follow the nearest guide and close up with it toward the tip; their heights."""
    nearest = cKDTree(guides_GP3[:, 0]).query(roots_R3, k=2)[1]
    other = rng.random(len(roots_R3)) < 0.3
    own = np.where(other, nearest[:, 1], nearest[:, 0])
    guide = guides_GP3[own]
    way = np.linspace(0, 1, NUM_POINTS, dtype=np.float32)[None, :, None]
    length = rng.uniform(1 - cut.uneven, 1, (len(roots_R3), 1, 1)).astype(np.float32)
    place = (way[0, :, 0][None] * length[:, :, 0]) * (NUM_POINTS - 1)
    low = np.minimum(place.astype(int), NUM_POINTS - 2)
    rows = np.arange(len(guide))[:, None]
    part = (place - low)[..., None]
    path = guide[rows, low] * (1 - part) + guide[rows, low + 1] * part
    offset = (roots_R3 - guide[:, 0])[:, None]
    strands = path + offset * (1 - cut.clump * way**0.8)
    strands = strands + _curl(len(roots_R3), own, way, cut, rng)
    nowhere = np.zeros(strands.size // 3, np.float32)
    flat, height = skull.settle_and_measure(strands.reshape(-1, 3), nowhere)
    placed = flat.reshape(strands.shape)
    placed[:, 0] = roots_R3
    return placed, height.reshape(strands.shape[:2])


def _curl(count: int, guide_R: np.ndarray, way: Array, cut: Cut, rng: np.random.Generator) -> Array:
    """Waves and coils, mostly shared by a lock, and each strand's own flight."""
    phase = rng.uniform(0, 2 * np.pi, NUM_GUIDES)[guide_R] + rng.normal(0, cut.frizz, count)
    turn = cut.turns * rng.uniform(0.8, 1.25, NUM_GUIDES)[guide_R]
    angle = phase[:, None] + 2 * np.pi * turn[:, None] * way[..., 0]
    coil = np.stack([np.cos(angle), 0.5 * np.sin(1.3 * angle), np.sin(angle)], axis=2)
    stray = rng.normal(0, 1, (count, 1, 3)) * way**1.5 * cut.stray_cm
    result: Array = coil * cut.coil_cm * np.minimum(way * 4, 1) + stray
    return result.astype(np.float32)


def _trim(points_RP3: Array, cut: Cut, rng: np.random.Generator) -> Array:
    """Cut what would hang over the face: a strand that enters it repeats its last point."""
    x, y, z = points_RP3[..., 0], points_RP3[..., 1], points_RP3[..., 2]
    ragged = rng.normal(0, cut.ragged_cm, (len(points_RP3), 1))
    edge = cut.fringe_y + ragged + cut.fringe_slope * x - cut.arch * x * x
    half_width = cut.face_half_cm - 0.12 * np.maximum(0, 3.0 - y)
    over = (z > 4.5) & (np.abs(x) < half_width) & (y < edge)
    gone = np.maximum.accumulate(over, axis=1)
    last = np.where(gone, 0, np.arange(points_RP3.shape[1])[None])
    kept = np.maximum.accumulate(last, axis=1)
    trimmed: Array = np.take_along_axis(points_RP3, kept[..., None], axis=1)
    return trimmed


def _unit(vectors: Array) -> Array:
    unit: Array = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)
    return unit
