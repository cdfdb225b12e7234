"""The fixed view of a clip: head pose, perspective and the canonical framing of portraits.

Picture coordinates are continuous pixels of a 256 x 256 picture: (0, 0) is the outer corner of
the top left pixel, pixel centres lie at halves. Lengths in centimetres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.facekit import LANDMARKS, Array

PICTURE_PX = 256
CANONICAL_CENTRE_PX = (128.0, 136.0)
CANONICAL_INTEROCULAR_PX = 54.0
CANONICAL_EYE_MOUTH_PX = 56.0
NEAR_CM, FAR_CM = 30.0, 220.0
NECK_PIVOT = np.array([0.0, -9.5, 0.0], np.float32)
"""Base of the neck at ear depth on the mean head: the point about which heads turn."""


@dataclass(frozen=True)
class Framing:
    """Departure from the canonical view: px, factor, radians, cm."""

    shift_px: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0
    roll: float = 0.0
    yaw: float = 0.0
    pitch: float = 0.0
    distance_cm: float = 85.0


@dataclass(frozen=True)
class View:
    """From head space to the picture.

    Attributes:
        clip_44: head space to clip space (y down); the last row gives the depth in cm.
        turn_33: head space to camera axes, for normals and lights.
        eye_point_3: the camera in head space.
        pivot_depth_cm: depth of the pivot.
        pivot_px: the pivot in the picture.
    """

    clip_44: Array
    turn_33: Array
    eye_point_3: Array
    pivot_depth_cm: float
    pivot_px: Array

    def project(self, points_P3: Array) -> Array:
        """Picture coordinates [P, 2] of head-space points."""
        clip = points_P3 @ self.clip_44[:, :3].T + self.clip_44[:, 3]
        pixels: Array = ((clip[:, :2] / clip[:, 3:] + 1) * (PICTURE_PX / 2)).astype(np.float32)
        return pixels


def sample_framing(rng: np.random.Generator) -> Framing:
    """The jitter of training clips around the canonical view."""
    degree = np.pi / 180
    return Framing(
        shift_px=(float(rng.normal(0, 4)), float(rng.normal(0, 4))),
        scale=float(rng.uniform(0.92, 1.08)),
        roll=float(rng.normal(0, 3) * degree),
        yaw=float(np.clip(rng.normal(0, 8), -22, 22) * degree),
        pitch=float(np.clip(rng.normal(0, 5), -13, 13) * degree),
        distance_cm=float(rng.uniform(60, 120)),
    )


def canonical_view(head_V3: Array, pivot_3: Array, framing: Framing) -> View:
    """Place a camera so that the head's landmarks meet the canonical framing, then jitter it."""
    turn = turn_matrix(framing.yaw, framing.pitch)
    world = np.zeros((4, 4), np.float64)  # rows: x right, y down, unused, depth
    centre = head_V3[LANDMARKS].mean(axis=0)
    middle = turn @ (centre - pivot_3)
    depth = framing.distance_cm + middle[2]
    world[0, :3], world[0, 3] = turn[0], _offset(turn[0], pivot_3) - middle[0]
    world[1, :3], world[1, 3] = -turn[1], -(_offset(turn[1], pivot_3) - middle[1])
    world[3, :3], world[3, 3] = -turn[2], depth - _offset(turn[2], pivot_3)
    eye_point = turn.T @ (np.array([middle[0], middle[1], depth])) + pivot_3
    points = head_V3[LANDMARKS] @ world[:, :3].T + world[:, 3]
    plane_P2 = points[:, :2] / points[:, 3:]
    clip = canonical_pixels(plane_P2, framing) @ world[[0, 1, 3]]
    clip_44 = np.stack([*_to_clip(clip), world[3]])
    pivot = np.append(pivot_3, 1.0)
    view = View(
        clip_44=clip_44.astype(np.float32),
        turn_33=turn.astype(np.float32),
        eye_point_3=eye_point.astype(np.float32),
        pivot_depth_cm=float(world[3] @ pivot),
        pivot_px=np.zeros(2, np.float32),
    )
    view.pivot_px[:] = view.project(pivot_3[None])[0]
    return view


def eye_mouth_points(landmarks_P2: Array) -> tuple[Array, Array, Array]:
    """Right eye, left eye and mouth centres from the 68 points."""
    right, left = landmarks_P2[36:42].mean(axis=0), landmarks_P2[42:48].mean(axis=0)
    return right, left, landmarks_P2[48:60].mean(axis=0)


def turn_matrix(yaw: float, pitch: float) -> Array:
    """Rotation [3, 3] of yaw, then pitch, in radians; y points up."""
    cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    turn: Array = about_x @ about_y
    return turn


def canonical_pixels(plane_P2: Array, framing: Framing) -> Array:
    """Rows (x px, y px, depth) from (x, y, depth) of the camera plane."""
    right, left, mouth = eye_mouth_points(plane_P2)
    eyes = (right + left) / 2
    spread = np.linalg.norm(left - right) / CANONICAL_INTEROCULAR_PX
    length = np.linalg.norm(mouth - eyes) / CANONICAL_EYE_MOUTH_PX
    scale = framing.scale / (0.5 * (spread + length))
    cos, sin = np.cos(framing.roll) * scale, np.sin(framing.roll) * scale
    rotate = np.array([[cos, -sin], [sin, cos]])
    target = np.array(CANONICAL_CENTRE_PX) + np.array(framing.shift_px)
    shift = target - rotate @ ((eyes + mouth) / 2)
    return np.array([[cos, -sin, shift[0]], [sin, cos, shift[1]], [0, 0, 1]])


def _to_clip(pixels_34: Array) -> tuple[Array, Array, Array]:
    x, y, depth = pixels_34
    bias = np.array([0, 0, 0, 2 * FAR_CM * NEAR_CM / (FAR_CM - NEAR_CM)])
    ratio = (FAR_CM + NEAR_CM) / (FAR_CM - NEAR_CM)
    return x * 2 / PICTURE_PX - depth, y * 2 / PICTURE_PX - depth, depth * ratio - bias


def _offset(row_3: Array, pivot_3: Array) -> float:
    return float(-(row_3 @ pivot_3))
