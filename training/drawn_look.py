"""Eyes, brows, nose, beard and glasses of a drawn character, as pieces of its sheet."""

from __future__ import annotations

import numpy as np

from training.drawn_act import SIDES
from training.drawn_body import edge_colour
from training.drawn_curves import (
    Mesh,
    band,
    between,
    disc,
    down_px,
    grid_triangles,
    mirrored,
    ring,
    sides,
    smooth_curve,
    stroke,
    tapered,
)
from training.drawn_face import EYE_U, lid_sheet, outline
from training.drawn_features import Features
from training.drawn_identity import Character
from training.drawn_palette import lighten, mix, shade
from training.drawn_sheet import Sheet
from training.facekit import Array

_WHITE = np.array([0.985, 0.98, 0.97], np.float32)
_EYE = len(EYE_U)
_RIM = 40


def add_eyes(sheet: Sheet) -> None:
    """Whites, irises, lids and lashes."""
    for side in SIDES:
        _eyeball(sheet, side)
        _lid(sheet, side)
        _lashes(sheet, side)


def _eyeball(sheet: Sheet, side: int) -> None:
    person, name = sheet.person, f"eye {side}"
    grid = grid_triangles(4, _EYE)
    white = person.skin if person.eye_dot else _white_tint()
    sheet.live(name, lambda f: between(f.eyes[side].upper, f.eyes[side].lower, 4), grid, white)
    radius = person.iris_size * min(person.eye_up + person.eye_low, 1.25 * person.eye_width)
    dark = shade(person.iris, 2.2)
    if person.eye_dot:
        _dot(sheet, side)
        return
    round_grid = grid_triangles(4, _RIM)
    _iris(sheet, side, radius, dark, 2)
    _iris(sheet, side, radius * 0.86, _iris_tint(person, round_grid.max() + 1), 4)
    pupil = mix(person.ink, np.zeros(3), 0.7)
    _iris(sheet, side, radius * 0.46, pupil, 2, paint=True)
    for offset, size in (((-0.32, -0.38), 0.27), ((0.34, 0.36), 0.13)):
        spot = np.array(offset) * radius * np.array([person.light_side * -1, 1])
        _iris(sheet, side, radius * size, np.ones(3), 2, paint=True, shift=spot, alpha=0.95)
    _lid_shadow(sheet, side)


def _dot(sheet: Sheet, side: int) -> None:
    """The simplest eye: a dark spot on the skin, with one light in it."""
    person = sheet.person
    radius = 0.36 * (person.eye_up + person.eye_low)
    _iris(sheet, side, radius, mix(person.ink, np.zeros(3), 0.6), 2)
    spot = np.array([-0.3 * person.light_side, -0.38]) * radius
    _iris(sheet, side, radius * 0.3, np.ones(3), 2, paint=True, shift=spot, alpha=0.95)


def _white_tint() -> Array:
    white = mix(_WHITE, shade(_WHITE, 0.8), 0.15)
    return np.repeat(white[None], 4 * _EYE, axis=0)


def _iris_tint(person: Character, count: int) -> Array:
    rim = ring((0, 0), (1, 1), _RIM)[:, 1]
    rows = np.linspace(0, 1, 4)[:, None]
    low = (rows * rim[None]).reshape(-1, 1)[:count]
    tint: Array = np.where(
        low > 0,
        person.iris + (lighten(person.iris, 0.35) - person.iris) * np.clip(low, 0, 1),
        person.iris + (shade(person.iris, 1.6) - person.iris) * np.clip(-low, 0, 1),
    )
    return tint


def _iris(
    sheet: Sheet,
    side: int,
    radius: float,
    colour: Array,
    rings: int,
    *,
    paint: bool = False,
    shift: Array | None = None,
    alpha: float = 1.0,
) -> None:
    moved = np.zeros(2) if shift is None else shift
    local = disc((float(moved[0]), float(moved[1])), (radius, radius), rings)

    def points(features: Features) -> Array:
        return local.points_P2 + np.array(features.eyes[side].iris, np.float32)

    name = f"iris {side}"
    sheet.live(name, points, local.triangles_F3, colour, on=f"eye {side}", paint=paint, alpha=alpha)


def _lid_shadow(sheet: Sheet, side: int) -> None:
    depth = 0.24 * (sheet.person.eye_up + sheet.person.eye_low)

    def points(features: Features) -> Array:
        edge = features.eyes[side].lid
        return between(edge, edge + np.array([0, depth], np.float32), 2)

    alpha = np.repeat([0.42, 0.10], _EYE)
    colour = shade(np.array([0.45, 0.42, 0.50]), 1.0)
    grid = grid_triangles(2, _EYE)
    sheet.live(f"eye {side}", points, grid, colour, on=f"eye {side}", paint=True, alpha=alpha)


def _lid(sheet: Sheet, side: int) -> None:
    person = sheet.person
    paint = mix(person.skin * np.array([0.85, 0.55, 0.62]), person.trim, 0.35)
    plain = person.skin if person.eye_dot else shade(person.skin, 0.55)
    colour = mix(plain, paint, person.lid_paint)

    def points(features: Features) -> Array:
        return between(*lid_sheet(person, features.eyes[side]), 4)

    grid = grid_triangles(4, _EYE)
    sheet.live(f"lid {side}", points, grid, colour, on=f"eye {side}")
    if person.crease > 0 and not person.eye_dot:
        _crease(sheet, side)


def _crease(sheet: Sheet, side: int) -> None:
    person = sheet.person
    width = 1.3 * tapered(_EYE)

    def points(features: Features) -> Array:
        line = features.eyes[side].upper - np.array([0, person.crease], np.float32)
        middle = line.mean(axis=0)
        return between(*sides(middle + (line - middle) * np.array([0.92, 0.8]), width), 2)

    colour = shade(person.skin, 1.9)
    grid = grid_triangles(2, _EYE)
    sheet.live("face", points, grid, colour, on="face", paint=True, alpha=0.75)


def _lashes(sheet: Sheet, side: int) -> None:
    person = sheet.person
    u = EYE_U * side
    swell = person.lash * (0.35 + 0.65 * np.clip(0.5 + 0.6 * u, 0, 1)) * tapered(_EYE, 0.25, 0.25)

    def upper(features: Features) -> Array:
        edge = features.eyes[side].lid.copy()
        flick = np.clip((u - 0.55) / 0.45, 0, 1) ** 1.5 * person.wing
        edge += np.stack([side * flick, -0.8 * flick], axis=1).astype(np.float32)
        return between(edge - down_px(swell * 0.75), edge + down_px(swell * 0.25), 2)

    def lower(features: Features) -> Array:
        edge = features.eyes[side].lower
        return between(edge, edge + down_px(0.9 * tapered(_EYE)), 2)

    ink = mix(person.ink, np.array([0.08, 0.05, 0.07]), 0.5)
    grid = grid_triangles(2, _EYE)
    if person.eye_dot:
        sheet.live(f"lash {side}", upper, grid, ink)
        return
    sheet.live("face", lower, grid, shade(person.skin, 2.2), alpha=0.7)
    sheet.live(f"lash {side}", upper, grid, ink)


def add_brows(sheet: Sheet) -> None:
    """Brows: thick at the nose, thin at the temples."""
    person = sheet.person
    width = person.brow_thick * np.array(
        [0.62, 0.92, 1.0, 1.0, 0.97, 0.9, 0.8, 0.66, 0.5, 0.32, 0.08], np.float32
    )
    for side in SIDES:

        def points(features: Features, side: int = side) -> Array:
            return between(*sides(features.brows[side], width), 2)

        sheet.live(f"brow {side}", points, grid_triangles(2, 11), person.brows)


def add_nose(sheet: Sheet) -> None:
    """One of five manners of drawing a nose."""
    person = sheet.person
    y, half, light = person.nose_y, person.nose_width, person.light_side
    dark = shade(person.skin, 1.5) if person.line <= 0 else edge_colour(person, person.skin)
    line = max(person.line, 1.5)
    if person.nose == "soft":
        bulb = disc((0, y - 4), (half * 0.8, 6.5), 5)
        fade = np.repeat(np.linspace(1, 0, 5), len(bulb.points_P2) // 5)
        rosy = shade(person.skin, 1.1)
        sheet.riding("face", bulb, rosy, on="face", paint=True, alpha=0.75 * fade)
    if person.nose == "wedge":
        bridge = [
            (-light * 2.0, person.eye_y + 2),
            (-light * 4.0, y - 14),
            (-light * half * 0.9, y),
        ]
        back = [(-light * 2.0, person.eye_y + 2), (0, y - 10), (light * half * 0.2, y + 2)]
        mesh = band(smooth_curve(bridge, 15), smooth_curve(back, 15))
        tone = shade(person.skin, 0.9)
        sheet.riding("face", mesh, tone, on="face", paint=True, alpha=0.8)
    for curve, width in _nose_lines(person.nose, y, half, light, line):
        sheet.riding("face", stroke(curve, width), dark, on="face", paint=True)
    shine = disc((light * 1.5, y - 8), (1.8, 2.6))
    bright = lighten(person.skin, 0.5)
    sheet.riding("face", shine, bright, on="face", paint=True, alpha=0.55)


def _nose_lines(
    manner: str, y: float, half: float, light: int, line: float
) -> list[tuple[Array, Array]]:
    if manner in ("button", "soft"):
        curve = smooth_curve([(-0.5 * half, y - 2), (0, y + 1.6), (0.5 * half, y - 2)], 15)
        return [(curve, line * tapered(15))]
    if manner == "side":
        way = [(-light * 3.0, y - 26), (-light * 5.5, y - 12), (-light * half * 0.8, y - 2)]
        curve = smooth_curve([*way, (-light * half * 0.35, y + 1.5), (light * 1.0, y + 1)], 21)
        return [(curve, line * tapered(21))]
    holes = []
    for side in SIDES:
        arc = [(side * 0.78 * half, y - 5), (side * 0.8 * half, y - 1), (side * 0.3 * half, y)]
        holes.append((smooth_curve(arc, 11), line * tapered(11)))
    return holes if manner == "nostrils" else []


def add_beard(sheet: Sheet) -> None:
    """Beard on the jaw and hair on the upper lip."""
    person = sheet.person
    if not person.beard:
        return
    alpha = 0.32 if person.beard == "stubble" else 1.0
    colour = person.hair if person.hair_style != "bald" else person.brows
    right = outline(person)
    y, half = person.mouth_y, person.mouth_width
    if person.beard in ("full", "stubble"):
        start = int(np.argmin(np.abs(right[:, 1] - person.eye_y - 16)))
        low = right[start:] + np.array([0.6, 2.0 if alpha == 1 else 0.0], np.float32)
        low[-1, 0] = 0
        rim = [low[0], (0.82 * right[start, 0], y - 20), (1.55 * half, y - 4), (1.2 * half, y + 5)]
        upper = smooth_curve([*rim, (0.6 * half, y + 12), (0, y + 13)], len(low))
        flip = np.array([-1, 1], np.float32)
        mesh = band(
            np.concatenate([low * flip, low[-2::-1]]),
            np.concatenate([upper * flip, upper[-2::-1]]),
            5,
        )
        _fuzz(sheet, mesh, colour, alpha)
    if person.beard == "goatee":
        top = smooth_curve([(-0.6 * half, y + 12), (0, y + 14), (0.6 * half, y + 12)], 21)
        bottom = smooth_curve(
            [(-0.62 * half, y + 16), (0, person.chin_y + 2), (0.62 * half, y + 16)], 21
        )
        _fuzz(sheet, band(top, bottom, 4), colour, alpha)
    _fuzz(sheet, _moustache(person), colour, alpha)


def _moustache(person: Character) -> Mesh:
    """Hair on the upper lip; with a beard it grows down beside the mouth to meet it."""
    y, half, lip = person.mouth_y, person.mouth_width, person.lip_up
    joined = person.beard in ("full", "stubble")
    end, low = (1.45, 3.0) if joined else (1.1, -2.5)
    over = [(0, y - lip - 5.5), (0.45 * half, y - lip - 6.5), (1.05 * half, y - 5.0)]
    over.append((end * half, y + low - 1.5))
    under = [(0, y - lip - 0.2), (0.5 * half, y - lip + 0.6), (1.02 * half, y - 1.0)]
    under.append(((end - 0.12) * half, y + low + 1.0))
    return band(smooth_curve(mirrored(over), 41), smooth_curve(mirrored(under), 41), 3)


def _fuzz(sheet: Sheet, mesh: Mesh, colour: Array, alpha: float) -> None:
    if alpha < 1:
        sheet.riding("face", mesh, colour, on="face", paint=True, alpha=alpha)
    else:
        sheet.riding("beard", mesh, colour)


def add_glasses(sheet: Sheet) -> None:
    """Glasses, if worn: two rims, a bridge and the temples' beginnings."""
    person = sheet.person
    if not person.glasses:
        return
    size = person.eye_width + 7.5
    colour = mix(person.ink, person.trim, 0.15)
    power = 1.0 if person.glasses == "round" else 0.55
    for side in SIDES:
        rim = ring((0, 0), (1, 1), 49)
        rim = np.sign(rim) * np.abs(rim) ** power * np.array([size, size * 0.88])
        rim = rim.astype(np.float32) + np.array([side * person.eye_gap, person.eye_y + 2])
        sheet.still("glasses", stroke(rim, 2.1), colour, lift_cm=1.2)
        reach = [(side * (person.eye_gap + size), person.eye_y - 2)]
        arm = np.array([*reach, (side * person.face_width * 1.0, person.eye_y - 3)], np.float32)
        sheet.still("glasses", stroke(arm, 2.1), colour, lift_cm=0.4)
    inner = person.eye_gap - size
    if inner > 0.5:
        bridge = smooth_curve(
            [(-inner, person.eye_y), (0, person.eye_y - 2), (inner, person.eye_y)], 9
        )
        sheet.still("glasses", stroke(bridge, 2.1), colour, lift_cm=1.4)
