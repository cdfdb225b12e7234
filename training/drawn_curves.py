"""Curves and the flat meshes between them, of which every drawn character is made.

Points are [P, 2] px of the character's sheet: x to the viewer's right from the face's middle,
y downward as in a 256 x 256 picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline

from training.facekit import Array, Ints


@dataclass(frozen=True)
class Mesh:
    """Triangles [F, 3] over points [P, 2]."""

    points_P2: Array
    triangles_F3: Ints


def smooth_curve(controls: object, samples: int, closed: bool = False) -> Array:
    """Points [samples, 2] along a cubic spline through control points."""
    knots = np.asarray(controls, np.float64)
    if closed:
        knots = np.concatenate([knots, knots[:1]])
    steps = np.sqrt(np.maximum(np.linalg.norm(np.diff(knots, axis=0), axis=1), 1e-6))
    along = np.concatenate([[0], np.cumsum(steps)])
    spline = CubicSpline(along, knots, bc_type="periodic" if closed else "natural")
    curve: Array = spline(np.linspace(0, along[-1], samples)).astype(np.float32)
    return curve


def resampled(curve_P2: Array, samples: int) -> Array:
    """The same way in equal steps."""
    step = np.linalg.norm(np.diff(curve_P2, axis=0), axis=1)
    along = np.concatenate([[0], np.cumsum(step)])
    wanted = np.linspace(0, along[-1], samples)
    axes = [np.interp(wanted, along, curve_P2[:, axis]) for axis in (0, 1)]
    even: Array = np.stack(axes, axis=1).astype(np.float32)
    return even


def mirrored(half: object) -> Array:
    """A symmetric line of control points: the given right half, and its mirror image before it.

    A first point on the middle line is not repeated.
    """
    right = np.asarray(half, np.float32)
    left = right[::-1] * np.array([-1, 1], np.float32)
    return np.concatenate([left[:-1] if right[0, 0] == 0 else left, right])


def between(first_P2: Array, second_P2: Array, rows: int) -> Array:
    """Points [rows * P, 2] of a band whose first row is one curve and whose last the other."""
    share = np.linspace(0, 1, rows, dtype=np.float32)[:, None, None]
    band: Array = (first_P2 + share * (second_P2 - first_P2)).reshape(-1, 2).astype(np.float32)
    return band


def grid_triangles(rows: int, columns: int) -> Ints:
    """Triangles of a band with rows x columns points."""
    corner = np.arange((rows - 1) * columns).reshape(rows - 1, columns)[:, :-1].ravel()
    first = np.stack([corner, corner + 1, corner + columns], axis=1)
    second = np.stack([corner + 1, corner + columns + 1, corner + columns], axis=1)
    return np.concatenate([first, second]).astype(np.int32)


def band(first_P2: Array, second_P2: Array, rows: int = 2) -> Mesh:
    """The surface between two curves of equal length."""
    return Mesh(between(first_P2, second_P2, rows), grid_triangles(rows, len(first_P2)))


def normals(curve_P2: Array) -> Array:
    """Unit normals [P, 2], to the left of the way."""
    way = np.gradient(curve_P2, axis=0)
    length = np.maximum(np.linalg.norm(way, axis=1, keepdims=True), 1e-6)
    turned: Array = np.stack([way[:, 1], -way[:, 0]], axis=1) / length
    return turned


def sides(curve_P2: Array, width_P: Array | float) -> tuple[Array, Array]:
    """The two edges of a line of some width along a curve."""
    half = normals(curve_P2) * np.broadcast_to(width_P, len(curve_P2))[:, None] / 2
    return curve_P2 + half, curve_P2 - half


def down_px(width_P: Array) -> Array:
    """Steps [P, 2] straight down by some widths."""
    steps: Array = np.stack([np.zeros_like(width_P), width_P], axis=1).astype(np.float32)
    return steps


def stroke(curve_P2: Array, width_P: Array | float) -> Mesh:
    """A line of some width."""
    return band(*sides(curve_P2, width_P))


def tapered(samples: int, start: float = 0.0, end: float = 0.0, power: float = 0.6) -> Array:
    """Line widths [samples] that swell to 1 between two ends."""
    along = np.linspace(0, 1, samples)
    swell = np.sin(np.pi * along) ** power
    ramp = start * (1 - along) + end * along
    widths: Array = np.maximum(swell, ramp).astype(np.float32)
    return widths


def ring(centre: tuple[float, float], radii: tuple[float, float], samples: int = 40) -> Array:
    """Points [samples, 2] of an ellipse; the last meets the first."""
    angle = np.linspace(0, 2 * np.pi, samples)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    points: Array = (circle * np.array(radii) + np.array(centre)).astype(np.float32)
    return points


def disc(centre: tuple[float, float], radii: tuple[float, float], rings: int = 2) -> Mesh:
    """An ellipse; its first row of points is the centre, its last the rim."""
    rim = ring(centre, radii)
    return band(np.repeat(np.array([centre], np.float32), len(rim), axis=0), rim, rings)


def bumpy(curve_P2: Array, height: float, count: int) -> Array:
    """The curve with round bumps to its left, as curls have."""
    step = np.linalg.norm(np.diff(curve_P2, axis=0), axis=1)
    along = np.concatenate([[0], np.cumsum(step)])
    wave = np.abs(np.sin(np.pi * count * along / max(float(along[-1]), 1e-6)))
    moved: Array = curve_P2 + normals(curve_P2) * (height * wave**0.7)[:, None]
    return moved.astype(np.float32)
