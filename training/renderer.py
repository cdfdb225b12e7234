"""Draw a person on the CPU or GPU by OpenGL: pictures, exact backward flow, depth.

Every picture of a clip is drawn at the reference's pose and camera; only the expression differs.
Flow: where in the reference the surface point seen at a sample lies, minus where it is seen now,
in pixels of a 256 picture; exact by perspective-correct interpolation of reference positions.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from training import shaders
from training.backdrop import draw_backdrop, noise_picture
from training.camera import PICTURE_PX, Framing, View, canonical_view
from training.detail import draw_details
from training.facekit import Array, load_facekit
from training.hair_layer import HairLayer
from training.head import Gaze, Head
from training.identity import Identity, sample_identity
from training.occlusion import Occlusion, measure_ambient, vertex_shade
from training.paint import paint_head
from training.targets import Targets

Picture = npt.NDArray[np.uint8]
STRAIGHT: Gaze = (0.0, 0.0)
LAYOUT = "3f 4f 4f 4f 2f 2f"
NAMES = ("in_rest", "in_skin", "in_lines", "in_reference", "in_kind", "in_shade")
REFERENCE_PX = 512
DRAWN_PX = 384
DEPTH_BIAS_CM = 0.15


class RendererError(ValueError):
    """No OpenGL context can be made on this machine."""


@dataclass(frozen=True)
class Measure:
    """The reference as geometry, sampled at 512 x 512: depth cm, headness and foreground 0/1."""

    depth: Array
    headness: Array
    solid: Array


class HeadRenderer:
    """One OpenGL context with the face kit's programs; `begin` gives scenes."""

    def __init__(self, facekit_dir: Path, size: int = PICTURE_PX) -> None:
        """Load the kit and compile.

        Raises:
            FaceKitError: the folder lacks the kit.
            RendererError: OpenGL cannot start.
        """
        os.environ.setdefault("LP_NUM_THREADS", "1")
        self.size = size
        self.kit = load_facekit(facekit_dir)
        self.paint = paint_head(self.kit)
        self.context = open_context()
        self.programs = {name: self._program(name) for name in _FRAGMENTS}
        self.plates = {
            name: self.context.program(shaders.PLATE_VERTEX, fragment)
            for name, fragment in (("picture", shaders.PLATE), ("flow", shaders.PLATE_FLOW))
        }
        corners = np.array([-1, -1, 1, -1, -1, 1, 1, 1], np.float32)
        self.corners = self.context.buffer(corners.tobytes())
        self.noise = self.context.texture((256, 256), 4, noise_picture().tobytes())
        self.noise.build_mipmaps()
        self.hair = HairLayer(self.context, self.corners)
        self.occlusion = Occlusion(self.context)
        self.paint = measure_ambient(self.occlusion, self.kit, self.paint)
        self.details = [_mipmapped(self.context, layer) for layer in draw_details(self.kit)]
        self.target = Targets(self.context)

    def sample(self, rng: np.random.Generator) -> Identity:
        """Make up a person."""
        return sample_identity(rng)

    def begin(
        self, identity: Identity, framing: Framing, expression_E: Array, gaze: Gaze = STRAIGHT
    ) -> Scene:
        """Fix a person, a camera and the reference expression."""
        return Scene(self, identity, framing, expression_E, gaze)

    def _program(self, name: str) -> Any:
        return self.context.program(shaders.VERTEX, _FRAGMENTS[name])


_FRAGMENTS = {
    "skin": shaders.SKIN,
    "cloth": shaders.CLOTH,
    "interior": shaders.INTERIOR,
    "eyes": shaders.EYES,
    "lashes": shaders.LASHES,
    "measure": shaders.MEASURE,
    "flow": shaders.FLOW,
}


def _mipmapped(context: Any, picture: Picture) -> Any:
    texture = context.texture(picture.shape[1::-1], 4, picture.tobytes())
    texture.build_mipmaps()
    texture.repeat_x = texture.repeat_y = False
    return texture


def open_context() -> Any:
    """Start OpenGL without a window; raises RendererError."""
    import moderngl

    try:
        return moderngl.create_context(standalone=True, backend="egl")  # type: ignore[arg-type]  # wrong stub
    except Exception as error:  # moderngl raises bare Exception without EGL
        raise RendererError(
            f"OpenGL cannot start ({error}); install libegl1 and libgl1-mesa-dri"
        ) from error


class Scene:
    """One person before one camera, with a reference; close it before the next."""

    def __init__(
        self,
        renderer: HeadRenderer,
        identity: Identity,
        framing: Framing,
        expression_E: Array,
        gaze: Gaze,
    ) -> None:
        """Upload the person and draw the reference's geometry."""
        self._r, self.identity = renderer, identity
        self.head = Head(renderer.kit, renderer.paint, identity)
        self.reference_N3 = self.head.pose(expression_E, gaze)
        self.view: View = canonical_view(self.reference_N3, self.head.pivot_3, framing)
        self._background = renderer.context.texture(
            (256, 256), 3, draw_backdrop(identity.background_seed).tobytes()
        )
        self._background.repeat_x = self._background.repeat_y = False
        self._buffers = self._upload()
        self._set_uniforms()
        self._reference_map = renderer.target(REFERENCE_PX, "f4").color_attachments[0]
        self.measure = self._measure()

    def close(self) -> None:
        """Free the scene's buffers."""
        for item in (*self._arrays.values(), *self._indices, *self._buffers, self._background):
            item.release()

    def picture(
        self, expression_E: Array, gaze: Gaze = STRAIGHT, samples: int = DRAWN_PX
    ) -> Picture:
        """The person under an expression, [size, size, 3] u8, drawn at samples^2 and averaged."""
        vertices = self.head.pose(expression_E, gaze)
        self._load(vertices, self.head.normals(vertices))
        self._set_openness(expression_E)
        self._comb(samples)
        target = self._r.target(samples, "f1")
        self._clear(target)
        self._background.use(1)
        self._r.details[0].use(6)
        self._r.details[1].use(7)
        self._draw_plate("picture")
        self._draw("skin", "cloth", "interior", "eyes")
        self._draw_lashes()
        self._lay_hair("picture")
        side = target.size[0]
        full = np.frombuffer(target.read(components=3, alignment=1), np.uint8)
        full = full.reshape(side, side, 3)
        small = cv2.resize(full, (self._r.size,) * 2, interpolation=cv2.INTER_AREA)
        return np.asarray(small, np.uint8)

    def flow(self, expression_E: Array, gaze: Gaze, samples: int) -> Array:
        """Samples [samples, samples, 4]: flow x and y (px of 256), seen 0/1, foreground 0/1."""
        self._load(self.head.pose(expression_E, gaze), None)
        target = self._r.target(samples, "f4") if samples != REFERENCE_PX else None
        if target is None:
            raise ValueError(f"flow at {REFERENCE_PX} samples would overwrite the reference")
        self._comb(samples)
        program = self._r.programs["flow"]
        program["sample_px"].value = PICTURE_PX / samples
        self._clear(target)
        self._reference_map.use(2)
        self._draw_plate("flow")
        self._draw("flow closed")
        self._lay_hair("flow")
        values = np.frombuffer(target.read(components=4, dtype="f4"), np.float32)
        return values.reshape(samples, samples, 4)

    def openness_track_px(self, expression_TE: Array) -> Array:
        """Gap [T] between the inner lips along the face's own vertical, px of a 256 picture."""
        points_TP3 = self.head.landmark_track(expression_TE)
        points_TP2 = self.view.project(points_TP3.reshape(-1, 3)).reshape(-1, 68, 2)
        down_T2 = points_TP2[:, 48:60].mean(axis=1) - points_TP2[:, 36:48].mean(axis=1)
        down_T2 = down_T2 / np.linalg.norm(down_T2, axis=1, keepdims=True)
        gaps_TG2 = points_TP2[:, [67, 66, 65]] - points_TP2[:, [61, 62, 63]]
        gaps_T = np.einsum("tgi,ti->tg", gaps_TG2, down_T2).mean(axis=1)
        track: Array = np.maximum(gaps_T, 0).astype(np.float32)
        return track

    @cached_property
    def landmarks_px(self) -> Array:
        """The 68 points of the reference, [68, 2]."""
        return self.view.project(self.head.landmarks(self.reference_N3))

    def _upload(self) -> list[Any]:
        context = self._r.context
        static = self.head.attributes()
        clip = self.reference_N3 @ self.view.clip_44[:, :3].T + self.view.clip_44[:, 3]
        key_3 = self.identity.lights[0].direction @ self.view.turn_33
        shade = vertex_shade(self._r.occlusion, self.head, self.reference_N3, key_3)
        parts = [static[:, :11], clip, static[:, 11:], shade]
        table = np.concatenate(parts, axis=1).astype(np.float32)
        fixed = context.buffer(table.tobytes())
        zeros = np.zeros(self.reference_N3.shape, np.float32).tobytes()
        self._positions, self._normals = context.buffer(zeros), context.buffer(zeros)
        self._indices, self._arrays = [], {}
        for name, faces in self.head.triangles().items():
            index = context.buffer(np.ascontiguousarray(faces, np.int32).tobytes())
            self._indices.append(index)
            for use in () if name == "closed" else (name,):
                self._arrays[use] = self._vertex_array(use, fixed, index)
            for use in ("measure", "flow") if name == "closed" else ():
                self._arrays[f"{use} {name}"] = self._vertex_array(use, fixed, index)
        return [fixed, self._positions, self._normals]

    def _vertex_array(self, use: str, fixed: Any, index: Any) -> Any:
        program = self._r.programs[use]
        used = [name if name in program else None for name in NAMES]
        sizes = LAYOUT.split()
        parts = [
            size if name else f"{int(size[:-1]) * 4}x"
            for name, size in zip(used, sizes, strict=True)
        ]
        content = [(self._positions, "3f", "in_position")]
        if any(used):
            content.append((fixed, " ".join(parts), *[name for name in used if name]))
        if "in_normal" in program:
            content.append((self._normals, "3f", "in_normal"))
        return self._r.context.vertex_array(program, content, index)

    def _set_uniforms(self) -> None:
        values = _uniforms(self.identity, self.view)
        hair = self._r.hair
        programs = (self._r.programs, self._r.plates, hair.plates, {"": hair.strands})
        for program in (one for group in programs for one in group.values()):
            for name, value in values.items():
                if name in program:
                    uniform = program[name]
                    if isinstance(value, np.ndarray):
                        uniform.write(np.ascontiguousarray(value, np.float32).tobytes())
                    else:
                        uniform.value = value

    def _set_openness(self, expression_E: Array) -> None:
        open_px = float(self.openness_track_px(expression_E[None])[0])
        self._r.programs["interior"]["mouth_open"].value = float(np.clip(open_px / 22, 0, 1))

    def _load(self, vertices_N3: Array, normals_N3: Array | None) -> None:
        self._positions.write(np.ascontiguousarray(vertices_N3, np.float32).tobytes())
        if normals_N3 is not None:
            self._normals.write(np.ascontiguousarray(normals_N3, np.float32).tobytes())

    def _clear(self, target: Any) -> None:
        context = self._r.context
        target.use()
        target.clear(0, 0, 0, 0)
        self._r.noise.use(0)
        context.enable_only(context.DEPTH_TEST)

    def _draw_plate(self, name: str) -> None:
        context, program = self._r.context, self._r.plates[name]
        context.disable(context.DEPTH_TEST)
        plate = context.vertex_array(program, [(self._r.corners, "2f", "in_corner")])
        plate.render(context.TRIANGLE_STRIP)
        plate.release()
        context.enable(context.DEPTH_TEST)

    def _draw(self, *names: str) -> None:
        """Closed surfaces without their backs, which saves a tenth."""
        context = self._r.context
        context.front_face, context.cull_face = "cw", "back"  # y points down
        context.enable(context.CULL_FACE)
        for name in names:
            self._arrays[name].render()
        context.disable(context.CULL_FACE)

    def _comb(self, samples: int) -> None:
        """Have the hair layer ready before another target is bound."""
        if self.head.hair is not None:
            self._r.hair.draw(self.head.hair, self.view.eye_point_3, samples)

    def _lay_hair(self, name: str) -> None:
        if self.head.hair is not None:
            self._r.hair.lay(name)

    def _draw_lashes(self) -> None:
        context = self._r.context
        context.enable(context.BLEND)
        context.blend_func = context.SRC_ALPHA, context.ONE_MINUS_SRC_ALPHA
        self._arrays["lashes"].render()
        context.disable(context.BLEND)

    def _measure(self) -> Measure:
        self._load(self.reference_N3, None)
        self._comb(REFERENCE_PX)
        target = self._r.target(REFERENCE_PX, "f4")
        self._clear(target)
        self._draw("measure closed")
        self._lay_hair("measure")
        values = np.frombuffer(target.read(components=4, dtype="f4"), np.float32)
        values = values.reshape(REFERENCE_PX, REFERENCE_PX, 4)
        return Measure(depth=values[..., 0], headness=values[..., 2], solid=values[..., 3])


def _uniforms(identity: Identity, view: View) -> dict[str, Any]:
    def linear(colour: Array) -> Array:
        return np.asarray(colour, np.float32) ** 2.2

    lights = identity.lights
    return {
        "clip": view.clip_44.T,
        "turn": view.turn_33.T,
        "eye_point": view.eye_point_3,
        "noise_map": 0,
        "picture": 1,
        "reference_map": 2,
        "relief_map": 6,
        "colour_map": 7,
        "picture_px": float(PICTURE_PX),
        "bias_cm": DEPTH_BIAS_CM,
        "light_direction": np.stack([light.direction for light in lights]),
        "light_colour": np.stack([light.colour for light in lights]),
        "ambient_up": identity.ambient_up,
        "ambient_down": identity.ambient_down,
        "skin_colour": linear(identity.skin),
        "lip_colour": linear(identity.lips),
        "brow_colour": linear(identity.brow),
        "hair_colour": linear(identity.hair),
        "cloth_colour": linear(identity.cloth),
        "teeth_colour": linear(identity.teeth),
        "iris_colour": linear(identity.iris),
        "strengths": (identity.flush, identity.stubble, identity.eye_shadow, identity.buzz),
        "brow_shape": (identity.brow_thickness_cm, identity.brow_strength, 0.0),
        "cloth": (identity.collar_cm, identity.neckline, identity.stripes, 0.0),
        "marks": (identity.freckles, identity.relief, 0.0, 0.0),
        "finish": (identity.roughness, identity.specular),
        "grey": identity.grey,
        "lashes": identity.lashes,
        "pupil": 0.15,
    }
