"""Colours of drawn characters, and how a colour is shaded; sRGB in 0..1."""

from __future__ import annotations

import numpy as np

from training.facekit import Array


def _hex(names: str) -> Array:
    rows = [[int(name[at : at + 2], 16) / 255 for at in (0, 2, 4)] for name in names.split()]
    return np.array(rows, np.float32)


SKIN = _hex("ffe3d3 fbd3b9 f5c19d e9aa80 d6925f bd7848 9c5c36 7c4529 5d3221 452519 32190f")
FANCY_SKIN = _hex("b9d8c2 a7c4e8 cbb6e6 f2b8c6 c9ced6 9fd4d0 e8d27f")
HAIR = _hex("1d1a20 2c1f1e 3f2a22 17181f 5a3a26 7a4b2a a2622f c98a45 e3b667 b5432a d9d5d2 8d8b92")
FANCY_HAIR = _hex("e86a92 5b6ee1 3aa6a0 8d5bd1 f28f3b 2f8f5b c8dff2 f4b6c2")
EYES = _hex("4a2c1a 6b4122 2b1d16 7d5a2a 4f7d4b 3f7fb0 6b8fa8 8a6fb5 2f9a94")
CLOTHES = _hex(
    "2d3e63 e4572e f3a712 76b041 17bebb 8e5ea2 f2efe9 2f2d3a d1495b 00798c edae49 66a182 "
    "b8bedd f4acb7 9d8189 5f6caf 3d5a45 c44536"
)
BACKDROPS = _hex(
    "f6d6ad f9c6c9 c9e4de c6def1 dbcdf0 f2c6de f7d9c4 faedcb 8ecae6 219ebc ffb703 e9c46a "
    "2a9d8f 264653 f4a261 84a59d f28482 6d597a 355070 b56576 3d405b 81b29a e07a5f dfe7fd"
)


def pick(rng: np.random.Generator, palette: Array, jitter: float) -> Array:
    """One colour of a palette, a little varied."""
    colour = palette[rng.integers(len(palette))] + rng.normal(0, jitter, 3)
    chosen: Array = np.clip(colour, 0.02, 0.99).astype(np.float32)
    return chosen


def mix(first: Array, second: Array, share: float) -> Array:
    """Between two colours; share 1 is the second."""
    return np.asarray(first * (1 - share) + np.asarray(second) * share, np.float32)


def shade(colour: Array, amount: float) -> Array:
    """Darker and warmer; 1 is the shadow of flat illustration."""
    tint = np.array([0.86, 0.74, 0.77]) ** amount
    return np.asarray(colour * tint, np.float32)


def lighten(colour: Array, amount: float) -> Array:
    """Toward a warm white."""
    return mix(colour, np.array([1.0, 0.97, 0.92]), amount)


def lip_colour(rng: np.random.Generator, skin: Array, strength: float) -> Array:
    """Lips for a skin: nearly skin (0), natural (0.5) or painted (1)."""
    # Lips of very dark faces are lighter than the skin, or they would not be seen to move.
    dark = 1 - min(float(skin.mean()) / 0.38, 1.0)
    natural = skin * np.array([0.90, 0.62, 0.62]) * (1 + 0.5 * dark)
    natural = natural + dark * np.array([0.22, 0.09, 0.10])
    painted = _hex("c2334d b5485d e0607e 8f2d4a d9534f a8324a e58a8f")[rng.integers(7)]
    bright = 0.55 + 0.45 * float(skin.max())
    if strength > 0.7:
        return np.asarray(np.clip(painted * bright, 0, 1), np.float32)
    return mix(skin, natural, 0.35 + 1.1 * strength)
