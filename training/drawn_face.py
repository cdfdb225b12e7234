"""Where the features of a drawn face are in one frame: lips, lids, irises, brows, skin.

Curves are [P, 2] px of the sheet. U is the way along an eye or the mouth, -1 to 1, from the
viewer's left to right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.drawn_act import SIDES, Act
from training.drawn_curves import resampled, smooth_curve
from training.drawn_identity import Character
from training.facekit import Array

MOUTH_U = np.sin(np.linspace(-np.pi / 2, np.pi / 2, 29)).astype(np.float32)
EYE_U = np.linspace(-1, 1, 21).astype(np.float32)
_LID_LENGTH = 1.15
_GAZE_PX = 13.0


@dataclass(frozen=True)
class Mouth:
    """The four lip curves from the upper lip's upper edge downward; lips meet at the inner two."""

    upper_out: Array
    upper_in: Array
    lower_in: Array
    lower_out: Array


@dataclass(frozen=True)
class Eye:
    """An eye: edges of the opening in the skin, the lid's edge, and the iris."""

    upper: Array
    lower: Array
    lid: Array
    iris: tuple[float, float]


def mouth(person: Character, act: Act) -> Mouth:
    """The lips; they touch exactly when the act parts them by nothing."""
    across = np.abs(MOUTH_U)
    half = person.mouth_width * max(act.width, 0.45)
    lift = np.where(MOUTH_U < 0, act.lift_px[0], act.lift_px[1]) + person.corners
    meet = person.mouth_y + act.middle_px - lift * (across**1.7 - 0.35)
    meet = meet + 2.2 * person.bow * np.exp(-((MOUTH_U / 0.3) ** 2)) * (1 - act.roundness)
    part = (1 - across**2) ** (0.66 - 0.2 * act.roundness)
    x = half * MOUTH_U + act.aside_px * (1 - 0.3 * across)
    full = (1 + 0.35 * act.roundness) * (1 - 0.38 * act.press)
    spread = max(act.width, 0.6) ** -0.4
    bow = 1 - person.bow * np.exp(-((MOUTH_U / 0.2) ** 2)) * (1 - 0.5 * act.roundness)
    upper = person.lip_up * full * spread * (1 - across**1.7) * bow
    lower = person.lip_low * full * spread * (1 - across**2.6) * (1 - 0.6 * act.tuck)
    top, bottom = meet - act.up_px * part, meet + act.down_px * part
    rows = (top - upper, top, bottom, bottom + lower)
    return Mouth(*(np.stack([x, y], axis=1).astype(np.float32) for y in rows))


def eye(person: Character, act: Act, side: int) -> Eye:
    """One eye; the lid's edge lies on the lower edge when the act shuts it."""
    index = SIDES.index(side)
    shut = act.lid[index]
    u = EYE_U
    x = side * person.eye_gap + person.eye_width * u
    tilt = -person.eye_tilt * u * side
    wide = 1 + max(-shut, 0.0)
    upper = person.eye_y + tilt - person.eye_up * wide * (1 - np.abs(u) ** 2.3) ** 0.8
    raised = 1 - 0.22 * act.squint[index] - 0.12 * act.cheek[index]
    lower = person.eye_y + tilt + person.eye_low * raised * (1 - np.abs(u) ** 2.2) ** 0.9
    drop = min(max(shut, 0.0), 1.0)
    lid = upper + drop * (lower - upper)
    centre = (
        side * person.eye_gap + _GAZE_PX * float(np.sin(act.gaze[0])),
        person.eye_y
        - 0.25 * (person.eye_up - person.eye_low)
        - 0.8 * _GAZE_PX * float(np.sin(act.gaze[1])),
    )
    rows = (np.stack([x, y], axis=1).astype(np.float32) for y in (upper, lower, lid))
    return Eye(next(rows), next(rows), next(rows), centre)


def lid_sheet(person: Character, seen: Eye) -> tuple[Array, Array]:
    """The lid's skin as a piece that slides down behind the upper edge: (edge, far end)."""
    length = _LID_LENGTH * (person.eye_up + person.eye_low) + 4
    return seen.lid, seen.lid - np.array([0, length], np.float32)


def brow(person: Character, act: Act, side: int) -> Array:
    """The brow's middle line [11, 2] from the nose outward."""
    index = SIDES.index(side)
    share = np.linspace(0, 1, 11)
    x = person.eye_gap - 0.62 * person.brow_length + share * person.brow_length * 1.75
    rise = act.brow_in_px[index] * (1 - share) + act.brow_out_px[index] * share
    y = person.eye_y - person.brow_y - person.brow_arch * np.sin(np.pi * share**1.2) - rise
    y = y + person.brow_tilt * (share - 0.5) + 2.5 * share**3
    line: Array = np.stack([side * x, y], axis=1).astype(np.float32)
    return line


def outline(person: Character, samples: int = 61) -> Array:
    """The right half of the face's outline from the top of the skull to the chin."""
    width, low = person.face_width, person.chin_y
    jaw_y = low - 0.30 * (low - person.eye_y)
    corner = (person.chin * width, low - 4)
    controls = [
        (0, person.top_y),
        (0.56 * width, person.top_y + 8),
        (0.92 * width, person.top_y + 36),
        (width, person.eye_y - 4),
        (person.cheek * width * 0.98, person.eye_y + 26),
        (person.jaw * width, jaw_y),
        corner,
        (0, low),
    ]
    # The mirror image is part of the spline, so that top and chin are round.
    left = [(-x, y) for x, y in controls[-2:0:-1]]
    whole = smooth_curve(controls + left, 400, closed=True)
    half = whole[: int(np.argmax(whole[:, 1])) + 1]
    half[0, 0] = half[-1, 0] = 0
    return resampled(half, samples)


def skin_shift(person: Character, act: Act, points_P2: Array) -> Array:
    """How far the skin at points [P, 2] of the resting face moves: [P, 2] px."""
    x, y = points_P2[:, 0], points_P2[:, 1]
    half, line = person.mouth_width, person.mouth_y
    near = np.exp(-((x / (1.5 * half)) ** 4))
    outside = np.maximum(np.abs(x) - 0.7 * half, 0)
    below = _step((y - line + 2) / (0.9 * person.lip_low + 2 + 0.9 * outside))
    chin = _step((y - line - person.lip_low) / (0.75 * (person.chin_y - line - person.lip_low)))
    sideways = 1 - 0.65 * _step((np.abs(x) - 0.30 * person.face_width) / (0.8 * person.face_width))
    lip = (act.down_px + act.middle_px) * near + act.chin_px * 0.5 * (1 - near) * sideways
    fall = below * (lip * (1 - chin) + act.chin_px * sideways * chin)
    over = _step((y - person.nose_y) / (line - person.lip_up - person.nose_y)) * (1 - below)
    fall = fall - act.up_px * near * over
    corner = person.mouth_width * (act.width - 1)
    slide = np.zeros_like(x)
    for index, side in enumerate(SIDES):
        away = np.hypot((x - side * half) / 16, (y - line) / 16)
        pull = np.exp(-(away**2))
        slide = slide + pull * (side * corner + act.aside_px)
        fall = fall - 0.65 * act.lift_px[index] * pull
        apple = np.exp(-(np.hypot((x - side * 36) / 17, (y - 140) / 15) ** 2))
        fall = fall - 3.2 * act.cheek[index] * apple
        slide = slide + 1.6 * side * act.cheek[index] * apple
        ridge = np.exp(-(((x - side * 28) / 22) ** 2) - ((y - person.eye_y + 22) / 11) ** 2)
        fall = fall - 0.6 * ridge * (act.brow_in_px[index] + act.brow_out_px[index]) / 2
    shift: Array = np.stack([slide, fall], axis=1).astype(np.float32)
    return shift


def _step(value: Array) -> Array:
    clipped = np.clip(value, 0, 1)
    smooth: Array = clipped * clipped * (3 - 2 * clipped)
    return smooth


def head_depth_cm(points_P2: Array) -> Array:
    """A head's depth [P] over the sheet, toward the viewer from the neck's base."""
    x, y = points_P2[:, 0] / 62, points_P2[:, 1] - 118
    r2 = x**2 + np.where(y > 0, y / 130, y / 92) ** 2
    nose = 1.6 * np.exp(-((points_P2[:, 0] / 9) ** 2) - ((points_P2[:, 1] - 136) / 14) ** 2)
    depth: Array = (2.5 + 8.5 * np.maximum(1 - r2, -0.6) + nose).astype(np.float32)
    return depth
