"""What keeps light from a vertex: depth seen from far away in given directions.

Directions point from the head toward the light, in head space (cm). Shapes: N points.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from training.facekit import Array, FaceKit, Ints
from training.hair_layer import ribbons
from training.head import Head
from training.paint import Paint
from training.strands import thinned

MAP_PX = 256
REACH_CM = 24.0
FAR_BELOW_CM = -1000.0
_FRONT_CM = np.array([0.0, 0.0, 90.0])
_SKY = [np.array(way) for way in ((0.0, 0.75, 0.65), (0.55, 0.3, 0.8), (-0.55, 0.3, 0.8))]

_VERTEX = """
#version 330
in vec3 in_position;
uniform mat3 axes; uniform float reach_cm;
out float toward;
void main() {
    vec3 at = axes * in_position;
    toward = at.z;
    gl_Position = vec4(at.xy / reach_cm, -at.z / (2.0 * reach_cm), 1.0);
}
"""
_FRAGMENT = """
#version 330
in float toward;
out float height;
void main() { height = toward; }
"""


class Occlusion:
    """Draws height maps of whatever geometry is handed over and looks points up in them."""

    def __init__(self, context: Any) -> None:
        """Compile and make the map."""
        self._context = context
        self.program = context.program(_VERTEX, _FRAGMENT)
        self.program["reach_cm"].value = REACH_CM
        self._texture = context.texture((MAP_PX, MAP_PX), 1, dtype="f4")
        depth = context.depth_renderbuffer((MAP_PX, MAP_PX))
        self._target = context.framebuffer([self._texture], depth)

    @contextmanager
    def casting(self, points_N3: Array, faces_F3: Ints) -> Iterator[Any]:
        """A vertex array that casts shadows, freed at the end."""
        positions = self._context.buffer(np.ascontiguousarray(points_N3, np.float32).tobytes())
        index = self._context.buffer(np.ascontiguousarray(faces_F3, np.int32).tobytes())
        content = [(positions, "3f", "in_position")]
        array = self._context.vertex_array(self.program, content, index)
        try:
            yield array
        finally:
            for item in (array, positions, index):
                item.release()

    def seen(
        self, points_N3: Array, direction_3: Array, casters: Sequence[Any], soft_cm: float
    ) -> Array:
        """Share [N] of a small neighbourhood of each point that sees the light, 0..1."""
        axes = _axes(direction_3)
        self.program["axes"].write(np.ascontiguousarray(axes.T, np.float32).tobytes())
        self._target.use()
        self._target.clear(FAR_BELOW_CM, 0, 0, 0)
        self._context.enable_only(self._context.DEPTH_TEST)
        for caster in casters:
            caster.render()
        heights = np.frombuffer(self._target.read(components=1, dtype="f4"), np.float32)
        heights = heights.reshape(MAP_PX, MAP_PX)
        at = points_N3 @ axes.T.astype(np.float32)
        place = (at[:, :2] / REACH_CM + 1) * (MAP_PX / 2)
        step = soft_cm / REACH_CM * (MAP_PX / 2)
        total = np.zeros(len(points_N3), np.float32)
        for dx, dy in _TAPS:
            column = np.clip(place[:, 0] + dx * step, 0, MAP_PX - 1).astype(np.int32)
            row = np.clip(place[:, 1] + dy * step, 0, MAP_PX - 1).astype(np.int32)
            total += heights[row, column] <= at[:, 2]
        return total / len(_TAPS)


_TAPS = [(x, y) for x in (-1.0, -0.33, 0.33, 1.0) for y in (-1.0, -0.33, 0.33, 1.0)]


def _axes(direction_3: Array) -> Array:
    """Rows right, up, toward."""
    toward = direction_3 / np.linalg.norm(direction_3)
    right = np.cross([0.0, 1.0, 0.0] if abs(toward[1]) < 0.95 else [0.0, 0.0, 1.0], toward)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(toward, right), toward])


def sphere_directions(count: int) -> Array:
    """Directions [count, 3] spread evenly over the sphere (Fibonacci lattice)."""
    index = np.arange(count) + 0.5
    height = 1 - 2 * index / count
    turn = np.pi * (1 + 5**0.5) * index
    flat = np.sqrt(1 - height**2)
    return np.stack([flat * np.cos(turn), height, flat * np.sin(turn)], axis=1)


def measure_ambient(occlusion: Occlusion, kit: FaceKit, paint: Paint) -> Paint:
    """The paint with the share of the sky, 0..1, that each vertex of the mean head sees."""
    faces = kit.triangles_F3[np.isin(kit.triangle_materials, (1, 6))]
    normals = kit.normals(kit.vertices_V3)
    lifted = kit.vertices_V3 + 0.18 * normals
    open_V, total_V = np.zeros(len(lifted)), np.zeros(len(lifted))
    with occlusion.casting(kit.vertices_V3, faces) as head:
        for direction in sphere_directions(72):
            facing = np.maximum(normals @ direction, 0)
            if direction[2] > -0.7:  # the back of the head is not drawn and casts nothing
                open_V += facing * occlusion.seen(lifted, direction, [head], 0.25)
            total_V += facing
    lines_V4 = paint.lines_V4.copy()
    lines_V4[:, 3] = open_V / np.maximum(total_V, 1e-3)
    return replace(paint, lines_V4=lines_V4)


def vertex_shade(occlusion: Occlusion, head: Head, reference_N3: Array, key_3: Array) -> Array:
    """How far each vertex of the reference sees the key light, and the sky past the hair.

    Returns [N, 2] in 0..1. Both stay with the skin under every expression: hair and lights do
    not move, and a face moves little against them.
    """
    lifted = reference_N3 + 0.2 * head.normals(reference_N3)
    with ExitStack() as stack:
        closed = head.triangles()["closed"]
        casters = [stack.enter_context(occlusion.casting(reference_N3, closed))]
        sky = np.ones(len(lifted), np.float32)
        if head.hair is not None:
            table, faces = ribbons(thinned(head.hair, 5), _FRONT_CM)
            hair = stack.enter_context(occlusion.casting(table[:, :3], faces))
            sky = np.mean([occlusion.seen(lifted, way, [hair], 0.9) for way in _SKY], axis=0)
            casters.append(hair)
        key = occlusion.seen(lifted, key_3, casters, 0.5)
    return np.stack([key, sky], axis=1)
