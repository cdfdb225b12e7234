"""Backgrounds of drawn characters: flat colours and a few large shapes."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from training.drawn_identity import Character
from training.facekit import Array

_OVER = 4


def draw_flat_backdrop(person: Character, size: int = 256) -> npt.NDArray[np.uint8]:
    """The background [size, size, 3] of a character."""
    rng = np.random.default_rng(person.seed + 2)
    side = 256 * _OVER
    base, second = person.backdrop
    picture = np.empty((side, side, 3), np.float32)
    picture[:] = base
    kind = person.backdrop_kind
    if kind == "fade":
        _fade(rng, picture, base, second)
    elif kind == "circle":
        _disc(picture, (128, 128 + rng.uniform(-10, 10)), rng.uniform(96, 116), second)
    elif kind == "arch":
        _disc(picture, (128, 118), 94, second)
        cv2.rectangle(picture, _px(34, 118), _px(222, 300), second.tolist(), -1)
    elif kind == "blobs":
        for _ in range(rng.integers(2, 5)):
            spot = (rng.uniform(0, 256), rng.uniform(0, 230))
            _disc(picture, spot, rng.uniform(20, 80), second)
    elif kind == "dots":
        step = rng.uniform(18, 34)
        for row, y in enumerate(np.arange(0, 270, step)):
            for x in np.arange(-step, 270, step):
                _disc(picture, (x + step / 2 * (row % 2), y), step * 0.16, second)
    small = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(np.rint(np.clip(small, 0, 1) * 255), np.uint8)


def _px(x: float, y: float) -> tuple[int, int]:
    return round(x * _OVER), round(y * _OVER)


def _disc(picture: Array, at: tuple[float, float], radius: float, colour: Array) -> None:
    cv2.circle(picture, _px(*at), round(radius * _OVER), colour.tolist(), -1, cv2.LINE_AA)


def _fade(rng: np.random.Generator, picture: Array, base: Array, second: Array) -> None:
    side = len(picture)
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    share = np.clip(0.5 + 0.8 * (x * np.cos(angle) + y * np.sin(angle)), 0, 1)[..., None]
    picture[:] = base * (1 - share) + second * share
