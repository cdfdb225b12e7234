"""Fine detail of skin that is the same for everybody: two pictures wrapped round the mean head.

Columns run over the angle about the vertical axis and rows over the height, as `wrap` in the
shaders: x = 8 cm times the angle, y in cm. Channels:

    relief: slope to the right, slope upward, height of pores and lines, brow hairs.
    colour: blotches, freckles, stubble dots, lip lines.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from training.facekit import LANDMARKS, Array, FaceKit

SIZE_PX = 2048
LEFT_CM, TOP_CM, SPAN_CM = -13.0, 14.0, 26.0
PX_PER_CM = SIZE_PX / SPAN_CM
Picture = npt.NDArray[np.uint8]


def draw_details(kit: FaceKit, seed: int = 11) -> tuple[Picture, Picture]:
    """Relief and colour [2048, 2048, 4] u8, rows from the top of the head down."""
    rng = np.random.default_rng(seed)
    landmarks = wrap(kit.vertices_V3[LANDMARKS])
    height = _pores(rng) + _wrinkles(landmarks, rng)
    across = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=3) / 8
    upward = -cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=3) / 8
    relief = [0.5 + across, 0.5 + upward, 0.5 + 0.35 * height, _brow_hairs(landmarks, rng)]
    colour = [_blotches(rng), _freckles(rng), _stubble(rng), _lip_lines(landmarks, rng)]
    return _packed(relief), _packed(colour)


def wrap(points_P3: Array) -> Array:
    """Place on the pictures, px, of points of the mean head."""
    x = np.arctan2(points_P3[:, 0], points_P3[:, 2] - 1.0) * 8.0
    place = np.stack([x - LEFT_CM, TOP_CM - points_P3[:, 1]], axis=1) * PX_PER_CM
    return place.astype(np.float32)


def _packed(layers: list[Array]) -> Picture:
    picture: Picture = np.clip(np.stack(layers, axis=2) * 255, 0, 255).astype(np.uint8)
    return picture


def _noise(rng: np.random.Generator, cells: float, blur: float = 0.7) -> Array:
    """Smooth noise of unit variance whose grains are `cells` per cm."""
    size = max(int(SPAN_CM * cells), 8)
    grain = rng.normal(size=(size, size)).astype(np.float32)
    soft = cv2.GaussianBlur(grain, (0, 0), blur, borderType=cv2.BORDER_REFLECT)
    wide = cv2.resize(soft / soft.std(), (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_CUBIC)
    return np.asarray(wide, np.float32)


def _dots(rng: np.random.Generator, count: int, radius_px: tuple[float, float]) -> Array:
    """Soft round dots, 0..1, at random places."""
    picture = np.zeros((SIZE_PX, SIZE_PX), np.uint8)
    places = (rng.uniform(0, SIZE_PX, (count, 2)) * 16).astype(int)
    radii = (rng.uniform(*radius_px, count) * 16).astype(int)
    values = rng.integers(90, 255, count)
    for (x, y), radius, value in zip(places.tolist(), radii.tolist(), values.tolist(), strict=True):
        cv2.circle(picture, (x, y), radius, value, -1, cv2.LINE_AA, 4)
    soft = cv2.GaussianBlur(picture, (0, 0), 0.8).astype(np.float32) / 255
    return np.asarray(soft, np.float32)


def _pores(rng: np.random.Generator) -> Array:
    """Pits, denser than freckles, and the fine net of lines between them."""
    pits = _dots(rng, 60_000, (0.8, 2.0))
    net = np.abs(_noise(rng, 16)) - 0.8
    return np.asarray(-1.1 * pits + 0.16 * net + 0.30 * _noise(rng, 5), np.float32)


def _wrinkles(landmarks: Array, rng: np.random.Generator) -> Array:
    """Faint lines across the forehead, under the eyes and beside them."""
    picture = np.zeros((SIZE_PX, SIZE_PX), np.float32)
    eyes = [landmarks[36:42].mean(axis=0), landmarks[42:48].mean(axis=0)]
    for eye, side in zip(eyes, (-1, 1), strict=True):
        for row in range(3):
            reach = 1.25 + 0.28 * row
            _arc(picture, eye, (reach, 0.62 + 0.22 * row), (25, 150), 0.30 - 0.06 * row)
        for fan in range(-2, 3):
            start = eye + np.array([side * 1.75, 0.18 * fan]) * PX_PER_CM
            end = start + np.array([side * 0.9, 0.28 * fan + 0.1]) * PX_PER_CM
            cv2.line(picture, _pt(start), _pt(end), 0.25, 3, cv2.LINE_AA)
    middle = (landmarks[21] + landmarks[22]) / 2
    for row in range(3):
        at = middle + np.array([rng.normal(0, 0.2), -2.0 - 0.95 * row]) * PX_PER_CM
        _arc(picture, at + np.array([0, 2 * PX_PER_CM]), (5.0, 2.0), (235, 305), 0.22)
    return np.asarray(-cv2.GaussianBlur(picture, (0, 0), 2.2), np.float32)


def _arc(
    picture: Array,
    centre: Array,
    radii_cm: tuple[float, float],
    span: tuple[float, float],
    depth: float,
) -> None:
    axes = (round(radii_cm[0] * PX_PER_CM), round(radii_cm[1] * PX_PER_CM))
    cv2.ellipse(picture, _pt(centre), axes, 0, span[0], span[1], depth, 3, cv2.LINE_AA)


def _pt(place: Array) -> tuple[int, int]:
    return round(float(place[0])), round(float(place[1]))


def _brow_hairs(landmarks: Array, rng: np.random.Generator) -> Array:
    """Hundreds of strokes a brow: upward at the nose, then along it toward the temple."""
    picture = np.zeros((SIZE_PX, SIZE_PX), np.uint8)
    for part, side in ((landmarks[[21, 20, 19, 18, 17]], -1.0), (landmarks[22:27], 1.0)):
        at = np.linspace(0, 1, len(part))
        for index in range(330):
            way = float(rng.beta(1.25, 1.35))
            base = np.array([np.interp(way, at, part[:, axis]) for axis in (0, 1)])
            thick = 0.44 * min(1.0, 0.45 + 2.2 * way) * min(1.0, 2.3 * (1.04 - way))
            base[1] += (rng.uniform(-1, 1) * thick + 0.10) * PX_PER_CM * 0.75
            slant = 1.25 * (1 - way) ** 1.6 - 0.35 * way + rng.normal(0, 0.16)
            if rng.random() < 0.45:
                slant = 0.5 * slant - 0.35 * way
            long = rng.uniform(0.35, 0.75) * (1.15 - 0.45 * way) * PX_PER_CM
            run = np.array([side * np.cos(slant), -np.sin(slant)]) * long
            middle = base + 0.5 * run + np.array([0.0, -0.05 * long])
            path = np.stack([base, middle, base + run + np.array([0, 0.12 * long])])
            value = int(rng.integers(110, 255))
            points = (path * 16).astype(np.int32)[:, None]
            cv2.polylines(picture, [points], False, value, 1 + (index % 3 == 0), cv2.LINE_AA, 4)
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), 0.6), np.float32) / 200


def _blotches(rng: np.random.Generator) -> Array:
    layers = 0.5 * _noise(rng, 0.55) + 0.35 * _noise(rng, 1.6) + 0.3 * _noise(rng, 5)
    return np.asarray(0.5 + 0.16 * layers, np.float32)


def _freckles(rng: np.random.Generator) -> Array:
    crowd = np.clip(0.5 + 0.5 * _noise(rng, 0.8), 0, 1)
    spots = _dots(rng, 4200, (1.0, 4.2))
    return np.asarray(cv2.GaussianBlur(spots, (0, 0), 1.4) * crowd, np.float32)


def _stubble(rng: np.random.Generator) -> Array:
    return np.asarray(_dots(rng, 90_000, (0.7, 1.5)), np.float32)


def _lip_lines(landmarks: Array, rng: np.random.Generator) -> Array:
    """Vertical furrows, a little fanned, over the whole width; used only on lips."""
    columns = rng.normal(size=(1, int(SPAN_CM * 9))).astype(np.float32)
    rows = rng.normal(size=(int(SPAN_CM * 1.4), int(SPAN_CM * 9))).astype(np.float32)
    grain = cv2.GaussianBlur(rows + 0.6 * columns, (0, 0), 0.8)
    grain = cv2.resize(grain / grain.std(), (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_CUBIC)
    mouth = landmarks[48:60].mean(axis=0)
    y, x = np.mgrid[0:SIZE_PX, 0:SIZE_PX].astype(np.float32)
    fan = mouth[0] + (x - mouth[0]) * (1 - 0.0012 * np.abs(y - mouth[1]))
    lines = cv2.remap(grain, fan, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(0.5 + 0.2 * lines, np.float32)
