"""A made-up person: shape, colours, hair, clothes, light; drawn from a seeded generator.

Colours are sRGB in 0..1 unless a name says linear.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.facekit import Array

NUM_IDENTITY_WEIGHTS = 100

# From very light to very dark, measured by eye on photographs under neutral light.
SKIN_TONES = np.array(
    [
        [0.93, 0.78, 0.71],
        [0.90, 0.72, 0.62],
        [0.85, 0.65, 0.53],
        [0.78, 0.57, 0.44],
        [0.68, 0.47, 0.35],
        [0.56, 0.37, 0.27],
        [0.45, 0.29, 0.21],
        [0.34, 0.22, 0.165],
        [0.26, 0.17, 0.135],
    ],
    np.float32,
)
HAIR_COLOURS = np.array(
    [
        [0.06, 0.05, 0.05],
        [0.13, 0.09, 0.07],
        [0.22, 0.14, 0.09],
        [0.33, 0.22, 0.14],
        [0.52, 0.39, 0.25],
        [0.68, 0.55, 0.38],
        [0.45, 0.20, 0.10],
        [0.55, 0.54, 0.53],
        [0.78, 0.77, 0.75],
    ],
    np.float32,
)
IRIS_COLOURS = np.array(
    [
        [0.20, 0.11, 0.06],
        [0.30, 0.18, 0.09],
        [0.42, 0.30, 0.14],
        [0.36, 0.40, 0.22],
        [0.32, 0.46, 0.58],
        [0.44, 0.52, 0.56],
    ],
    np.float32,
)
CLOTH_COLOURS = np.array(
    [
        [0.10, 0.12, 0.18],
        [0.12, 0.12, 0.12],
        [0.85, 0.85, 0.83],
        [0.55, 0.58, 0.62],
        [0.24, 0.33, 0.47],
        [0.45, 0.14, 0.16],
        [0.22, 0.34, 0.27],
        [0.70, 0.58, 0.42],
        [0.62, 0.44, 0.50],
        [0.30, 0.24, 0.36],
    ],
    np.float32,
)


@dataclass(frozen=True)
class Light:
    """A distant light in camera space; `colour` is linear, its length the brightness."""

    direction: Array
    colour: Array


@dataclass(frozen=True)
class Identity:
    """Everything about the person and the room that stays the same through a clip."""

    weights_K: Array
    skin: Array
    lips: Array
    brow: Array
    brow_thickness_cm: float
    brow_strength: float
    flush: float
    stubble: float
    eye_shadow: float
    iris: Array
    teeth: Array
    hair: Array
    hair_style: str | None
    hair_seed: int
    grey: float
    buzz: float
    lashes: float
    cloth: Array
    collar_cm: float
    neckline: float
    stripes: float
    freckles: float
    relief: float
    roughness: float
    specular: float
    lights: tuple[Light, Light, Light]
    ambient_up: Array
    ambient_down: Array
    background_seed: int


def sample_identity(rng: np.random.Generator) -> Identity:
    """Draw a person over the full human range of skin tones."""
    depth = rng.uniform(0, 1)
    skin = _skin(rng, depth)
    masculine = rng.random() < 0.5
    hair, style = _hair(rng, depth, masculine)
    lip_strength = rng.uniform(0.12, 0.45) if masculine else rng.uniform(0.25, 0.8)
    ambient = rng.uniform(0.15, 0.36) * (1 + 0.4 * depth)  # cameras expose for the face
    tint = 1 + rng.normal(0, 0.05, 3)
    weights = np.clip(rng.normal(0, 0.8, NUM_IDENTITY_WEIGHTS), -2, 2)
    return Identity(
        weights_K=weights.astype(np.float32),
        skin=skin,
        lips=_lips(rng, skin, lip_strength),
        brow=_brow(rng, hair, depth),
        brow_thickness_cm=rng.uniform(0.26, 0.46) if masculine else rng.uniform(0.16, 0.34),
        brow_strength=rng.uniform(0.55, 0.95),
        flush=rng.uniform(0.05, 0.45),
        stubble=rng.uniform(0, 0.75) if masculine and rng.random() < 0.6 else 0.0,
        eye_shadow=rng.uniform(0.0, 0.5),
        iris=_iris(rng, depth),
        teeth=_unit(np.array([0.86, 0.82, 0.74]) + rng.normal(0, 0.025) + rng.normal(0, 0.01, 3)),
        hair=hair,
        hair_style=style,
        hair_seed=int(rng.integers(2**31)),
        grey=rng.uniform(0.2, 0.9) if rng.random() < 0.2 else 0.0,
        buzz=rng.uniform(0.3, 1.0) if style is None else 0.9,
        lashes=rng.uniform(0.15, 0.45) if masculine else rng.uniform(0.3, 0.75),
        cloth=_unit(CLOTH_COLOURS[rng.integers(len(CLOTH_COLOURS))] + rng.normal(0, 0.04, 3)),
        collar_cm=rng.uniform(-12.6, -10.6),
        neckline=rng.choice([0.0, 0.0, 0.35, 0.9]),
        stripes=rng.choice([0.0, 0.0, 0.0, rng.uniform(0.1, 0.4)]),
        freckles=rng.uniform(0.2, 1.0) if rng.random() < 0.3 else rng.uniform(0, 0.15),
        relief=rng.uniform(0.5, 1.3),
        roughness=rng.uniform(0.38, 0.6),
        specular=rng.uniform(0.25, 0.8),
        lights=_lights(rng, exposure=1.05 + 0.4 * depth),
        ambient_up=_linear(ambient * tint * rng.uniform(0.95, 1.1)),
        ambient_down=_linear(ambient * rng.uniform(0.45, 0.8) * tint[::-1]),
        background_seed=int(rng.integers(2**31)),
    )


def _unit(colour: Array) -> Array:
    return np.clip(colour, 0.015, 0.97).astype(np.float32)


def _linear(value: Array) -> Array:
    return np.asarray(value, np.float32)


def _skin(rng: np.random.Generator, depth: float) -> Array:
    at = depth * (len(SKIN_TONES) - 1)
    low = min(int(at), len(SKIN_TONES) - 2)
    tone = SKIN_TONES[low] * (1 - at + low) + SKIN_TONES[low + 1] * (at - low)
    warm = rng.normal(0, 0.018)
    return _unit(tone * (1 + np.array([warm, rng.normal(0, 0.008), -warm])))


def _lips(rng: np.random.Generator, skin: Array, strength: float) -> Array:
    natural = skin * np.array([0.92, 0.66, 0.66])
    painted = np.array([rng.uniform(0.45, 0.72), rng.uniform(0.14, 0.3), rng.uniform(0.18, 0.34)])
    painted = painted * (0.5 + 0.5 * skin.max())
    made_up = strength > 0.6
    return _unit((painted * 0.6 + natural * 0.4) if made_up else skin + (natural - skin) * 1.1)


def _hair(rng: np.random.Generator, depth: float, masculine: bool) -> tuple[Array, str | None]:
    dark_only = depth > 0.5
    index = int(rng.integers(3 if dark_only and rng.random() < 0.85 else 9))
    if dark_only and index in (4, 5, 6):
        index = 1
    colour = _unit(HAIR_COLOURS[index] * rng.uniform(0.85, 1.15))
    if masculine:
        if rng.random() < 0.2:
            return colour, None
        styles = [*("crop", "crop", "side_part", "quiff"), "afro" if depth > 0.55 else "curls"]
    else:
        styles = [
            *("bob", "long", "long", "pulled_back", "curls"),
            "afro" if depth > 0.45 else "bob",
        ]
    return colour, styles[rng.integers(len(styles))]


def _brow(rng: np.random.Generator, hair: Array, depth: float) -> Array:
    dark = np.array([0.09, 0.065, 0.05])
    share = rng.uniform(0.35, 0.8) if depth < 0.45 else 0.95
    return _unit(dark * share + np.minimum(hair, 0.45) * 0.8 * (1 - share))


def _iris(rng: np.random.Generator, depth: float) -> Array:
    limit = 2 if depth > 0.5 else len(IRIS_COLOURS)
    return _unit(IRIS_COLOURS[rng.integers(limit)] * rng.uniform(0.85, 1.15, 3))


def _direction(azimuth: float, height: float) -> Array:
    flat = np.cos(height)
    vector = [np.sin(azimuth) * flat, np.sin(height), np.cos(azimuth) * flat]
    return np.array(vector, np.float32)


def _lights(rng: np.random.Generator, exposure: float) -> tuple[Light, Light, Light]:
    side = rng.choice([-1.0, 1.0])
    warmth = rng.normal(0, 0.05)
    white = np.array([1 + warmth, 1.0, 1 - warmth])
    key = Light(
        _direction(side * rng.uniform(0.15, 0.9), rng.uniform(0.15, 0.8)),
        _linear(white * exposure * rng.uniform(0.65, 1.05)),
    )
    fill = Light(
        _direction(-side * rng.uniform(0.4, 1.2), rng.uniform(-0.1, 0.4)),
        _linear((2 - white) * exposure * rng.uniform(0.08, 0.32)),
    )
    rim = Light(
        _direction(-side * rng.uniform(2.2, 2.9), rng.uniform(0.1, 0.6)),
        _linear((1 + rng.normal(0, 0.06, 3)) * rng.uniform(0.0, 0.5)),
    )
    return key, fill, rim
