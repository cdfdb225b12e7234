"""Hair and headgear of drawn characters: what hangs behind the head and what lies on it.

Curves are given in units of the head: X in half widths of the face, Y 0 at the top of the skull
and 1 at the eyes.
"""

from __future__ import annotations

import numpy as np

from training.drawn_curves import Mesh, band, bumpy, disc, mirrored, smooth_curve
from training.drawn_identity import Character
from training.facekit import Array

SAMPLES = 81
COVERS_EARS = ("straight", "wavy", "bob", "curls", "hijab", "beanie", "afro")

_CAPS: dict[str, tuple[tuple[float, float], ...]] = {
    "long": ((0, -0.26), (0.48, -0.2), (0.86, 0.08), (1.09, 0.6), (1.12, 1.05), (1.08, 1.5)),
    "short": ((0, -0.24), (0.5, -0.18), (0.86, 0.08), (1.05, 0.5), (1.06, 0.85), (1.01, 1.2)),
    "quiff": ((0, -0.5), (0.45, -0.46), (0.82, -0.14), (1.03, 0.4), (1.05, 0.82), (1.01, 1.15)),
    "mop": ((0, -0.34), (0.55, -0.28), (1.0, 0.1), (1.18, 0.6), (1.15, 0.95), (1.04, 1.25)),
    "buzz": ((0, -0.06), (0.5, 0.01), (0.84, 0.22), (1.0, 0.55), (1.02, 0.85), (1.0, 1.1)),
}
_LINES: dict[str, tuple[tuple[float, float], ...]] = {
    "sweep": (
        (-1.0, 1.3), (-0.97, 1.0), (-0.86, 0.76), (-0.5, 0.62), (-0.05, 0.45), (0.32, 0.24),
        (0.44, 0.13), (0.54, 0.22), (0.72, 0.5), (0.9, 0.78), (0.99, 1.02), (1.0, 1.3),
    ),
    "wisps": (
        (-1.0, 1.3), (-0.97, 1.0), (-0.9, 0.72), (-0.62, 0.7), (-0.3, 0.52), (-0.05, 0.6),
        (0.2, 0.46), (0.5, 0.58), (0.72, 0.5), (0.9, 0.74), (0.98, 1.0), (1.0, 1.3),
    ),
}  # fmt: skip
_HALF_LINES: dict[str, tuple[tuple[float, float], ...]] = {
    "curtain": ((0, 0.12), (0.1, 0.2), (0.36, 0.42), (0.68, 0.62), (0.9, 0.88), (0.99, 1.3)),
    "bangs": ((0, 0.66), (0.4, 0.67), (0.72, 0.70), (0.88, 0.80), (0.96, 1.02), (1.0, 1.3)),
    "pulled": ((0, 0.24), (0.4, 0.28), (0.72, 0.44), (0.9, 0.72), (0.97, 0.98), (1.0, 1.25)),
    "crop": ((0, 0.36), (0.36, 0.34), (0.66, 0.38), (0.8, 0.6), (0.93, 0.88), (1.0, 1.16)),
    "cover": ((0, 0.16), (0.42, 0.2), (0.76, 0.42), (0.93, 0.85), (0.9, 1.5), (0.68, 2.15)),
    "beanie": ((0, 0.46), (0.4, 0.47), (0.72, 0.5), (0.92, 0.56), (1.02, 0.6), (1.06, 0.62)),
}


def place(person: Character, points: object) -> Array:
    """Head units to px of the sheet."""
    scale = np.array([person.face_width, person.eye_y - person.top_y], np.float32)
    origin = np.array([0, person.top_y], np.float32)
    placed: Array = np.asarray(points, np.float32) * scale + origin
    return placed


def cap_curves(person: Character) -> tuple[Array, Array] | None:
    """Outer edge and hairline of what lies on the head; nothing on a bald one."""
    style = person.hair_style
    if style == "bald":
        return None
    outer, inner = mirrored(_CAPS[_cap_name(style)]), _hairline(person)
    lift = person.volume if style not in ("buzz", "hijab", "beanie") else 1.0
    outer = outer * np.where(outer[:, 1:] < 0, np.array([1, lift]), 1)
    if style in ("quiff", "swept"):
        outer = outer + np.stack([0 * outer[:, 0], -0.09 * person.flip * outer[:, 0]], axis=1)
    top = smooth_curve(place(person, outer), SAMPLES)
    line = smooth_curve(place(person, inner), SAMPLES)
    if style in ("curly_top", "afro", "curls"):
        top = bumpy(top, 5.0 * person.volume, 13)
        line = bumpy(line, -2.0, 11)
    elif style == "mop":
        top = bumpy(top, 3.0, 7)
    return top, line


def back_shapes(person: Character) -> list[Mesh]:
    """What is seen behind head and shoulders, farthest first."""
    style, fw = person.hair_style, person.face_width
    if style in ("straight", "wavy", "bob", "curls", "hijab"):
        return [_hanging(person)]
    if style == "afro":
        centre, size = place(person, [(0, 0.62)])[0], 1.42 * fw * (0.8 + 0.2 * person.volume)
        rim = bumpy(_circle(centre, (size, size * 1.02)), 5.5, 26)
        return [band(np.repeat(centre[None], len(rim), axis=0), rim, 3)]
    if style == "bun":
        return [disc(tuple(place(person, [(0, -0.5)])[0]), (0.42 * fw, 0.38 * fw))]
    if style == "buns":
        spots = place(person, [(-0.78, -0.2), (0.78, -0.2)])
        return [disc(tuple(spot), (0.36 * fw, 0.35 * fw)) for spot in spots]
    if style == "ponytail":
        return [_tail(person, person.flip)]
    if style == "braids":
        return [bead for side in (-1, 1) for bead in _braid(person, side)]
    return []


def strands(person: Character, count: int) -> list[Array]:
    """Lines from the hairline up over the cap, as locks lie."""
    curves = cap_curves(person)
    if curves is None or person.hair_style in ("buzz", "hijab", "beanie"):
        return []
    top, line = curves
    rng = np.random.default_rng(person.seed)
    lines = []
    for at in np.sort(rng.uniform(0.16, 0.84, count)):
        root, tip = int(at * (SAMPLES - 1)), int((0.5 + 0.86 * (at - 0.5)) * (SAMPLES - 1))
        start, end = line[root], top[tip]
        reach = rng.uniform(0.45, 0.8)
        way = np.linspace(0.04, reach, 9)[:, None]
        bend = np.sin(np.pi * way) * np.array([3.0 * np.sign(at - 0.5), -1.0])
        lines.append((start + way * (end - start) + bend).astype(np.float32))
    return lines


def _cap_name(style: str) -> str:
    if style in ("quiff", "buzz", "mop"):
        return style
    if style in ("curly_top", "curls"):
        return "mop"
    return "short" if style in ("crop", "swept", "ponytail", "bun", "buns", "braids") else "long"


def _hairline(person: Character) -> Array:
    style = person.hair_style
    if style in ("crop", "quiff", "buzz", "curly_top"):
        line = mirrored(_HALF_LINES["crop"])
    elif style == "hijab":
        line = mirrored(_HALF_LINES["cover"])
    elif style == "beanie":
        line = mirrored(_HALF_LINES["beanie"])
    elif style == "afro":
        line = mirrored(_HALF_LINES["pulled"])
    elif person.fringe in _LINES:
        line = np.array(_LINES[person.fringe], np.float32) * np.array([person.flip, 1])
        line = line[:: person.flip]
    else:
        line = mirrored(_HALF_LINES[person.fringe])
    inside = np.clip(1.1 - np.abs(line[:, 0]), 0, 1) * (line[:, 1] < 1)
    moved: Array = line + np.stack([0 * inside, 0.05 * person.fringe_y * inside], axis=1)
    return moved


def _circle(centre: Array, radii: tuple[float, float]) -> Array:
    angle = np.linspace(0, 2 * np.pi, 361)
    points: Array = np.stack([np.cos(angle), np.sin(angle)], axis=1) * np.array(radii) + centre
    return points.astype(np.float32)


def _hanging(person: Character) -> Mesh:
    """Loose hair: a curtain between two sides that are mirror images but for their waves."""
    style, flip = person.hair_style, person.flip
    ends = {"bob": (1.16, 2.2), "hijab": (1.3, 2.9)}.get(style, (1.36, 3.3))
    right = [(0, -0.22), (0.6, -0.12), (1.0, 0.3), (1.2, 0.9), (1.26, 1.5), (1.28, 2.0), ends]
    if style == "bob":
        right[4:6] = [(1.3, 1.5), (1.28, 1.95)]
    sides = []
    for side in (-1, 1):
        curve = smooth_curve(place(person, np.array(right) * np.array([side, 1])), SAMPLES)
        if style == "wavy":
            wave = np.sin(np.linspace(0, 5.5 * np.pi, SAMPLES) + (flip * side > 0) * 1.2)
            curve[:, 0] += side * 4.0 * wave * np.linspace(0, 1, SAMPLES)
        if style == "curls":
            curve = bumpy(curve, 6.0 * side, 13)
        sides.append(curve)
    return band(sides[0], sides[1], 9)


def _tail(person: Character, side: int) -> Mesh:
    inner = [(0.5, -0.1), (0.95, 0.35), (1.12, 1.0), (1.08, 1.7), (1.0, 2.3), (1.12, 2.8)]
    outer = [(0.5, -0.12), (1.2, -0.1), (1.62, 0.6), (1.66, 1.4), (1.5, 2.2), (1.14, 2.82)]
    curves = [
        smooth_curve(place(person, np.array(half) * np.array([side, 1])), SAMPLES)
        for half in (inner, outer)
    ]
    return band(curves[0], curves[1], 5)


def _braid(person: Character, side: int) -> list[Mesh]:
    beads = []
    for step in range(8):
        spot = place(person, [(side * (1.02 + 0.015 * step), 1.25 + 0.27 * step)])[0]
        size = 11.5 - 0.5 * step
        beads.append(disc((float(spot[0]), float(spot[1])), (size, size * 1.05)))
    return beads[::-1]
