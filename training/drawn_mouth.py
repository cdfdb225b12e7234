"""The mouth of a drawn character, as pieces of its sheet: inside, teeth, tongue and lips."""

from __future__ import annotations

import numpy as np

from training.drawn_curves import between, disc, down_px, grid_triangles, tapered
from training.drawn_face import MOUTH_U
from training.drawn_features import Features
from training.drawn_palette import lighten, mix, shade
from training.drawn_sheet import Sheet
from training.facekit import Array

_TEETH = np.array([0.985, 0.98, 0.97], np.float32)
_LIPS = len(MOUTH_U)


def add_mouth(sheet: Sheet) -> None:
    """Inside of the mouth, teeth, tongue, lips and the line where they meet."""
    person = sheet.person
    _inside(sheet)
    upper, lower = person.lips, lighten(person.lips, 0.08)
    grid = grid_triangles(3, _LIPS)
    sheet.live("lower lip", lambda f: between(f.mouth.lower_in, f.mouth.lower_out, 3), grid, lower)
    sheet.live(
        "upper lip",
        lambda f: between(f.mouth.upper_out, f.mouth.upper_in, 3),
        grid,
        shade(upper, 0.55),
    )
    _lip_lights(sheet)
    _lip_line(sheet)


def _inside(sheet: Sheet) -> None:
    person = sheet.person
    deep = np.array([0.30, 0.07, 0.09], np.float32)
    rows = np.repeat(np.linspace(0, 1, 4), _LIPS)[:, None]
    tint = deep * (0.62 + 0.5 * rows)
    name = "mouth"
    grid = grid_triangles(4, _LIPS)
    sheet.live(name, lambda f: between(f.mouth.upper_in, f.mouth.lower_in, 4), grid, tint)
    tongue = disc((0, 0), (0.66 * person.mouth_width, 7.5), 3)

    def tongue_at(features: Features) -> Array:
        act = features.act
        low = features.mouth.lower_in[_LIPS // 2, 1] + 2.5 - 0.18 * act.down_px
        return tongue.points_P2 * np.array([max(act.width, 0.5), 1], np.float32) + np.array(
            [act.aside_px, low], np.float32
        )

    pink = np.array([0.83, 0.36, 0.38])
    sheet.live("tongue", tongue_at, tongue.triangles_F3, pink, on=name)
    sheet.live("lower teeth", _lower_teeth, grid_triangles(2, _LIPS), _TEETH * 0.93, on=name)
    sheet.live("upper teeth", _upper_teeth, grid_triangles(2, _LIPS), _TEETH * 0.985, on=name)


def _upper_teeth(features: Features) -> Array:
    """Fixed to the skull: lips move over them."""
    lips, person = features.mouth, features.person
    x = lips.upper_in[:, 0]
    round_u = 1 - 0.75 * np.abs(MOUTH_U) ** 2.2
    smile = sum(features.act.lift_px) / 2
    # Rounded lips come forward and hide the teeth.
    bottom = (
        person.mouth_y
        - 0.9
        + (4.6 - 4.0 * features.act.roundness) * round_u
        - 0.8 * smile * (np.abs(MOUTH_U) ** 1.7 - 0.35)
    )
    top = np.minimum(lips.upper_in[:, 1], bottom) - 8
    return np.concatenate([np.stack([x, top], 1), np.stack([x, bottom], 1)]).astype(np.float32)


def _lower_teeth(features: Features) -> Array:
    """Fixed to the jaw: seen where the lower lip is drawn below them."""
    lips, person, act = features.mouth, features.person, features.act
    x = lips.lower_in[:, 0] * 0.86
    smile = sum(act.lift_px) / 2
    top = person.mouth_y + act.chin_px + 3.4 + 1.6 * np.abs(MOUTH_U) ** 2
    top = top - 0.6 * smile * (np.abs(MOUTH_U) ** 1.7 - 0.35)
    return np.concatenate([np.stack([x, top], 1), np.stack([x, top + 9], 1)]).astype(np.float32)


def _lip_lights(sheet: Sheet) -> None:
    person = sheet.person

    def points(features: Features) -> Array:
        a, b = features.mouth.lower_in, features.mouth.lower_out
        swell = 0.17 * np.clip(1 - (MOUTH_U / 0.5) ** 2, 0, 1)[:, None]
        return np.concatenate([a + (b - a) * (0.42 - swell), a + (b - a) * (0.42 + swell)])

    bright = lighten(person.lips, 0.5)
    grid = grid_triangles(2, _LIPS)
    sheet.live("lower lip", points, grid, bright, on="lower lip", paint=True, alpha=0.5)


def _lip_line(sheet: Sheet) -> None:
    person = sheet.person
    width = (0.7 + 0.5 * max(person.line, 1.0)) * tapered(_LIPS, 0.55, 0.55)

    def points(features: Features) -> Array:
        line = features.mouth.upper_in
        return np.concatenate([line - down_px(width / 2), line + down_px(width / 2)])

    colour = mix(shade(person.lips, 3.2), person.ink, 0.5)
    sheet.live("lip line", points, grid_triangles(2, _LIPS), colour)
