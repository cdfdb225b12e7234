"""Where paint goes on the mean head: smooth masks at the vertices, sharpened in the shaders.

Everything is a function of the position on the mean head (cm), so it holds for every identity
and sticks to the skin under every expression. Shapes: V vertices, 2/3/4 components.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from training.facekit import LANDMARKS, REGIONS, Array, FaceKit

FAR = 9.0
"""Distance given to vertices that a stripe of paint cannot reach."""


@dataclass(frozen=True)
class Paint:
    """Vertex attributes of the mean head.

    Attributes:
        rest_V3: position on the mean head; on an eyeball the position in eyeball radii.
        skin_V4: flush of cheeks and nose, stubble, shadow round the eyes, scalp; each 0..1.
        lines_V4: signed distance to the lip line (cm, inside negative), way along the brow
            (0..1), signed distance across it (cm), ambient openness (0 dark .. 1 open).
        head_V: 1 on the head, falling to 0 down the neck.
    """

    rest_V3: Array
    skin_V4: Array
    lines_V4: Array
    head_V: Array


def paint_head(kit: FaceKit) -> Paint:
    """Compute the masks of the mean head."""
    points = kit.vertices_V3
    rest_V3 = points.copy()
    for name, (centre, radius) in zip(("eye_left", "eye_right"), kit.eyes, strict=True):
        start, stop = REGIONS[name]
        rest_V3[start:stop] = (points[start:stop] - centre) / radius
    along_V, across_V = _brow(points)
    lines = [_lip_distance(points), along_V, across_V, _openness(kit)]
    return Paint(
        rest_V3=rest_V3,
        skin_V4=np.stack(_skin_masks(points), axis=1).astype(np.float32),
        lines_V4=np.stack(lines, axis=1).astype(np.float32),
        head_V=smoothstep(-12.5, -6.5, points[:, 1] - 0.12 * points[:, 2]),
    )


def smoothstep(low: float, high: float, value: Array) -> Array:
    """Hermite step from 0 at `low` to 1 at `high`."""
    t = np.clip((value - low) / (high - low), 0, 1)
    step: Array = (t * t * (3 - 2 * t)).astype(np.float32)
    return step


def _blob(points: Array, centre: tuple[float, float, float], size: float) -> Array:
    mirrored = points * np.sign(points[:, :1] + 1e-6) ** np.array([1, 0, 0])
    mirrored = np.where(np.array([centre[0] > 0, False, False]), np.abs(mirrored), points)
    squared = ((mirrored - np.array(centre, np.float32)) ** 2).sum(axis=1)
    blob: Array = np.exp(-squared / (2 * size * size)).astype(np.float32)
    return blob


def _skin_masks(points: Array) -> list[Array]:
    x, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
    flush = _blob(points, (4.4, -0.2, 8.6), 1.9) * 0.8 + _blob(points, (0.01, 0.5, 12.6), 1.2)
    ears = smoothstep(7.6, 8.8, x) * smoothstep(-2, 0, y) * 0.8
    jaw = smoothstep(0.6, -2.0, y + 0.02 * x * x - 0.25 * smoothstep(4, 6, x))
    jaw = jaw * smoothstep(-9.6, -6.8, y) * smoothstep(1.0, 4.5, z)
    sideburn = smoothstep(4.6, 6.4, x) * smoothstep(2.8, 0.0, y) * smoothstep(2.0, 5.0, z)
    stubble = np.maximum(jaw, sideburn * smoothstep(-9, -7, y)) * (1 - smoothstep(7.4, 8.2, x))
    stubble = stubble * smoothstep(0.0, 0.8, np.hypot(x / 1.6, (y - 0.1)))
    shadow = _blob(points, (3.0, 2.2, 9.2), 0.75) + 0.6 * _blob(points, (1.5, 3.6, 9.5), 0.6)
    hairline = 9.9 - 0.045 * x * x
    scalp = smoothstep(-0.6, 0.8, y - hairline - 0.75 * np.maximum(0, 5.5 - z))
    scalp = np.maximum(scalp, smoothstep(4.2, 2.6, z) * smoothstep(-3.5, 0.0, y))
    scalp = np.maximum(scalp, smoothstep(0.0, 2.0, y - hairline))
    scalp = scalp * (1 - smoothstep(7.7, 8.1, x) * smoothstep(6.5, 5.0, y))
    return [np.clip(flush + ears, 0, 1), stubble, np.clip(shadow, 0, 1), scalp]


def _curve(points: Array, samples: int) -> Array:
    """Resample a polyline [P, 2] smoothly."""
    at = np.linspace(0, len(points) - 1, samples)
    axes = [ndimage.map_coordinates(points[:, i], [at], order=3, mode="nearest") for i in (0, 1)]
    return np.stack(axes, axis=1).astype(np.float32)


def _lip_distance(points: Array) -> Array:
    upper = _curve(points[LANDMARKS[48:55], :2], 61)
    lower = _curve(points[LANDMARKS[[54, 55, 56, 57, 58, 59, 48]], :2], 61)
    outline = np.concatenate([upper[:-1], lower[:-1]])
    distance = np.full(len(points), FAR, np.float32)
    near = (np.abs(points[:, 0]) < 4.5) & (points[:, 1] < 0) & (points[:, 1] > -7)
    near &= points[:, 2] > 8.0
    near[REGIONS["socket"][0] :] = False
    xy = points[near, :2]
    gap = np.sqrt(((xy[:, None] - outline[None]) ** 2).sum(axis=2)).min(axis=1)
    distance[near] = np.where(_inside(xy, outline), -gap, gap)
    return distance


def _inside(xy: Array, outline: Array) -> np.ndarray:
    following = np.roll(outline, -1, axis=0)
    above = outline[None, :, 1] > xy[:, None, 1]
    crosses = above != (following[None, :, 1] > xy[:, None, 1])
    rise = following[:, 1] - outline[:, 1]
    rise = np.where(np.abs(rise) < 1e-9, 1e-9, rise)
    at = (following - outline)[None, :, 0] * (xy[:, None, 1] - outline[None, :, 1]) / rise
    left = xy[:, None, 0] < at + outline[None, :, 0]
    result: np.ndarray = (crosses & left).sum(axis=1) % 2 == 1
    return result


def _brow(points: Array) -> tuple[Array, Array]:
    """Way along (0 nose .. 1 temple) and signed distance across the brow line."""
    line = _curve(points[LANDMARKS[22:27], :2] + np.array([0, -0.12], np.float32), 81)
    along = np.full(len(points), 2.0, np.float32)
    across = np.full(len(points), FAR, np.float32)
    xy = np.stack([np.abs(points[:, 0]), points[:, 1]], axis=1)
    near = (xy[:, 0] > 0.2) & (xy[:, 0] < 7.2) & (np.abs(xy[:, 1] - 5.8) < 2.6)
    near &= points[:, 2] > 5.5
    near[REGIONS["head"][0] :] = False
    gaps = xy[near][:, None] - line[None]
    nearest = (gaps**2).sum(axis=2).argmin(axis=1)
    direction = np.gradient(line, axis=0)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    own_gap, own_way = gaps[np.arange(len(nearest)), nearest], direction[nearest]
    forward = (own_gap * own_way).sum(axis=1)
    length = np.linalg.norm(np.diff(line, axis=0), axis=1).sum()
    along[near] = nearest / 80 + forward / length
    across[near] = own_gap[:, 1] * own_way[:, 0] - own_gap[:, 0] * own_way[:, 1]
    return along, across


def _openness(kit: FaceKit) -> Array:
    """Cheap ambient occlusion: how far a vertex lies below its smoothed surroundings."""
    normals = kit.normals(kit.vertices_V3)
    smooth, total = kit.vertices_V3, np.zeros(len(normals), np.float32)
    for step in range(1, 41):
        smooth = kit.neighbours @ smooth
        if step in (3, 10, 40):
            depth = ((smooth - kit.vertices_V3) * normals).sum(axis=1)
            total += np.clip(depth, -0.06, 0.5) * {3: 2.6, 10: 1.2, 40: 0.5}[step]
    y, z = kit.vertices_V3[:, 1], kit.vertices_V3[:, 2]
    chin = smoothstep(-6.6, -8.4, y) * smoothstep(-13.0, -9.0, y)
    chin = chin * smoothstep(0.0, 4.0, z) * (z < 9.5)
    result: Array = np.clip(1 - np.maximum(total, -0.12) - 0.35 * chin, 0.25, 1.1)
    return result
