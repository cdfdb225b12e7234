"""What training needs of the renderer: exact flow, honest occlusion, same seed same clip."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("moderngl", reason="the renderer needs moderngl (extra: train)")

from training.camera import Framing, eye_mouth_points, sample_framing
from training.clip import NUM_FRAMES, Script, pool_flow, render_clip
from training.facekit import FaceKitError, load_facekit
from training.identity import sample_identity
from training.renderer import HeadRenderer, RendererError, Scene

pytestmark = pytest.mark.unit
STRAIGHT = (0.0, 0.0)


@pytest.fixture(scope="module")
def renderer(facekit_dir: Path) -> HeadRenderer:
    try:
        return HeadRenderer(facekit_dir)
    except RendererError as error:
        pytest.skip(str(error))


def _expression(renderer: HeadRenderer, **weights: float) -> np.ndarray:
    values = np.zeros(len(renderer.kit.expression_names), np.float32)
    for name, weight in weights.items():
        values[renderer.kit.expression_index(name)] = weight
    return values


def _scene(renderer: HeadRenderer, seed: int, reference: np.ndarray) -> Scene:
    rng = np.random.default_rng(seed)
    return renderer.begin(sample_identity(rng), sample_framing(rng), reference)


def _decibels(one: np.ndarray, other: np.ndarray, where: np.ndarray) -> float:
    error = (one.astype(np.float64) - other.astype(np.float64))[where]
    return float(10 * np.log10(255**2 / np.mean(error**2)))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_warping_the_reference_by_the_flow_beats_copying_it(
    renderer: HeadRenderer, seed: int
) -> None:
    neutral = _expression(renderer)
    speaking = _expression(renderer, jawOpen=0.5, mouthPucker=0.4, browInnerUp_L=0.6)
    scene = _scene(renderer, seed, neutral)
    reference, truth = scene.picture(neutral), scene.picture(speaking)
    flow_HW4 = scene.flow(speaking, STRAIGHT, 256)
    scene.close()

    grid = np.stack(np.meshgrid(np.arange(256), np.arange(256)), axis=2).astype(np.float32)
    at = grid + flow_HW4[..., :2]
    warped = cv2.remap(reference, at[..., 0], at[..., 1], cv2.INTER_LINEAR)
    seen_moving = (flow_HW4[..., 2] > 0.5) & (np.hypot(flow_HW4[..., 0], flow_HW4[..., 1]) > 1)

    assert seen_moving.sum() > 500
    gain = _decibels(warped, truth, seen_moving) - _decibels(reference, truth, seen_moving)
    assert gain > 4


def test_the_reference_expression_has_no_flow_and_hides_nothing(renderer: HeadRenderer) -> None:
    neutral = _expression(renderer)
    scene = _scene(renderer, 4, neutral)
    flow, hidden = pool_flow(scene.flow(neutral, STRAIGHT, 256), 64)
    scene.close()

    assert np.abs(flow.astype(np.float32)).max() < 0.02
    assert hidden.mean() < 0.005 * 255


def test_an_opening_mouth_was_hidden_and_its_inside_is_not_taken_from_the_lips(
    renderer: HeadRenderer,
) -> None:
    neutral, open_wide = _expression(renderer), _expression(renderer, jawOpen=0.8)
    scene = renderer.begin(sample_identity(np.random.default_rng(5)), Framing(), neutral)
    points = scene.view.project(scene.head.landmark_track(open_wide[None])[0])
    hidden_HW = 1 - scene.flow(open_wide, STRAIGHT, 256)[..., 2]
    opening = scene.openness_track_px(open_wide[None])[0]
    scene.close()

    mouth = np.zeros((256, 256), np.uint8)
    cv2.fillPoly(mouth, [np.rint(points[60:68] - 0.5).astype(np.int32)], 1)
    inside = cv2.erode(mouth, np.ones((5, 5), np.uint8)) > 0
    outside = cv2.dilate(mouth, np.ones((15, 15), np.uint8)) == 0
    assert opening > 12
    assert hidden_HW[inside].mean() > 0.9
    assert hidden_HW[outside].mean() < 0.03


def test_a_closing_lid_hides_no_more_than_lies_round_the_eye(renderer: HeadRenderer) -> None:
    shut = _expression(renderer, eyeBlink_L=1.0, eyeBlink_R=1.0)
    scene = renderer.begin(sample_identity(np.random.default_rng(6)), Framing(), shut)
    hidden_HW = 1 - scene.flow(_expression(renderer), STRAIGHT, 256)[..., 2]
    right, left, _ = eye_mouth_points(scene.landmarks_px)
    scene.close()

    for x, y in (right, left):
        assert hidden_HW[int(y) - 4 : int(y) + 1, int(x) - 3 : int(x) + 4].mean() > 0.7


def test_framing_puts_eyes_and_mouth_at_the_canonical_place(renderer: HeadRenderer) -> None:
    scene = renderer.begin(
        sample_identity(np.random.default_rng(7)), Framing(), _expression(renderer)
    )
    right, left, mouth = eye_mouth_points(scene.landmarks_px)
    scene.close()

    eyes = (right + left) / 2
    spread, length = np.linalg.norm(left - right), np.linalg.norm(mouth - eyes)
    np.testing.assert_allclose((eyes + mouth) / 2, (128, 136), atol=0.05)
    assert 0.5 * (spread / 54 + length / 56) == pytest.approx(1, abs=1e-3)
    assert left[0] > right[0]


def test_a_seed_gives_the_same_clip_and_another_seed_another(renderer: HeadRenderer) -> None:
    first, again, other = (_clip(renderer, seed) for seed in (8, 8, 9))

    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name], err_msg=name)
    assert not np.array_equal(first["ref_rgb"], other["ref_rgb"])


def test_a_record_has_the_promised_shapes_and_groups(renderer: HeadRenderer) -> None:
    record = _clip(renderer, 10)

    assert record["flow64"].shape == (NUM_FRAMES, 2, 64, 64)
    assert record["rgb"].shape == (16, 256, 256, 3)
    assert record["gaze"].shape == (NUM_FRAMES, 2)
    assert record["gaze"].dtype == np.float16
    np.testing.assert_allclose(record["gaze"][5], (0.1, -0.05), atol=1e-4)
    assert record["flow128"].shape == (16, 2, 128, 128)
    assert len(set(record["group_start"].tolist())) == 4
    assert not (record["group_start"] % 4).any()
    widest = int(record["openness"].argmax()) // 4 * 4
    assert widest in record["group_start"]
    background = record["ref_headness"][:4, :4]
    assert not background.any()
    nose = record["landmarks"][30] / 4
    assert record["ref_depth"][int(nose[1]), int(nose[0])] > 5


def test_a_folder_without_the_kit_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(FaceKitError, match=r"ict_face_model_light\.npz is missing"):
        load_facekit(tmp_path)


def _clip(renderer: HeadRenderer, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    expression_TE = np.zeros((NUM_FRAMES, len(renderer.kit.expression_names)), np.float32)
    beat = np.clip(np.sin(np.arange(NUM_FRAMES) * 0.5), 0, 1)
    expression_TE[:, renderer.kit.expression_index("jawOpen")] = 0.6 * beat
    script = Script(
        expression_TE=expression_TE,
        visemes_TV=np.zeros((NUM_FRAMES, 6), np.float32),
        blink_T=np.zeros(NUM_FRAMES, np.float32),
        gaze_T2=np.tile(np.array([0.1, -0.05], np.float32), (NUM_FRAMES, 1)),
        pose_T6=np.zeros((NUM_FRAMES, 6), np.float32),
        speaking_E=expression_TE[3],
        samples_T=np.zeros(41_920, np.int16),
    )
    return render_clip(renderer, script, rng)
