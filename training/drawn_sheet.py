"""A stack of flat meshes, drawn in order: the body of a drawn character.

N = points of the whole stack, P = points of one piece.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypedDict, Unpack

import numpy as np

from training.drawn_act import Act
from training.drawn_curves import Mesh
from training.drawn_face import head_depth_cm, skin_shift
from training.drawn_features import Features
from training.drawn_identity import Character
from training.facekit import Array, Ints

Live = Callable[[Features], Array]
MAX_PIECES = 250


class Manner(TypedDict, total=False):
    """How a piece is added.

    `on` names the thing it is cut off with, `paint` says that it changes colours only, `alpha` its
    opacity, `lift_cm` its height over the head's surface or `depth_cm` a flat depth, `headness`
    how much it follows the head.
    """

    on: str
    paint: bool
    alpha: float | Array
    lift_cm: float
    depth_cm: float
    headness: float | Array


@dataclass(frozen=True)
class Piece:
    """One mesh of the stack.

    Attributes:
        part: slice of the stack's points.
        ident: number of the thing it belongs to; what has the same number hides nothing of it.
        clip: ident of the thing it is painted upon and cut off with; 0 for none.
        paint: changes colours only: it moves with what it is painted upon.
    """

    part: slice
    triangles_F3: Ints
    colours_P4: Array
    depth_P: Array
    head_P: Array
    ident: int
    clip: int
    paint: bool


@dataclass
class Sheet:
    """The stack, lowest first.

    Still pieces stay, riding ones follow the skin, live ones are computed every frame.
    """

    person: Character
    pieces: list[Piece] = field(default_factory=list)
    _idents: dict[str, int] = field(default_factory=dict)
    _points: list[Array] = field(default_factory=list)
    _riding: list[slice] = field(default_factory=list)
    _live: list[tuple[slice, Live]] = field(default_factory=list)

    def still(self, name: str, mesh: Mesh, colour: Array, **how: Unpack[Manner]) -> None:
        """Add a piece that never moves."""
        self._add(name, mesh, colour, **how)

    def riding(self, name: str, mesh: Mesh, colour: Array, **how: Unpack[Manner]) -> None:
        """Add a piece that lies on the face's skin."""
        self._riding.append(self._add(name, mesh, colour, **how))

    def live(
        self, name: str, make: Live, triangles_F3: Ints, colour: Array, **how: Unpack[Manner]
    ) -> None:
        """Add a piece whose points follow from the frame's features."""
        rest = Mesh(make(Features(self.person, Act())), triangles_F3)
        self._live.append((self._add(name, rest, colour, **how), make))

    def points(self, act: Act) -> Array:
        """All points [N, 2] in a frame, px of the sheet."""
        placed = np.concatenate(self._points)
        riding = np.concatenate([np.arange(part.start, part.stop) for part in self._riding])
        placed[riding] += skin_shift(self.person, act, placed[riding])
        features = Features(self.person, act)
        for part, make in self._live:
            placed[part] = make(features)
        return placed

    def ident(self, name: str) -> int:
        """The number of a thing, a new one for a new name."""
        return self._idents.setdefault(name, len(self._idents) + 1)

    def _add(
        self,
        name: str,
        mesh: Mesh,
        colour: Array,
        **how: Unpack[Manner],
    ) -> slice:
        flat_cm, on = how.get("depth_cm"), how.get("on", "")
        count = len(mesh.points_P2)
        begin = sum(len(points) for points in self._points)
        part = slice(begin, begin + count)
        colours = np.empty((count, 4), np.float32)
        colours[:, :3], colours[:, 3] = colour, how.get("alpha", 1.0)
        depth = head_depth_cm(mesh.points_P2) + how.get("lift_cm", 0.0)
        if flat_cm is not None:
            depth = np.full(count, flat_cm, np.float32)
        self._points.append(np.asarray(mesh.points_P2, np.float32))
        self.pieces.append(
            Piece(
                part=part,
                triangles_F3=mesh.triangles_F3 + begin,
                colours_P4=colours,
                depth_P=depth,
                head_P=np.broadcast_to(np.asarray(how.get("headness", 1.0), np.float32), (count,)),
                ident=self.ident(name),
                clip=self.ident(on) if on else 0,
                paint=how.get("paint", False),
            )
        )
        return part
