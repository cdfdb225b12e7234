"""A made-up drawn character: proportions (px of the sheet), colours (sRGB 0..1) and manner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from training.drawn_palette import (
    BACKDROPS,
    CLOTHES,
    EYES,
    FANCY_HAIR,
    FANCY_SKIN,
    HAIR,
    SKIN,
    lip_colour,
    mix,
    pick,
    shade,
)
from training.facekit import Array

LONG_STYLES = ("straight", "wavy", "bob", "curls", "ponytail", "bun", "braids", "buns")
SHORT_STYLES = ("crop", "quiff", "swept", "buzz", "bald", "afro", "curly_top", "mop")
COVERED_STYLES = ("hijab", "beanie")
FRINGES = ("sweep", "curtain", "bangs", "pulled", "wisps")
NECKLINES = ("crew", "vee", "turtle", "shirt", "hoodie", "boat", "blazer")


@dataclass(frozen=True)
class Character:
    """Everything that stays the same through a clip; px unless said otherwise.

    `line` is the outline's width (0 for none); `cel` 0 (soft shading) .. 1 (two hard tones).
    """

    skin: Array
    lips: Array
    hair: Array
    brows: Array
    iris: Array
    cloth: Array
    trim: Array
    ink: Array
    backdrop: tuple[Array, Array]
    backdrop_kind: str
    line: float
    cel: float
    light_side: int
    face_width: float
    cheek: float
    jaw: float
    chin: float
    chin_y: float
    top_y: float
    neck: float
    shoulder: float
    ear: float
    eye_gap: float
    eye_y: float
    eye_width: float
    eye_up: float
    eye_low: float
    eye_tilt: float
    eye_dot: bool
    iris_size: float
    crease: float
    lash: float
    wing: float
    lid_paint: float
    brow_y: float
    brow_length: float
    brow_thick: float
    brow_arch: float
    brow_tilt: float
    nose: str
    nose_y: float
    nose_width: float
    mouth_y: float
    mouth_width: float
    lip_up: float
    lip_low: float
    bow: float
    corners: float
    blush: float
    freckles: int
    beard: str
    hair_style: str
    fringe: str
    fringe_y: float
    flip: int
    volume: float
    gloss: float
    neckline: str
    glasses: str
    earrings: bool
    articulation: float
    seed: int


def sample_character(rng: np.random.Generator) -> Character:
    """Draw a character."""
    masculine = bool(rng.random() < 0.45)
    fancy = rng.random() < 0.07
    depth = float(rng.uniform(0, 1))
    skin = pick(rng, FANCY_SKIN, 0.02) if fancy else _tone(rng, depth)
    hair = _hair_colour(rng, depth, fancy)
    style, fringe = _hair_style(rng, masculine)
    line = 0.0 if rng.random() < 0.45 else float(rng.uniform(0.9, 2.1))
    ink = mix(shade(skin, 3.2), np.array([0.10, 0.06, 0.09]), rng.uniform(0.35, 0.9))
    painted = (not masculine) and rng.random() < 0.45
    cloth = pick(rng, CLOTHES, 0.03)
    big = float(rng.beta(2.0, 1.6)) + (0.45 if rng.random() < 0.12 else 0.0)
    return Character(
        skin=skin,
        lips=lip_colour(rng, skin, 1.0 if painted else (0.12 if masculine else 0.5)),
        hair=hair,
        brows=mix(hair if style != "bald" else shade(skin, 2.2), shade(skin, 2.6), 0.45),
        iris=pick(rng, EYES if depth < 0.55 or fancy else EYES[:4], 0.03),
        cloth=cloth,
        trim=_trim(rng, cloth),
        ink=ink,
        backdrop=_backdrop(rng, cloth),
        backdrop_kind=str(rng.choice(("plain", "fade", "circle", "blobs", "arch", "dots"))),
        line=line,
        cel=float(rng.random() < 0.55),
        light_side=int(rng.choice((-1, 1))),
        **_head_proportions(rng, masculine),
        **_eye_proportions(rng, masculine, big),
        eye_dot=bool(rng.random() < 0.12) and float(skin.mean()) > 0.35,
        **_lower_proportions(rng, masculine),
        blush=float(rng.uniform(0.15, 0.6)) if rng.random() < 0.75 else 0.0,
        freckles=int(rng.integers(10, 26)) if rng.random() < 0.16 else 0,
        beard=_beard(rng, masculine),
        hair_style=style,
        fringe=fringe,
        fringe_y=float(rng.uniform(-1, 1)),
        flip=int(rng.choice((-1, 1))),
        volume=float(rng.uniform(0.85, 1.25)),
        gloss=float(rng.uniform(0.1, 0.3)) if rng.random() < 0.7 else 0.0,
        neckline=str(rng.choice(NECKLINES)),
        glasses=str(rng.choice(("round", "square"))) if rng.random() < 0.17 else "",
        earrings=bool((not masculine) and rng.random() < 0.4),
        articulation=float(rng.uniform(0.9, 1.25)),
        seed=int(rng.integers(2**31)),
    )


def _tone(rng: np.random.Generator, depth: float) -> Array:
    at = depth * (len(SKIN) - 1)
    low = min(int(at), len(SKIN) - 2)
    tone = SKIN[low] * (1 - at + low) + SKIN[low + 1] * (at - low)
    result: Array = np.clip(tone + rng.normal(0, 0.012, 3), 0.03, 0.98).astype(np.float32)
    return result


def _hair_colour(rng: np.random.Generator, depth: float, fancy: bool) -> Array:
    if fancy or rng.random() < 0.13:
        return pick(rng, FANCY_HAIR, 0.03)
    return pick(rng, HAIR[:4] if depth > 0.5 and rng.random() < 0.85 else HAIR, 0.02)


def _hair_style(rng: np.random.Generator, masculine: bool) -> tuple[str, str]:
    if rng.random() < 0.07:
        return str(rng.choice(("beanie",) if masculine else COVERED_STYLES)), "pulled"
    styles: tuple[str, ...] = SHORT_STYLES if masculine else (*LONG_STYLES, "afro", "swept", "mop")
    if masculine and rng.random() < 0.12:
        styles = ("wavy", "bun", "curls")
    style = str(rng.choice(styles))
    pulled = style in ("bun", "buns", "ponytail", "braids") and rng.random() < 0.5
    return style, "pulled" if pulled else str(rng.choice(FRINGES))


def _trim(rng: np.random.Generator, cloth: Array) -> Array:
    return mix(cloth, np.array([1.0, 0.98, 0.95]), 0.85) if rng.random() < 0.5 else shade(cloth, 1)


def _backdrop(rng: np.random.Generator, cloth: Array) -> tuple[Array, Array]:
    """A colour that is not the clothes', and a companion."""
    tries = [pick(rng, BACKDROPS, 0.02) for _ in range(4)]
    base = max(tries, key=lambda colour: float(np.abs(colour - cloth).sum()))
    if rng.random() < 0.5:
        return base, mix(base, np.ones(3, np.float32), rng.uniform(0.2, 0.45))
    return base, shade(base, rng.uniform(0.4, 1.0))


def _head_proportions(rng: np.random.Generator, masculine: bool) -> dict[str, Any]:
    width = rng.uniform(56, 64)
    jaw = rng.uniform(0.78, 0.94) if masculine else rng.uniform(0.68, 0.86)
    return {
        "face_width": float(width),
        "cheek": float(rng.uniform(0.94, 1.02)),
        "jaw": float(jaw),
        "chin": float(rng.uniform(0.30, 0.46) if masculine else rng.uniform(0.2, 0.34)),
        "chin_y": float(rng.uniform(196, 206)),
        "top_y": float(rng.uniform(34, 44)),
        "neck": float(rng.uniform(28, 36) if masculine else rng.uniform(20, 27)),
        "shoulder": float(rng.uniform(112, 135) if masculine else rng.uniform(92, 112)),
        "ear": float(rng.uniform(0.85, 1.15)),
    }


def _eye_proportions(rng: np.random.Generator, masculine: bool, big: float) -> dict[str, Any]:
    up = 6.4 + 6.4 * big - (1.0 if masculine else 0)
    low = 4.2 + 4.4 * big
    return {
        "eye_gap": float(rng.uniform(26, 30)),
        "eye_y": float(rng.uniform(107, 111)),
        "eye_width": float(12.2 + 5.2 * big + rng.uniform(-0.8, 0.8)),
        "eye_up": float(up),
        "eye_low": float(low),
        "eye_tilt": float(rng.normal(0.8, 1.2)),
        "iris_size": float(rng.uniform(0.56, 0.68)),
        "crease": float(rng.uniform(2.5, 4.5)) if rng.random() < 0.75 else 0.0,
        "lash": float(rng.uniform(1.2, 2.2) if masculine else rng.uniform(1.8, 3.6)),
        "wing": float(0.0 if masculine else rng.uniform(0, 4.5)),
        "lid_paint": float(0.0 if masculine or rng.random() < 0.6 else rng.uniform(0.2, 0.8)),
        "brow_y": float(rng.uniform(17, 22) + 3 * big),
        "brow_length": float(rng.uniform(14, 18)),
        "brow_thick": float(rng.uniform(4.0, 7.0) if masculine else rng.uniform(2.4, 4.6)),
        "brow_arch": float(rng.uniform(1.0, 5.0)),
        "brow_tilt": float(rng.normal(0, 1.5)),
    }


def _lower_proportions(rng: np.random.Generator, masculine: bool) -> dict[str, Any]:
    full = float(rng.beta(1.5, 1.7)) * (0.6 if masculine else 1.0)
    return {
        "nose": str(rng.choice(("button", "side", "soft", "wedge", "nostrils"))),
        "nose_y": float(rng.uniform(138, 144)),
        "nose_width": float(rng.uniform(8, 13)),
        "mouth_y": float(rng.uniform(163, 167)),
        "mouth_width": float(rng.uniform(18, 24)),
        "lip_up": float(3.2 + 4.2 * full),
        "lip_low": float(4.4 + 5.2 * full),
        "bow": float(rng.uniform(0.1, 0.4)),
        "corners": float(rng.normal(2.6, 1.0)),
    }


def _beard(rng: np.random.Generator, masculine: bool) -> str:
    if not masculine or rng.random() < 0.55:
        return ""
    return str(rng.choice(("full", "stubble", "moustache", "goatee")))
