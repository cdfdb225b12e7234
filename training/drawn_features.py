"""The features of one frame, each computed once, and the face's 68 landmarks."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from training.drawn_act import SIDES, Act
from training.drawn_face import EYE_U, MOUTH_U, Eye, Mouth, brow, eye, mouth, outline, skin_shift
from training.drawn_identity import Character
from training.facekit import Array


class Features:
    """What moves by itself in a frame."""

    def __init__(self, person: Character, act: Act) -> None:
        """Nothing is computed before it is asked for."""
        self.person, self.act = person, act

    @cached_property
    def mouth(self) -> Mouth:
        """The lips."""
        return mouth(self.person, self.act)

    @cached_property
    def eyes(self) -> dict[int, Eye]:
        """The eyes by side."""
        return {side: eye(self.person, self.act, side) for side in SIDES}

    @cached_property
    def brows(self) -> dict[int, Array]:
        """The brows by side."""
        return {side: brow(self.person, self.act, side) for side in SIDES}

    def landmarks(self) -> Array:
        """The 68 points [68, 2] of the Multi-PIE scheme, px of the sheet."""
        points = [*self._jaw(), *self._brow_points(), *self._nose(), *self._eye_points()]
        return np.array([*points, *self.lip_points()], np.float32)

    def _jaw(self) -> Array:
        right = outline(self.person)
        start = int(np.argmin(np.abs(right[:, 1] - self.person.eye_y)))
        half = right[np.linspace(start, len(right) - 1, 9).round().astype(int)]
        left = half * np.array([-1, 1], np.float32)
        rest = np.concatenate([left, half[-2::-1]])
        jaw: Array = rest + skin_shift(self.person, self.act, rest)
        return jaw

    def _brow_points(self) -> Array:
        left, right = self.brows[-1][::-1], self.brows[1]
        at = [0, 2, 5, 7, 10]
        return np.concatenate([left[at], right[at]])

    def _nose(self) -> Array:
        person = self.person
        top, low, half = person.eye_y, person.nose_y, person.nose_width
        ridge = [(0, top + share * (low - 4 - top)) for share in (0.02, 0.34, 0.67, 1.0)]
        base = [(half * share, low + 2 - abs(share) * 2) for share in (-0.8, -0.4, 0, 0.4, 0.8)]
        rest = np.array([*ridge, *base], np.float32)
        nose: Array = rest + skin_shift(person, self.act, rest)
        return nose

    def _eye_points(self) -> Array:
        points: list[Array] = []
        third = [int(np.argmin(np.abs(EYE_U - u))) for u in (-0.35, 0.35)]
        for side in SIDES:
            seen = self.eyes[side]
            upper, lower = [seen.lid[at] for at in third], [seen.lower[at] for at in third[::-1]]
            points += [seen.lower[0], *upper, seen.lower[-1], *lower]
        return np.array(points, np.float32)

    def lip_points(self) -> Array:
        """The last twenty of the 68."""

        def at(curve: Array, *ways: float) -> list[Array]:
            return [curve[int(np.argmin(np.abs(MOUTH_U - way)))] for way in ways]

        lips = self.mouth
        outer = at(lips.upper_out, -1, -0.62, -0.26, 0, 0.26, 0.62, 1)
        outer += at(lips.lower_out, 0.62, 0.26, 0, -0.26, -0.62)
        inner = at(lips.upper_in, -0.9, -0.45, 0, 0.45, 0.9)
        return np.array([*outer, *inner, *at(lips.lower_in, 0.45, 0, -0.45)], np.float32)
