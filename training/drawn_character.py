"""The whole character: its sheet, and the way from the sheet to the picture.

A sheet is flat but every point has a head-like depth, so that a drawing can turn a little.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training import drawn_body as body
from training import drawn_look as look
from training import drawn_mouth as mouth
from training.camera import Framing, View, canonical_pixels, turn_matrix
from training.drawn_act import Act
from training.drawn_face import head_depth_cm
from training.drawn_features import Features
from training.drawn_identity import Character
from training.drawn_sheet import Sheet
from training.facekit import Array
from video.head_pose import PIXELS_PER_CM
from video.motion_codec import PIVOT_XY

TURN = 0.8
"""Share of a framing's turn that a drawing takes."""
DISTANCE_CM = 85.0


def build_sheet(person: Character) -> Sheet:
    """Stack a character's pieces."""
    sheet = Sheet(person)
    body.add_back(sheet)
    body.add_neck(sheet)
    body.add_clothes(sheet)
    body.add_ears(sheet)
    body.add_head(sheet)
    look.add_beard(sheet)
    body.add_hair_shadow(sheet)
    look.add_nose(sheet)
    mouth.add_mouth(sheet)
    look.add_eyes(sheet)
    look.add_brows(sheet)
    body.add_hair(sheet)
    look.add_glasses(sheet)
    return sheet


@dataclass(frozen=True)
class Placing:
    """From (x, y) px of the sheet and depth in cm to the picture: affine, [2, 4]."""

    matrix_24: Array

    def pixels(self, points_P2: Array, depth_P: Array) -> Array:
        """Picture coordinates [P, 2]."""
        m = self.matrix_24
        placed: Array = (points_P2 @ m[:, :2].T + depth_P[:, None] * m[:, 2] + m[:, 3]).astype(
            np.float32
        )
        return placed


def place_character(person: Character, framing: Framing, act: Act) -> Placing:
    """Turn the sheet about its neck and bring eyes and mouth to their canonical place."""
    turn = turn_matrix(TURN * framing.yaw, TURN * framing.pitch)
    flip = np.diag([1.0, -1.0, PIXELS_PER_CM])  # the sheet's y points down
    flat = (np.diag([1.0, -1.0, 1.0]) @ turn @ flip)[:2]
    pivot = np.array([0.0, PIVOT_XY[1]])
    raw = np.concatenate([flat, (pivot - flat[:, :2] @ pivot)[:, None]], axis=1)
    points = Features(person, act).landmarks()
    seen = Placing(raw.astype(np.float32)).pixels(points, head_depth_cm(points))
    similar = canonical_pixels(seen, framing)[:2]
    matrix = np.concatenate(
        [similar[:, :2] @ raw[:, :3], similar @ np.append(raw[:, 3], 1)[:, None]], 1
    )
    return Placing(matrix.astype(np.float32))


def flat_view(placing: Placing) -> View:
    """The record's view of a drawing: only pivot and its depth mean anything."""
    pivot = placing.pixels(np.array([[0.0, PIVOT_XY[1]]], np.float32), np.zeros(1, np.float32))[0]
    return View(
        clip_44=np.eye(4, dtype=np.float32),
        turn_33=np.eye(3, dtype=np.float32),
        eye_point_3=np.zeros(3, np.float32),
        pivot_depth_cm=DISTANCE_CM,
        pivot_px=pivot,
    )
