"""Backgrounds that look like out-of-focus photographs, and the shaders' noise picture."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from training.facekit import Array

Picture = npt.NDArray[np.uint8]


def draw_backdrop(seed: int, size: int = 256) -> Picture:
    """A background [size, size, 3] u8: studio sweep, room, window, bookshelf or lights."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(5, p=[0.28, 0.30, 0.17, 0.13, 0.12])
    base = _sweep(rng, size)
    if kind == 1:
        base = _room(rng, base)
    elif kind == 2:
        base = _window(rng, base)
    elif kind == 3:
        base = _shelf(rng, base)
    elif kind == 4:
        base = _lights(rng, base)
    base = base * (1 + rng.normal(0, 0.006, base.shape[:2])[..., None])
    return (np.clip(base, 0, 1) * 255).astype(np.uint8)


def noise_picture(seed: int = 7, size: int = 256) -> Picture:
    """Tileable noise [size, size, 4]: wide, middle, fine, and strands along y."""
    rng = np.random.default_rng(seed)
    layers = [
        _tile(rng, size, 20, 20) + 0.5 * _tile(rng, size, 8, 8),
        _tile(rng, size, 9, 9) + 0.5 * _tile(rng, size, 4, 4),
        _tile(rng, size, 1.2, 1.2),
        _tile(rng, size, 1.0, 24) + 0.6 * _tile(rng, size, 2.5, 40),
    ]
    scaled = [layer / layer.std() * 42 + 128 for layer in layers]
    picture: Picture = np.clip(np.stack(scaled, axis=2), 0, 255).astype(np.uint8)
    return picture


def _tile(rng: np.random.Generator, size: int, blur_x: float, blur_y: float) -> Array:
    grain = np.tile(rng.normal(size=(size, size)).astype(np.float32), (3, 3))
    smooth = cv2.GaussianBlur(grain, (0, 0), blur_x, sigmaY=blur_y)[
        size : 2 * size, size : 2 * size
    ]
    tile: Array = smooth / smooth.std()
    return tile


def _muted(rng: np.random.Generator, low: float = 0.12, high: float = 0.85) -> Array:
    """A colour as walls and furniture have it: little saturated."""
    hue, saturation = rng.uniform(0, 180), rng.beta(1.2, 4) * 0.6
    pixel = np.array([[[hue * 2, saturation, rng.uniform(low, high)]]], np.float32)
    colour: Array = cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0]
    return colour


def _sweep(rng: np.random.Generator, size: int) -> Array:
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    first = _muted(rng)
    second = np.clip(first * rng.uniform(0.55, 1.25) + rng.normal(0, 0.03, 3), 0, 1)
    angle = rng.uniform(0, 2 * np.pi)
    ramp = np.clip(0.5 + (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle), 0, 1)[..., None]
    picture = first * (1 - ramp) + second * ramp
    far = (x - rng.uniform(0.2, 0.8)) ** 2 + (y - rng.uniform(0.1, 0.6)) ** 2
    glow = np.exp(-far / rng.uniform(0.08, 0.4))
    sweep: Array = (picture * (0.8 + rng.uniform(0, 0.4) * glow[..., None])).astype(np.float32)
    return sweep


def _box(picture: Array, box: tuple[float, float, float, float], colour: Array) -> None:
    size = picture.shape[0]
    left, top, right, bottom = (round(float(edge) * size) for edge in box)
    cv2.rectangle(picture, (left, top), (right, bottom), [float(c) for c in colour], -1)


def _blur(rng: np.random.Generator, picture: Array, low: float, high: float) -> Array:
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), rng.uniform(low, high)), np.float32)


def _room(rng: np.random.Generator, picture: Array) -> Array:
    picture = np.ascontiguousarray(picture)
    corner = rng.uniform(-0.1, 1.1)
    _box(picture, (corner, 0, 1.1, 1), picture.mean(axis=(0, 1)) * rng.uniform(0.75, 1.15))
    for _ in range(rng.integers(1, 5)):
        left, top = rng.uniform(-0.1, 0.9), rng.uniform(-0.1, 0.75)
        width, height = rng.uniform(0.1, 0.4), rng.uniform(0.12, 0.6)
        frame = (left, top, left + width, top + height)
        _box(picture, frame, _muted(rng, 0.1, 0.5))
        inner = (left + 0.02, top + 0.02, left + width - 0.02, top + height - 0.02)
        _box(picture, inner, _muted(rng))
    if rng.random() < 0.5:
        _box(picture, (-0.1, rng.uniform(0.6, 0.9), 1.1, 1.1), _muted(rng, 0.1, 0.5))
    return _blur(rng, picture, 1.2, 7)


def _window(rng: np.random.Generator, picture: Array) -> Array:
    picture = np.ascontiguousarray(picture * 0.7)
    left, width = rng.uniform(-0.3, 0.6), rng.uniform(0.35, 0.8)
    light = np.clip(_muted(rng, 0.8, 1.0) * 1.1, 0, 1)
    _box(picture, (left, -0.1, left + width, rng.uniform(0.5, 1.0)), light)
    bar = _muted(rng, 0.2, 0.7)
    for x in np.arange(left, left + width + 0.01, width / rng.integers(1, 4)):
        _box(picture, (x - 0.012, -0.1, x + 0.012, 1.0), bar)
    y = rng.uniform(0.2, 0.5)
    _box(picture, (left, y - 0.012, left + width, y + 0.012), bar)
    return _blur(rng, picture, 2, 8)


def _shelf(rng: np.random.Generator, picture: Array) -> Array:
    picture = np.ascontiguousarray(picture * 0.6)
    height = rng.uniform(0.2, 0.35)
    for top in np.arange(rng.uniform(-0.2, 0), 1.0, height):
        x = -0.02
        while x < 1:
            width = rng.uniform(0.02, 0.07)
            tall = height * rng.uniform(0.6, 0.88)
            box = (x, top + height * 0.92 - tall, x + width * 0.94, top + height * 0.92)
            _box(picture, box, _muted(rng, 0.15, 0.8))
            x += width
        _box(picture, (0, top + height * 0.93, 1, top + height), _muted(rng, 0.2, 0.4))
    return _blur(rng, picture, 2, 6)


def _lights(rng: np.random.Generator, picture: Array) -> Array:
    picture = np.ascontiguousarray(picture * 0.45)
    size = picture.shape[0]
    glow = np.zeros_like(picture)
    for _ in range(rng.integers(6, 22)):
        at = (int(rng.uniform(0, size)), int(rng.uniform(0, size * 0.8)))
        colour = [float(c) for c in _muted(rng, 0.5, 1.0) * rng.uniform(0.2, 0.6)]
        disc = np.zeros_like(picture)
        cv2.circle(disc, at, int(rng.uniform(5, 18)), colour, -1, cv2.LINE_AA)
        glow += disc
    return picture + _blur(rng, glow, 1.5, 4)
