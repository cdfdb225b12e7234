"""Hair as a layer: strands never move at a fixed head pose, so they are drawn once a scene.

Every picture then lays the layer (colour, cover and depth) over the face by one textured square.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from training import hair_shaders
from training.camera import FAR_CM, NEAR_CM
from training.facekit import Array, Ints
from training.shaders import PLATE_VERTEX
from training.strands import SKULL_CENTRE, Strands

LAYER_PX = 768
COLOUR_UNIT, DEPTH_UNIT = 4, 5


class HairLayer:
    """The programs and textures of hair in one OpenGL context."""

    def __init__(self, context: Any, corners: Any) -> None:
        """Compile; `corners` is the square that plates draw."""
        self._context = context
        self.strands = context.program(hair_shaders.STRAND_VERTEX, hair_shaders.STRAND)
        self.plates = {
            "picture": context.program(PLATE_VERTEX, hair_shaders.LAYER_PICTURE),
            "measure": context.program(PLATE_VERTEX, hair_shaders.LAYER_MEASURE),
            "flow": context.program(PLATE_VERTEX, hair_shaders.LAYER_FLOW),
        }
        ratio = (FAR_CM + NEAR_CM) / (FAR_CM - NEAR_CM)
        bias = 2 * FAR_CM * NEAR_CM / (FAR_CM - NEAR_CM)
        for plate in self.plates.values():
            _set(plate, "hair_map", COLOUR_UNIT)
            _set(plate, "hair_depth_map", DEPTH_UNIT)
            _set(plate, "reference_map", 2)
            _set(plate, "depth_range", (ratio, bias))
        self.strands["skull_centre"].value = tuple(SKULL_CENTRE)
        self._squares = {
            name: context.vertex_array(plate, [(corners, "2f", "in_corner")])
            for name, plate in self.plates.items()
        }
        self._targets: dict[int, tuple[Any, Any, Any]] = {}
        self._drawn: dict[int, Strands] = {}

    def draw(self, strands: Strands, eye_point_3: Array, samples: int) -> None:
        """Fill the layer of a sampling density, unless these strands are already drawn there."""
        size = max(LAYER_PX, samples)
        target, colour, depth = self._target(size)
        if self._drawn.get(size) is not strands:
            self._fill(target, strands, eye_point_3)
            self._drawn[size] = strands
        colour.use(COLOUR_UNIT)
        depth.use(DEPTH_UNIT)

    def lay(self, name: str) -> None:
        """Draw the layer into the bound target, hidden where the face is nearer."""
        context = self._context
        blended = name == "picture"
        if blended:
            context.enable(context.BLEND)
            context.blend_func = context.ONE, context.ONE_MINUS_SRC_ALPHA
        self._squares[name].render(context.TRIANGLE_STRIP)
        if blended:
            context.disable(context.BLEND)

    def _target(self, size: int) -> tuple[Any, Any, Any]:
        if size not in self._targets:
            context = self._context
            colour = context.texture((size, size), 4, dtype="f1")
            depth = context.texture((size, size), 2, dtype="f4")
            for texture in (colour, depth):  # two to one, linear is the exact mean of four
                texture.filter = context.LINEAR, context.LINEAR
                texture.repeat_x = texture.repeat_y = False
            frame = context.framebuffer([colour, depth], context.depth_renderbuffer((size, size)))
            self._targets[size] = frame, colour, depth
        return self._targets[size]

    def _fill(self, target: Any, strands: Strands, eye_point_3: Array) -> None:
        context = self._context
        table, faces = ribbons(strands, eye_point_3)
        vertices, index = context.buffer(table.tobytes()), context.buffer(faces.tobytes())
        names = ("in_position", "in_tangent", "in_info")
        array = context.vertex_array(self.strands, [(vertices, "3f 3f 4f", *names)], index)
        target.use()
        target.clear(0, 0, 0, 0)
        context.enable_only(context.DEPTH_TEST)
        array.render()
        for item in (array, vertices, index):
            item.release()


def ribbons(strands: Strands, eye_point_3: Array) -> tuple[Array, Ints]:
    """Ribbons that face the eye: vertices [2 R P, 10] (position, tangent, info), triangles.

    Info: way from root to tip, tint, across -1..1, outer.
    """
    points = strands.points_RP3
    count, length = points.shape[:2]
    steps = np.diff(points, axis=1)
    spans = np.linalg.norm(steps, axis=2)
    travelled = np.concatenate([np.zeros((count, 1)), np.cumsum(spans, axis=1)], axis=1)
    way = travelled / np.maximum(travelled[:, -1:], 1e-6)
    tangent = np.concatenate([steps, steps[:, -1:]], axis=1)
    tangent[:, 1:-1] += steps[:, :-1]
    tangent = _unit(tangent)
    aside = _unit(np.cross(tangent, eye_point_3 - points))
    width = strands.width_R[:, None] * (1 - 0.8 * way**2)
    half = aside * (0.5 * width)[..., None]
    tint = np.broadcast_to(strands.tint_R[:, None], way.shape)
    sides = []
    for across in (-1.0, 1.0):
        info = np.stack([way, tint, np.full_like(way, across), strands.outer_RP], axis=2)
        sides.append(np.concatenate([points + across * half, tangent, info], axis=2))
    table = np.stack(sides, axis=2).reshape(-1, 10).astype(np.float32)
    first = (np.arange(count)[:, None] * length + np.arange(length - 1)[None]) * 2
    corner = first.reshape(-1, 1)
    faces = np.concatenate([corner + np.array([0, 1, 2]), corner + np.array([1, 3, 2])])
    return table, faces.astype(np.int32)


def _set(program: Any, name: str, value: Any) -> None:
    if name in program:
        program[name].value = value


def _unit(vectors: Array) -> Array:
    unit: Array = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)
    return unit
