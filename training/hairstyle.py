"""Hair styles as a barber would describe them: lengths, parting, fall, curl and fringe.

Positions are those of the mean head (cm). Shapes: G guides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from training.facekit import Array
from training.paint import smoothstep


@dataclass(frozen=True)
class Cut:
    """One style with its lengths chosen.

    Attributes:
        top_cm, side_cm: lengths of strands on top and round the sides.
        way: `forward`, `part`, `back` or `out`: how it is combed.
        part_x: where the parting lies.
        lift: how far roots stand up from the skin.
        gravity: how soon strands turn down, per cm.
        volume_cm: height of the outermost strands off the skin.
        clump: how far a lock closes toward its tip; uneven: share by which lengths differ.
        hug: how closely it follows the skull; curtain: how far it is drawn aside from the face;
            arch: how much higher the open forehead is in the middle, per cm squared.
        coil_cm, turns: curls; disorder, stray_cm, frizz: how untidy guides, tips, curls are.
        floor_y: nothing hangs lower.
        fringe_y, fringe_slope, ragged_cm, face_half_cm: where hair over the face is cut.
        over_ears: covers the ears.
        width_cm: of a drawn strand.
    """

    top_cm: float
    side_cm: float
    way: str
    part_x: float = 0.0
    lift: float = 0.4
    gravity: float = 0.1
    volume_cm: float = 0.6
    clump: float = 0.6
    uneven: float = 0.3
    coil_cm: float = 0.0
    turns: float = 0.0
    disorder: float = 0.05
    stray_cm: float = 0.12
    frizz: float = 0.4
    floor_y: float = -30.0
    fringe_y: float = 8.6
    fringe_slope: float = 0.0
    ragged_cm: float = 0.5
    face_half_cm: float = 6.4
    over_ears: bool = False
    hug: float = 0.35
    curtain: float = 0.0
    arch: float = 0.03
    width_cm: float = 0.075


def comb(
    cut: Cut, roots_G3: Array, outward_G3: Array, rng: np.random.Generator
) -> tuple[Array, Array, Array]:
    """First direction [G, 3] along the skin, lift off it [G] and length [G] of guides."""
    x, y, z = roots_G3.T
    side = np.where(x > cut.part_x + rng.normal(0, 0.15, len(x)), 1.0, -1.0)
    top = smoothstep(6.5, 11.0, y)
    front = smoothstep(1.0, 8.0, z)
    zero = np.zeros_like(x)
    if cut.way == "forward":
        along = np.stack([0.09 * x, -0.1 - 1.1 * (1 - top), 0.9 - 0.6 * (1 - top)], axis=1)
    elif cut.way == "part":
        along = np.stack([side, -0.2 - 0.5 * (1 - top), 0.8 * front - 0.25], axis=1)
    elif cut.way == "back":
        along = np.stack([0.10 * x, 0.7 * front * top - 0.6 * (1 - top), -1.0 + zero], axis=1)
    else:
        along = rng.normal(0, 0.6, roots_G3.shape)
    along = along + rng.normal(0, 0.12, along.shape)
    along = along - outward_G3 * (along * outward_G3).sum(axis=1, keepdims=True)
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-6)
    length = cut.side_cm + (cut.top_cm - cut.side_cm) * top
    length = length * np.exp(rng.normal(0, 0.08, len(x)))
    lift = (
        cut.lift * (0.15 + 0.85 * top if cut.way != "out" else 1.0) * rng.uniform(0.7, 1.3, len(x))
    )
    return along.astype(np.float32), lift.astype(np.float32), length.astype(np.float32)


def _part(rng: np.random.Generator) -> float:
    return float(rng.choice([-1, 1]) * rng.uniform(1.8, 3.6))


def _crop(rng: np.random.Generator) -> Cut:
    return Cut(
        top_cm=rng.uniform(2.0, 4.0),
        side_cm=rng.uniform(0.6, 1.6),
        way="forward",
        lift=rng.uniform(0.4, 0.9),
        hug=0.6,
        volume_cm=rng.uniform(0.3, 0.8),
        disorder=0.07,
        fringe_y=rng.uniform(8.4, 9.4),
    )


def _side_part(rng: np.random.Generator) -> Cut:
    return Cut(
        top_cm=rng.uniform(6.0, 9.0),
        side_cm=rng.uniform(1.5, 3.0),
        way="part",
        part_x=_part(rng),
        lift=rng.uniform(0.4, 0.9),
        gravity=0.10,
        volume_cm=rng.uniform(0.6, 1.4),
        hug=0.5,
        curtain=0.8,
        arch=0.07,
        fringe_y=rng.uniform(8.4, 9.6),
        disorder=0.06,
    )


def _quiff(rng: np.random.Generator) -> Cut:
    return Cut(
        top_cm=rng.uniform(4.5, 7.0),
        side_cm=rng.uniform(0.8, 2.0),
        way="back",
        lift=rng.uniform(0.7, 1.4),
        gravity=0.03,
        volume_cm=rng.uniform(1.2, 2.4),
        hug=0.5,
        disorder=0.07,
        fringe_y=9.6,
    )


def _pulled_back(rng: np.random.Generator) -> Cut:
    return Cut(
        top_cm=12.0,
        side_cm=rng.uniform(7.0, 9.0),
        way="back",
        lift=rng.uniform(0.1, 0.35),
        gravity=0.0,
        hug=0.95,
        volume_cm=rng.uniform(0.25, 0.8),
        clump=0.4,
        uneven=0.15,
        disorder=0.03,
        stray_cm=0.08,
        fringe_y=9.6,
    )


def _bob(rng: np.random.Generator) -> Cut:
    fringe = rng.random() < 0.35
    return Cut(
        top_cm=rng.uniform(20, 24),
        side_cm=16.0,
        way="forward" if fringe else "part",
        part_x=0.0 if fringe else float(rng.choice([0.0, _part(rng)])),
        lift=0.35,
        gravity=0.45,
        hug=0.5,
        curtain=0.0 if fringe else 1.2,
        arch=0.03 if fringe else rng.uniform(0.09, 0.15),
        volume_cm=rng.uniform(0.6, 1.3),
        clump=0.45,
        uneven=0.08,
        coil_cm=rng.uniform(0, 0.18),
        turns=2.0,
        disorder=0.03,
        floor_y=rng.uniform(-8.0, -3.0),
        fringe_y=rng.uniform(6.9, 7.8) if fringe else rng.uniform(9.0, 10.2),
        ragged_cm=0.22 if fringe else 0.5,
        over_ears=True,
    )


def _long(rng: np.random.Generator) -> Cut:
    wave = rng.random() < 0.5
    return replace(
        _bob(rng),
        top_cm=34.0,
        side_cm=28.0,
        floor_y=rng.uniform(-20.0, -13.0),
        coil_cm=rng.uniform(0.35, 0.7) if wave else 0.05,
        turns=rng.uniform(2.5, 4.0),
        uneven=0.15,
    )


def _curls(rng: np.random.Generator) -> Cut:
    return Cut(
        top_cm=rng.uniform(6, 10),
        side_cm=rng.uniform(4, 8),
        way="part",
        part_x=_part(rng),
        lift=1.2,
        gravity=0.22,
        hug=0.3,
        curtain=0.4,
        arch=0.08,
        volume_cm=rng.uniform(1.0, 2.2),
        clump=0.75,
        coil_cm=rng.uniform(0.3, 0.5),
        turns=rng.uniform(2.0, 3.5),
        disorder=0.12,
        stray_cm=0.25,
        over_ears=rng.random() < 0.5,
        fringe_y=rng.uniform(8.2, 9.4),
    )


def _afro(rng: np.random.Generator) -> Cut:
    size = rng.uniform(1.4, 6.5)
    return Cut(
        top_cm=size,
        side_cm=size * rng.uniform(0.55, 0.95),
        way="out",
        lift=3.0,
        gravity=0.0,
        hug=0.0,
        volume_cm=0.1,
        clump=0.3,
        coil_cm=0.16,
        turns=size * 0.9,
        disorder=0.22,
        stray_cm=0.3,
        frizz=2.0,
        fringe_y=9.2,
    )


CUTS: dict[str, Callable[[np.random.Generator], Cut]] = {
    "afro": _afro,
    "bob": _bob,
    "crop": _crop,
    "curls": _curls,
    "long": _long,
    "pulled_back": _pulled_back,
    "quiff": _quiff,
    "side_part": _side_part,
}
