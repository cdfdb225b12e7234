"""Neck, clothes, ears, head and hair of a drawn character, as pieces of its sheet."""

from __future__ import annotations

from typing import Unpack

import numpy as np

from training.drawn_curves import (
    Mesh,
    band,
    disc,
    grid_triangles,
    ring,
    smooth_curve,
    stroke,
    tapered,
)
from training.drawn_face import outline
from training.drawn_hair import COVERS_EARS, back_shapes, cap_curves, strands
from training.drawn_identity import Character
from training.drawn_palette import lighten, mix, shade
from training.drawn_sheet import Manner, Sheet
from training.facekit import Array

BACK_CM, EAR_CM, BODY_CM = -4.0, 0.5, 0.0
FACE_COLUMNS = 33


def edge_colour(person: Character, fill: Array) -> Array:
    """The outline of a filled shape: ink, warmed by what it surrounds."""
    return mix(person.ink, shade(fill, 2.6), 0.5)


def add_back(sheet: Sheet) -> None:
    """Hair behind the head."""
    person = sheet.person
    colour = person.cloth if person.hair_style == "hijab" else shade(person.hair, 0.9)
    if person.hair_style in ("bun", "buns", "afro", "braids"):
        colour = person.hair
    for mesh in back_shapes(person):
        drop = np.clip((mesh.points_P2[:, 1] - 180) / 70, 0, 1)
        headness = 1 - drop * drop * (3 - 2 * drop)
        behind = np.clip((mesh.points_P2[:, 1:] - 60) / 170, 0, 1)
        fill = colour * (1 - behind) + shade(colour, 1.1) * behind
        _rim(sheet, "back hair", mesh, colour, depth_cm=BACK_CM, headness=headness)
        sheet.still("back hair", mesh, fill, depth_cm=BACK_CM, headness=headness)


def _rim(sheet: Sheet, name: str, mesh: Mesh, fill: Array, **how: Unpack[Manner]) -> None:
    """An outline behind a mesh: the mesh once more, a little larger."""
    if sheet.person.line <= 0:
        return
    centre = (mesh.points_P2.min(axis=0) + mesh.points_P2.max(axis=0)) / 2
    reach = np.maximum(np.abs(mesh.points_P2 - centre).max(axis=0), 1)
    grown = centre + (mesh.points_P2 - centre) * (1 + sheet.person.line / reach)
    larger = Mesh(grown.astype(np.float32), mesh.triangles_F3)
    sheet.still(name, larger, edge_colour(sheet.person, fill), **how)


def add_neck(sheet: Sheet) -> None:
    """Neck and the skin above the clothes, with the chin's shadow."""
    person = sheet.person
    half = person.neck
    right = [(half * 0.98, 165), (half, 200), (half * 1.12, 222), (half * 1.9, 232), (90, 262)]
    curve = smooth_curve(right, 41)
    mesh = band(curve * np.array([-1, 1], np.float32), curve, 9)
    headness = np.clip((228 - mesh.points_P2[:, 1]) / 34, 0, 1)
    how: Manner = {"headness": headness, "depth_cm": 3.0}
    beside = np.clip((228 - np.tile(curve[:, 1], 2)) / 34, 0, 1)
    for flip in (-1, 1):
        edge = curve * np.array([flip, 1], np.float32)
        _edge(sheet, "neck", edge, person.skin, depth_cm=3.0, headness=beside)
    sheet.still("neck", mesh, shade(person.skin, 0.45), **how)
    face = outline(person)
    low = band(face * np.array([-0.92, 1]) + [0, 11], face * np.array([0.92, 1]) + [0, 11], 5)
    sheet.riding("neck", low, shade(person.skin, 1.7), on="neck", paint=True, alpha=0.85)


def _edge(sheet: Sheet, name: str, curve: Array, fill: Array, **how: Unpack[Manner]) -> None:
    """An outline along a curve, if the style has any."""
    width = sheet.person.line
    if width > 0:
        sheet.still(name, stroke(curve, width), edge_colour(sheet.person, fill), **how)


def add_clothes(sheet: Sheet) -> None:
    """What the character wears."""
    # The collar runs from the shoulder to the middle; shoulders go on from there.
    person = sheet.person
    half, wide = person.neck, person.shoulder
    dip = {"vee": 34.0, "boat": 10.0, "shirt": 26.0, "blazer": 40.0}.get(person.neckline, 7.0)
    base = 226.0 if person.neckline != "boat" else 229.0
    shoulder = [(half * 1.25, base - 3), (wide * 0.62, 235), (wide, 249), (wide * 1.18, 290)]
    right = smooth_curve(shoulder, 31)
    count = 19
    share = np.linspace(0, 1, count)[:, None]
    round_dip = np.sin(np.pi / 2 * share) if person.neckline in ("crew", "boat") else share
    collar = np.concatenate([half * 1.25 * (1 - share), base - 3 + dip * round_dip], axis=1)[
        ::-1
    ].astype(np.float32)
    top = np.concatenate([collar[:-1], right])
    whole = np.concatenate([top[::-1] * np.array([-1, 1], np.float32), top[1:]])
    floor = whole.copy()
    floor[:, 1] = 340
    if person.neckline == "hoodie":
        _hood(sheet)
    cloth = band(whole, floor, 5)
    low = np.clip((cloth.points_P2[:, 1:] - 225) / 110, 0, 1)
    sheet.still("cloth", cloth, person.cloth * (1 - 0.16 * low), depth_cm=BODY_CM, headness=0.0)
    _collar(sheet, collar, dip)
    _edge(sheet, "cloth", whole, person.cloth, depth_cm=BODY_CM, headness=0.0)


def _collar(sheet: Sheet, collar: Array, dip: float) -> None:
    person = sheet.person
    whole = np.concatenate([collar[::-1] * np.array([-1, 1], np.float32), collar[1:]])
    how: Manner = {"depth_cm": BODY_CM, "headness": 0.0}
    if person.neckline in ("crew", "vee", "boat"):
        sheet.still(
            "cloth", stroke(whole + np.array([0, 2.2], np.float32), 4.4), person.trim, **how
        )
    elif person.neckline == "turtle":
        half = person.neck * 1.14
        top = smooth_curve([(-half, 205), (0, 212), (half, 205)], 21)
        low = smooth_curve([(-half * 1.15, 229), (0, 238), (half * 1.15, 229)], 21)
        sheet.still("cloth", band(top, low), person.cloth, **how)
        fold = smooth_curve([(-half * 1.05, 216), (0, 223), (half * 1.05, 216)], 21)
        sheet.still("cloth", stroke(fold, 1.3), shade(person.cloth, 1.1), **how)
        _edge(sheet, "cloth", top, person.cloth, **how)
    elif person.neckline in ("shirt", "blazer"):
        _lapels(sheet, dip, how)


def _lapels(sheet: Sheet, dip: float, how: Manner) -> None:
    person = sheet.person
    long = person.neckline == "blazer"
    colour = shade(person.cloth, 0.55) if long else mix(person.cloth, person.trim, 0.5)
    half, reach = person.neck * 1.2, dip * (1.3 if long else 1.0)
    for side in (-1, 1):
        flip = np.array([side, 1], np.float32)
        inner = np.array([(half, 219), (0.5 * half, 223 + reach * 0.5), (1, 223 + reach)])
        outer = np.array([(half * 1.42, 226), (half * 1.25, 226 + reach * 0.7), (2, 225 + reach)])
        if not long:
            outer[1] = (half * 0.95, 226 + reach * 0.85)
        sheet.still("cloth", band(inner * flip, outer * flip), colour, **how)
        _edge(sheet, "cloth", np.concatenate([inner, outer[::-1]]) * flip, person.cloth, **how)


def _hood(sheet: Sheet) -> None:
    person = sheet.person
    half = person.neck
    for side in (-1, 1):
        flip = np.array([side, 1], np.float32)
        inner = smooth_curve([(half * 0.9, 206), (half * 1.0, 224), (half * 0.5, 246)], 21)
        outer = smooth_curve([(half * 1.35, 202), (half * 2.1, 226), (half * 1.5, 262)], 21)
        how: Manner = {"depth_cm": BODY_CM, "headness": 0.0}
        sheet.still("hood", band(inner * flip, outer * flip), shade(person.cloth, 0.6), **how)
        _edge(sheet, "hood", outer * flip, person.cloth, **how)


def add_ears(sheet: Sheet) -> None:
    """Ears, unless hair or headgear covers them."""
    person = sheet.person
    if person.hair_style in COVERS_EARS:
        return
    for side in (-1, 1):
        centre = (side * person.face_width * 1.0, person.eye_y + 13)
        size = (9.5 * person.ear, 14.0 * person.ear)
        mesh = disc(centre, size)
        _rim(sheet, "ears", mesh, person.skin, depth_cm=EAR_CM)
        sheet.still("ears", mesh, shade(person.skin, 0.25), depth_cm=EAR_CM)
        inner = disc((centre[0] + side * 1.5, centre[1] + 1), (size[0] * 0.5, size[1] * 0.58))
        sheet.still("ears", inner, shade(person.skin, 1.0), on="ears", paint=True, alpha=0.8)
        if person.earrings:
            low = (centre[0] + side * 1.5, centre[1] + size[1] + 3)
            sheet.still("earrings", disc(low, (3.4, 3.4)), person.trim, depth_cm=EAR_CM)


def add_head(sheet: Sheet) -> None:
    """The face's skin with its shading."""
    person = sheet.person
    right = outline(person)
    mirror = np.array([-1, 1], np.float32)
    if person.line > 0:
        for curve in (right * mirror, right):
            sheet.riding("face", stroke(curve, person.line), edge_colour(person, person.skin))
    share = np.linspace(0, 1, FACE_COLUMNS, dtype=np.float32)[:, None, None]
    points = (right * mirror + share * (right - right * mirror)).reshape(-1, 2)
    mesh = Mesh(points, grid_triangles(FACE_COLUMNS, len(right)))
    sheet.riding("face", mesh, _skin_tint(person, points))
    if person.cel > 0:
        _cel_shadow(sheet, right)
    if person.blush > 0:
        _blush(sheet)
    if person.freckles:
        _freckles(sheet)


def _skin_tint(person: Character, points: Array) -> Array:
    across = np.clip(np.abs(points[:, :1]) / person.face_width, 0, 1) ** 3
    down = np.clip((points[:, 1:] - 150) / 60, 0, 1) ** 2
    soft = (1 - person.cel) * (0.30 * across + 0.25 * down)
    tint: Array = person.skin * (1 - soft) + shade(person.skin, 1.4) * soft
    return tint


def _cel_shadow(sheet: Sheet, right: Array) -> None:
    """A hard-edged shadow along the side away from the light."""
    person = sheet.person
    side = -person.light_side
    edge = right * np.array([side, 1], np.float32)
    # The face's own shape, moved toward the light: what stays uncovered is in shadow.
    swell = np.sin(np.pi * np.linspace(0, 1, len(right)))[:, None] ** 0.5
    inner = (edge + swell * np.array([-side * 13.0, -6.0])).astype(np.float32)
    colour = shade(person.skin, 0.9)
    sheet.riding("face", band(inner, edge), colour, on="face", paint=True, alpha=0.75)


def _blush(sheet: Sheet) -> None:
    person = sheet.person
    rosy = mix(person.skin * np.array([1.0, 0.62, 0.62]), np.array([0.93, 0.35, 0.40]), 0.35)
    for side in (-1, 1):
        mesh = disc((side * 35.0, 139.0), (15.0, 10.5), 6)
        rings = np.repeat(np.linspace(1, 0, 6), len(mesh.points_P2) // 6)
        alpha = person.blush * rings**0.8
        sheet.riding("face", mesh, rosy, on="face", paint=True, alpha=alpha)


def _freckles(sheet: Sheet) -> None:
    person = sheet.person
    rng = np.random.default_rng(person.seed + 1)
    for _ in range(person.freckles):
        x, y = rng.normal(0, 22), rng.normal(134, 5)
        size = float(rng.uniform(0.6, 1.2))
        spot = ring((float(x), float(y)), (size, size), 9)
        mesh = band(np.repeat(np.array([[x, y]], np.float32), 9, axis=0), spot)
        colour = shade(person.skin, 1.8)
        sheet.riding("face", mesh, colour, on="face", paint=True, alpha=0.7)


def add_hair_shadow(sheet: Sheet) -> None:
    """The shadow that hair throws on the forehead."""
    curves = cap_curves(sheet.person)
    if curves is None or sheet.person.hair_style == "buzz":
        return
    top, line = curves
    thrown = line + np.array([-1.5 * sheet.person.light_side, 4.5], np.float32)
    colour = shade(sheet.person.skin, 1.1)
    sheet.still("face", band(top, thrown), colour, on="face", paint=True, alpha=0.7)


def add_hair(sheet: Sheet) -> None:
    """Hair, scarf or cap on top of the head, with gloss and strands."""
    person = sheet.person
    curves = cap_curves(person)
    if curves is None:
        return
    top, line = curves
    covered = person.hair_style in ("hijab", "beanie")
    colour = person.cloth if covered else person.hair
    alpha = 0.82 if person.hair_style == "buzz" else 1.0
    tint = _hair_tint(person, colour, top)
    sheet.still("hair", band(top, line, 7), tint, alpha=alpha, lift_cm=0.8)
    streak: Manner = {"on": "hair", "paint": True, "alpha": 0.7, "lift_cm": 0.8}
    for curve in strands(person, 7):
        width = 1.6 * tapered(len(curve))
        dark = shade(colour, 1.0)
        sheet.still("hair", stroke(curve, width), dark, **streak)
    if person.gloss > 0 and not covered and person.hair_style != "buzz":
        _gloss(sheet, top, line, colour)
    if person.hair_style == "beanie":
        _beanie_rim(sheet, line)
    if person.hair_style != "buzz":
        _edge(sheet, "hair", line, colour, lift_cm=0.8)
        _edge(sheet, "hair", top, colour, lift_cm=0.8)


def _hair_tint(person: Character, colour: Array, top: Array) -> Array:
    rows = np.repeat(np.linspace(0, 1, 7), len(top))[:, None]
    light = lighten(colour, 0.10 * (1 - person.cel))
    tint: Array = light * (1 - rows) + shade(colour, 0.5) * rows
    return tint


def _gloss(sheet: Sheet, top: Array, line: Array, colour: Array) -> None:
    person = sheet.person
    count = len(top)
    span = slice(int(0.2 * count), int(0.62 * count))
    if person.light_side > 0:
        span = slice(count - span.stop, count - span.start)
    a, b = top[span], line[span]
    swell = tapered(len(a))[:, None] * 0.16
    upper, lower = a + (b - a) * (0.34 - swell), a + (b - a) * (0.34 + swell)
    mesh = band(upper.astype(np.float32), lower.astype(np.float32))
    shine = lighten(colour, 0.55)
    sheet.still("hair", mesh, shine, on="hair", paint=True, alpha=person.gloss, lift_cm=0.8)


def _beanie_rim(sheet: Sheet, line: Array) -> None:
    colour = sheet.person.trim
    rim = band(line - np.array([0, 13], np.float32), line + np.array([0, 5], np.float32))
    sheet.still("hair", rim, colour, lift_cm=1.0)
    for at in range(4, len(line) - 3, 5):
        rib = stroke(np.stack([line[at] - [0, 11], line[at] + [0, 3]]), 1.1)
        sheet.still("hair", rib, shade(colour, 1.0), paint=True, on="hair", alpha=0.7)
