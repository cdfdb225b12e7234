"""Draw characters by OpenGL: pictures and exact backward flow, as `training.renderer` does heads.

Every piece is a flat mesh; flow is exact by interpolation of each point's reference position.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np

from training import drawn_shaders, shaders
from training.camera import PICTURE_PX, Framing, View
from training.drawn_act import act_out
from training.drawn_backdrop import draw_flat_backdrop
from training.drawn_character import DISTANCE_CM, build_sheet, flat_view, place_character
from training.drawn_face import head_depth_cm
from training.drawn_features import Features
from training.drawn_identity import Character, sample_character
from training.drawn_sheet import Piece
from training.facekit import Array
from training.head import Gaze
from training.performance import EXPRESSIONS
from training.renderer import Measure, Picture, open_context
from training.targets import Targets

REFERENCE_PX = 512
DRAWN_PX = 768
STRAIGHT: Gaze = (0.0, 0.0)


class ExpressionError(ValueError):
    """An expression is none of those that faces know."""


class Repertoire:
    """The expressions of drawn faces: those of the 3-D heads."""

    expression_names: tuple[str, ...] = EXPRESSIONS

    def expression_index(self, name: str) -> int:
        """Column of a named expression; raises ExpressionError for an unknown name."""
        if name not in EXPRESSIONS:
            raise ExpressionError(f"expression {name!r} is none of training.performance's")
        return EXPRESSIONS.index(name)


class DrawnRenderer:
    """One OpenGL context with the programs of drawings; `begin` gives scenes."""

    def __init__(self, size: int = PICTURE_PX) -> None:
        """Compile.

        Raises:
            RendererError: OpenGL cannot start.
        """
        os.environ.setdefault("LP_NUM_THREADS", "1")
        self.size, self.kit = size, Repertoire()
        self.context = open_context()
        fragments = {
            "picture": drawn_shaders.PICTURE,
            "measure": drawn_shaders.MEASURE,
            "flow": drawn_shaders.FLOW,
        }
        self.programs = {
            name: self.context.program(drawn_shaders.VERTEX, text)
            for name, text in fragments.items()
        }
        self.plates = {
            name: self.context.program(shaders.PLATE_VERTEX, text)
            for name, text in (("picture", shaders.PLATE), ("flow", shaders.PLATE_FLOW))
        }
        corners = np.array([-1, -1, 1, -1, -1, 1, 1, 1], np.float32)
        self.corners = self.context.buffer(corners.tobytes())
        self.target = Targets(self.context)

    def sample(self, rng: np.random.Generator) -> Character:
        """Make up a character."""
        return sample_character(rng)

    def begin(
        self, person: Character, framing: Framing, expression_E: Array, gaze: Gaze = STRAIGHT
    ) -> DrawnScene:
        """Fix a character, a framing and the reference expression."""
        return DrawnScene(self, person, framing, expression_E, gaze)


@dataclass(frozen=True)
class _Run:
    """Pieces that one draw call draws: triangles first .. first + count of the index buffer."""

    first: int
    count: int
    clipped: bool
    paint: bool


class DrawnScene:
    """One character with a reference; close it before the next."""

    def __init__(
        self,
        renderer: DrawnRenderer,
        person: Character,
        framing: Framing,
        expression_E: Array,
        gaze: Gaze,
    ) -> None:
        """Upload the character and draw the reference's geometry."""
        self._r, self.person, self.framing = renderer, person, framing
        self.sheet = build_sheet(person)
        act = act_out(expression_E, gaze, person.articulation)
        self._reference = act
        self.placing = place_character(person, framing, act)
        self.view: View = flat_view(self.placing)
        self._depth_N = np.concatenate([piece.depth_P for piece in self.sheet.pieces])
        self._background = renderer.context.texture(
            (512, 512), 3, draw_flat_backdrop(person, 512).tobytes()
        )
        self._background.repeat_x = self._background.repeat_y = False
        self._buffers = self._upload()
        self._reference_map = renderer.target(REFERENCE_PX, "f4").color_attachments[0]
        self.measure = self._measure()

    def close(self) -> None:
        """Free the scene's buffers."""
        for item in (*self._arrays.values(), *self._buffers, self._background):
            item.release()

    def picture(
        self, expression_E: Array, gaze: Gaze = STRAIGHT, samples: int = DRAWN_PX
    ) -> Picture:
        """The character under an expression, [size, size, 3] u8, drawn at samples^2."""
        self._load(expression_E, gaze)
        target = self._r.target(samples, "f1")
        self._clear(target)
        self._background.use(1)
        self._draw_plate("picture")
        context = self._r.context
        context.enable(context.BLEND)
        context.blend_func = context.SRC_ALPHA, context.ONE_MINUS_SRC_ALPHA
        self._draw("picture")
        context.disable(context.BLEND)
        full = np.frombuffer(target.read(components=3, alignment=1), np.uint8)
        full = full.reshape(samples, samples, 3)
        small = cv2.resize(full, (self._r.size,) * 2, interpolation=cv2.INTER_AREA)
        return np.asarray(small, np.uint8)

    def flow(self, expression_E: Array, gaze: Gaze, samples: int) -> Array:
        """Samples [samples, samples, 4]: flow x and y (px of 256), seen 0/1, foreground 0/1."""
        if samples == REFERENCE_PX:
            raise ValueError(f"flow at {REFERENCE_PX} samples would overwrite the reference")
        self._load(expression_E, gaze)
        target = self._r.target(samples, "f4")
        program = self._r.programs["flow"]
        program["sample_px"].value = PICTURE_PX / samples
        program["picture_px"].value = float(PICTURE_PX)
        program["reference_map"].value = 2
        self._clear(target)
        self._reference_map.use(2)
        self._draw_plate("flow")
        self._draw("flow")
        values = np.frombuffer(target.read(components=4, dtype="f4"), np.float32)
        return values.reshape(samples, samples, 4)

    def openness_track_px(self, expression_TE: Array) -> Array:
        """Gap [T] between the inner lips along the face's own vertical, px of a 256 picture."""
        track = np.zeros(len(expression_TE), np.float32)
        for frame, expression_E in enumerate(expression_TE):
            act = act_out(expression_E, STRAIGHT, self.person.articulation)
            lips = Features(self.person, act).lip_points()
            points = self.placing.pixels(lips, head_depth_cm(lips))
            gaps = points[[19, 18, 17]] - points[[13, 14, 15]]
            track[frame] = max(float((gaps @ self._down_2).mean()), 0.0)
        return track

    @cached_property
    def landmarks_px(self) -> Array:
        """The 68 points of the reference, [68, 2]."""
        points = Features(self.person, self._reference).landmarks()
        return self.placing.pixels(points, head_depth_cm(points))

    @cached_property
    def _down_2(self) -> Array:
        points = self.landmarks_px
        down = points[48:60].mean(axis=0) - points[36:48].mean(axis=0)
        unit: Array = down / np.linalg.norm(down)
        return unit

    def _positions(self, expression_E: Array, gaze: Gaze) -> Array:
        act = act_out(expression_E, gaze, self.person.articulation)
        return self.placing.pixels(self.sheet.points(act), self._depth_N)

    def _upload(self) -> list[Any]:
        context, pieces = self._r.context, self.sheet.pieces
        reference = self.placing.pixels(self.sheet.points(self._reference), self._depth_N)
        colours = np.concatenate([piece.colours_P4 for piece in pieces])
        kinds = np.concatenate([_kinds(piece) for piece in pieces])
        table = np.concatenate([colours, reference, kinds], axis=1).astype(np.float32)
        fixed = context.buffer(table.tobytes())
        self._moving = context.buffer(reference.astype(np.float32).tobytes())
        triangles = np.concatenate([piece.triangles_F3 for piece in pieces]).astype(np.int32)
        index = context.buffer(np.ascontiguousarray(triangles).tobytes())
        self._runs = _runs(pieces)
        self._arrays = {name: self._array(name, fixed, index) for name in self._r.programs}
        return [fixed, self._moving, index]

    def _array(self, name: str, fixed: Any, index: Any) -> Any:
        program = self._r.programs[name]
        layout = (("4f", "in_colour"), ("2f", "in_reference"), ("4f", "in_kind"))
        parts = [size if used in program else f"{4 * int(size[0])}x" for size, used in layout]
        names = [used for _, used in layout if used in program]
        content = [(self._moving, "2f", "in_position"), (fixed, " ".join(parts), *names)]
        return self._r.context.vertex_array(program, content, index)

    def _load(self, expression_E: Array, gaze: Gaze) -> None:
        positions = self._positions(expression_E, gaze)
        self._moving.write(np.ascontiguousarray(positions, np.float32).tobytes())

    def _clear(self, target: Any) -> None:
        context = self._r.context
        target.use()
        target.clear(0, 0, 0, 0)
        context.enable_only(context.DEPTH_TEST)

    def _draw_plate(self, name: str) -> None:
        context, program = self._r.context, self._r.plates[name]
        for uniform, unit in (("picture", 1), ("reference_map", 2)):
            if uniform in program:
                program[uniform].value = unit
        context.disable(context.DEPTH_TEST)
        plate = context.vertex_array(program, [(self._r.corners, "2f", "in_corner")])
        plate.render(context.TRIANGLE_STRIP)
        plate.release()
        context.enable(context.DEPTH_TEST)

    def _draw(self, name: str) -> None:
        context, array = self._r.context, self._arrays[name]
        for run in self._runs:
            if run.paint and name != "picture":
                continue
            context.depth_func = "==" if run.clipped else "1"
            array.render(vertices=3 * run.count, first=3 * run.first)
        context.depth_func = "<"

    def _measure(self) -> Measure:
        target = self._r.target(REFERENCE_PX, "f4")
        self._clear(target)
        self._draw("measure")
        values = np.frombuffer(target.read(components=4, dtype="f4"), np.float32)
        values = values.reshape(REFERENCE_PX, REFERENCE_PX, 4)
        return Measure(
            depth=DISTANCE_CM - values[..., 0], headness=values[..., 2], solid=values[..., 3]
        )


def _kinds(piece: Piece) -> Array:
    count = len(piece.depth_P)
    ident, level = np.full(count, piece.ident), np.full(count, piece.clip or piece.ident)
    kinds: Array = np.stack([piece.depth_P, piece.head_P, ident, level], axis=1)
    return kinds


def _runs(pieces: list[Piece]) -> list[_Run]:
    """Neighbouring pieces of the same manner are drawn together."""
    runs: list[_Run] = []
    first = 0
    for piece in pieces:
        count, clipped = len(piece.triangles_F3), piece.clip > 0
        last = runs[-1] if runs else None
        if last and last.clipped == clipped and last.paint == piece.paint:
            runs[-1] = _Run(last.first, last.count + count, clipped, piece.paint)
        else:
            runs.append(_Run(first, count, clipped, piece.paint))
        first += count
    return runs
