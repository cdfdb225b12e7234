"""One training clip: a person, a reference picture and 48 frames of a performance.

Everything is drawn at the reference's pose. The record (numpy arrays; T = 48 frames, px of a
256 x 256 picture with corners at whole numbers):

    ref_rgb u8 [256,256,3]; ref_depth f16 [64,64] cm toward the camera from the pivot, 0 in the
    background; ref_headness f16 [64,64]; landmarks f32 [68,2] px; pivot_px f32 [2];
    flow64 f16 [T,2,64,64] px; occl64 u8 [T,64,64];
    group_start i32 [4]; rgb u8 [16,256,256,3]; flow128 f16 [16,2,128,128];
    occl128 u8 [16,128,128];
    expression f16 [T,57]; ref_expression f16 [57]; visemes f16 [T,6]; openness f32 [T] px;
    ref_openness f32 px; blink f16 [T]; gaze f16 [T,2] radians (viewer's right, up) relative to
    the head, absent from shards made before it was recorded; pose f32 [T,6]; samples i16 [41920]
    at 16 kHz, beginning 0.5 s before the clip and ending 0.2 s after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from training.camera import PICTURE_PX, sample_framing
from training.domain import Person, Renderer, Scene, Vocabulary
from training.facekit import Array
from training.head import Gaze
from training.renderer import Measure

NUM_FRAMES = 48
FPS = 25
SAMPLE_RATE = 16_000
LEAD_SAMPLES, TAIL_SAMPLES = 8_000, 3_200
GROUPS, GROUP_FRAMES = 4, 4
CELLS, FINE_CELLS = 64, 128
Record = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Script:
    """A window of a performance, and expressions its whole utterance offers for a reference.

    Attributes:
        expression_TE, visemes_TV, blink_T, gaze_T2, pose_T6: the window.
        speaking_E: a frame of the utterance, mouths of all degrees equally likely.
        samples_T: i16 sound from 0.5 s before to 0.2 s after.
    """

    expression_TE: Array
    visemes_TV: Array
    blink_T: Array
    gaze_T2: Array
    pose_T6: Array
    speaking_E: Array
    samples_T: npt.NDArray[np.int16]


def render_clip(renderer: Renderer[Person], script: Script, rng: np.random.Generator) -> Record:
    """Draw a clip's record; the generator chooses person, camera and reference expression."""
    identity = renderer.sample(rng)
    reference_E, reference_gaze = reference_expression(renderer.kit, script, rng)
    scene = renderer.begin(identity, sample_framing(rng), reference_E, reference_gaze)
    try:
        openness_T = scene.openness_track_px(script.expression_TE)
        starts = choose_groups(openness_T, script.blink_T, rng)
        record = _reference_record(scene, reference_E, reference_gaze)
        record |= _frames(scene, script, starts)
    finally:
        scene.close()
    return record | {
        "group_start": starts,
        "expression": script.expression_TE.astype(np.float16),
        "visemes": script.visemes_TV.astype(np.float16),
        "openness": openness_T,
        "blink": script.blink_T.astype(np.float16),
        "gaze": script.gaze_T2.astype(np.float16),
        "pose": script.pose_T6.astype(np.float32),
        "samples": script.samples_T,
    }


def reference_expression(
    kit: Vocabulary, script: Script, rng: np.random.Generator
) -> tuple[Array, Gaze]:
    """Neutral (25 %), smiling (35 %) or speaking (40 %), eyes open, gaze nearly straight.

    Portraits that show teeth or an open mouth are common on purpose: a codec that never saw one
    cannot close it.
    """
    weights_E = np.zeros(len(kit.expression_names), np.float32)
    chance = rng.random()
    if chance >= 0.60:
        weights_E = _speaking(kit, script.speaking_E, rng)
    elif chance >= 0.25:
        weights_E = smile(kit, rng)
    lid = rng.uniform(0.2, 0.5) if rng.random() < 0.05 else rng.uniform(0, 0.08)
    for side in "LR":
        weights_E[kit.expression_index(f"eyeBlink_{side}")] = lid
        weights_E[kit.expression_index(f"browInnerUp_{side}")] += abs(rng.normal(0, 0.08))
        for way in ("Up", "Down", "In", "Out"):
            weights_E[kit.expression_index(f"eyeLook{way}_{side}")] = 0
    return np.clip(weights_E, 0, 1), (float(rng.normal(0, 0.04)), float(rng.normal(0, 0.025)))


def smile(kit: Vocabulary, rng: np.random.Generator) -> Array:
    """Weights [E] of a smile: closed (25 %), with teeth (50 %), a grin with open mouth (25 %)."""
    weights_E = np.zeros(len(kit.expression_names), np.float32)
    chance = rng.random()
    teeth, grin = chance >= 0.25, chance >= 0.75
    strength = rng.uniform(0.6, 1.0) if grin else rng.uniform(0.3, 0.9)
    bare = rng.uniform(0.35, 0.75) * teeth
    for side in "LR":
        lean = rng.uniform(0.9, 1.1)
        weights_E[kit.expression_index(f"mouthSmile_{side}")] = strength * lean
        weights_E[kit.expression_index(f"cheekSquint_{side}")] = strength * 0.5
        weights_E[kit.expression_index(f"eyeSquint_{side}")] = strength * 0.35
        weights_E[kit.expression_index(f"mouthUpperUp_{side}")] = bare * lean
        weights_E[kit.expression_index(f"mouthLowerDown_{side}")] = 0.7 * bare * lean
    if teeth:
        opening = rng.uniform(0.12, 0.42) if grin else rng.uniform(0.02, 0.14)
        weights_E[kit.expression_index("jawOpen")] = opening
    return np.clip(weights_E, 0, 1)


def _speaking(kit: Vocabulary, speaking_E: Array, rng: np.random.Generator) -> Array:
    """A frame of speech; a third of them smile as well, as people do who talk to a camera."""
    if rng.random() >= 1 / 3:
        return speaking_E.copy()
    both: Array = np.maximum(speaking_E, rng.uniform(0.4, 0.9) * smile(kit, rng))
    return both


def choose_groups(
    openness_T: Array, blink_T: Array, rng: np.random.Generator
) -> npt.NDArray[np.int32]:
    """Four different group starts: widest mouth, closure beside motion, blink, and any."""
    count = len(openness_T) // GROUP_FRAMES
    opening = openness_T[: count * GROUP_FRAMES].reshape(count, GROUP_FRAMES)
    blinking = blink_T[: count * GROUP_FRAMES].reshape(count, GROUP_FRAMES).max(axis=1)
    jitter = rng.uniform(0, 1e-3, (4, count))
    reach = opening.max(axis=1)
    closing = (reach - 2 * opening.min(axis=1)) / max(float(reach.max()), 1)
    scores = [reach / max(float(reach.max()), 1), closing, blinking, rng.random(count)]
    chosen: list[int] = []
    for score, noise in zip(scores, jitter, strict=True):
        ranked = np.argsort(-(score + noise))
        chosen.append(next(int(g) for g in ranked if int(g) not in chosen))
    return np.array(sorted(chosen), np.int32) * GROUP_FRAMES


def pool_flow(
    samples_SS4: Array, cells: int
) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.uint8]]:
    """Mean flow [2, cells, cells] of seen foreground and hidden share [cells, cells] of 255.

    A cell whose foreground is all hidden takes the mean of all its foreground.
    """
    factor = samples_SS4.shape[0] // cells
    blocks = samples_SS4.reshape(cells, factor, cells, factor, 4)
    flow, seen, solid = blocks[..., :2], blocks[..., 2], blocks[..., 3]
    visible, area = seen * solid, (1, 3)
    weight = np.where(visible.sum(axis=area, keepdims=True) > 0, visible, solid)
    total = np.maximum(weight.sum(axis=area), 1e-6)
    mean = (flow * weight[..., None]).sum(axis=area) / total[..., None]
    hidden = np.rint(255 * (1 - seen.mean(axis=area)))
    return mean.transpose(2, 0, 1).astype(np.float16), hidden.astype(np.uint8)


def pool_measure(
    measure: Measure, pivot_depth_cm: float, cells: int
) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.float16]]:
    """Depth toward the camera (cm, 0 in the background) and headness of the reference's cells."""
    factor = measure.depth.shape[0] // cells

    def blocks(values: Array) -> Array:
        return np.asarray(values.reshape(cells, factor, cells, factor).sum(axis=(1, 3)))

    toward = (pivot_depth_cm - measure.depth) * measure.solid
    depth = blocks(toward) / np.maximum(blocks(measure.solid), 1)
    headness = blocks(measure.headness) / factor**2
    return depth.astype(np.float16), headness.astype(np.float16)


def _reference_record(scene: Scene, reference_E: Array, gaze: Gaze) -> Record:
    depth, headness = pool_measure(scene.measure, scene.view.pivot_depth_cm, CELLS)
    return {
        "ref_rgb": scene.picture(reference_E, gaze),
        "ref_depth": depth,
        "ref_headness": headness,
        "landmarks": scene.landmarks_px,
        "pivot_px": scene.view.pivot_px,
        "ref_expression": reference_E.astype(np.float16),
        "ref_openness": scene.openness_track_px(reference_E[None])[0:1].reshape(()),
    }


def _frames(scene: Scene, script: Script, starts: npt.NDArray[np.int32]) -> Record:
    shown = {int(start) + k for start in starts for k in range(GROUP_FRAMES)}
    parts: dict[str, list[npt.NDArray[Any]]] = {
        name: [] for name in ("flow64", "occl64", "rgb", "flow128", "occl128")
    }
    for frame in range(NUM_FRAMES):
        expression_E = script.expression_TE[frame]
        gaze = (float(script.gaze_T2[frame, 0]), float(script.gaze_T2[frame, 1]))
        samples = scene.flow(expression_E, gaze, PICTURE_PX if frame in shown else 2 * CELLS)
        _append(parts, pool_flow(samples, CELLS), ("flow64", "occl64"))
        if frame in shown:
            _append(parts, pool_flow(samples, FINE_CELLS), ("flow128", "occl128"))
            parts["rgb"].append(scene.picture(expression_E, gaze))
    return {name: np.stack(values) for name, values in parts.items()}


def _append(
    parts: dict[str, list[npt.NDArray[Any]]],
    values: tuple[npt.NDArray[Any], ...],
    names: tuple[str, ...],
) -> None:
    for name, value in zip(names, values, strict=True):
        parts[name].append(value)
