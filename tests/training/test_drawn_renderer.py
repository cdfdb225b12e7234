"""What training needs of drawn characters: exact flow, closing lips and lids, the same records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("moderngl", reason="the renderer needs moderngl (extra: train)")

from training.camera import Framing, eye_mouth_points, sample_framing
from training.clip import NUM_FRAMES, Script, pool_flow, render_clip
from training.domain import Renderer
from training.drawn_renderer import DrawnRenderer, DrawnScene, ExpressionError
from training.performance import EXPRESSIONS
from training.renderer import HeadRenderer, RendererError

pytestmark = pytest.mark.unit
STRAIGHT = (0.0, 0.0)


@pytest.fixture(scope="module")
def renderer() -> DrawnRenderer:
    try:
        return DrawnRenderer()
    except RendererError as error:
        pytest.skip(str(error))


def _expression(**weights: float) -> np.ndarray:
    """Weights by name; a name without its side stands for both."""
    values = np.zeros(len(EXPRESSIONS), np.float32)
    for name, weight in weights.items():
        for full in {name, f"{name}_L", f"{name}_R"} & set(EXPRESSIONS):
            values[EXPRESSIONS.index(full)] = weight
    return values


def _scene(renderer: DrawnRenderer, seed: int, reference: np.ndarray) -> DrawnScene:
    rng = np.random.default_rng(seed)
    return renderer.begin(renderer.sample(rng), sample_framing(rng), reference)


def _warped(reference: np.ndarray, flow_HW4: np.ndarray) -> np.ndarray:
    grid = np.stack(np.meshgrid(np.arange(256), np.arange(256)), axis=2).astype(np.float32)
    at = grid + flow_HW4[..., :2]
    return np.asarray(cv2.remap(reference, at[..., 0], at[..., 1], cv2.INTER_LINEAR))


def _decibels(one: np.ndarray, other: np.ndarray, where: np.ndarray) -> float:
    error = (one.astype(np.float64) - other.astype(np.float64))[where]
    return float(10 * np.log10(255**2 / np.mean(error**2)))


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_warping_the_reference_by_the_flow_gives_the_frame(
    renderer: DrawnRenderer, seed: int
) -> None:
    neutral = _expression()
    speaking = _expression(jawOpen=0.5, mouthPucker=0.4, browInnerUp=0.6, eyeBlink=0.4)
    scene = _scene(renderer, seed, neutral)
    reference, truth = scene.picture(neutral), scene.picture(speaking)
    flow_HW4 = scene.flow(speaking, (0.15, 0.1), 256)
    still_HW4 = scene.flow(speaking, STRAIGHT, 256)
    scene.close()

    seen = cv2.erode(still_HW4[..., 2], np.ones((3, 3), np.uint8)) > 0.5
    moving = seen & (np.hypot(still_HW4[..., 0], still_HW4[..., 1]) > 1)
    good = _decibels(_warped(reference, still_HW4), truth, moving)
    planted = still_HW4.copy()
    planted[..., :2] *= -1

    assert moving.sum() > 500
    assert good > 30
    assert good > _decibels(reference, truth, moving) + 4
    assert good > _decibels(_warped(reference, planted), truth, moving) + 6
    assert not np.array_equal(flow_HW4, still_HW4)


def test_the_reference_expression_has_no_flow_and_hides_nothing(renderer: DrawnRenderer) -> None:
    smiling = _expression(mouthSmile=0.7, jawOpen=0.2)
    scene = _scene(renderer, 5, smiling)
    flow, hidden = pool_flow(scene.flow(smiling, STRAIGHT, 256), 64)
    scene.close()

    assert np.abs(flow.astype(np.float32)).max() < 0.02
    assert hidden.mean() < 0.005 * 255


@pytest.mark.parametrize("seed", [6, 7, 8])
def test_lips_meet_at_a_press_whatever_the_jaw_does_and_part_as_far_as_heads_do(
    renderer: DrawnRenderer, seed: int
) -> None:
    pressed = _expression(mouthPress=0.55, jawOpen=0.4, mouthClose=0.84 * 0.4)
    scene = _scene(renderer, seed, _expression())
    shut, wide, rounded = scene.openness_track_px(
        np.stack(
            [pressed, _expression(jawOpen=0.66), _expression(mouthPucker=0.6, mouthFunnel=0.3)]
        )
    )
    hidden_HW = 1 - scene.flow(pressed, STRAIGHT, 256)[..., 2]
    scene.close()

    assert shut == 0
    assert 11 < wide < 24
    assert 0 < rounded < wide
    assert hidden_HW.mean() < 0.006


def test_a_rounded_mouth_is_narrower(renderer: DrawnRenderer) -> None:
    widths = []
    for expression in (_expression(), _expression(mouthPucker=0.7, mouthFunnel=0.2)):
        rng = np.random.default_rng(9)
        scene = renderer.begin(renderer.sample(rng), Framing(), expression)
        points = scene.landmarks_px
        eyes = points[42:48].mean(axis=0) - points[36:42].mean(axis=0)
        widths.append(np.linalg.norm(points[54] - points[48]) / np.linalg.norm(eyes))
        scene.close()

    assert widths[1] < 0.8 * widths[0]


def test_an_opening_mouth_was_hidden_and_lids_cover_the_whole_eye(renderer: DrawnRenderer) -> None:
    neutral = _expression()
    scene = renderer.begin(renderer.sample(np.random.default_rng(10)), Framing(), neutral)
    acting = _expression(jawOpen=0.7, eyeBlink=1.0)
    hidden_HW = 1 - scene.flow(acting, STRAIGHT, 256)[..., 2]
    open_picture, shut_picture = scene.picture(neutral), scene.picture(acting)
    shut_again = scene.picture(acting, (0.3, 0.2))
    right, left, mouth = eye_mouth_points(scene.landmarks_px)
    scene.close()

    assert hidden_HW[int(mouth[1]) + 3, int(mouth[0])] == 1
    for x, y in (right, left):
        assert hidden_HW[int(y), int(x)] == 1
    eyes = (slice(90, 126), slice(80, 176))
    assert np.abs(open_picture[eyes].astype(int) - shut_picture[eyes]).max() > 40
    # Nothing of an eye that looks elsewhere shows through shut lids.
    np.testing.assert_array_equal(shut_picture[eyes], shut_again[eyes])


def test_eyes_and_mouth_lie_at_the_canonical_place(renderer: DrawnRenderer) -> None:
    scene = renderer.begin(renderer.sample(np.random.default_rng(11)), Framing(), _expression())
    right, left, mouth = eye_mouth_points(scene.landmarks_px)
    pivot, measure = scene.view.pivot_px, scene.measure
    scene.close()

    eyes = (right + left) / 2
    spread, length = np.linalg.norm(left - right), np.linalg.norm(mouth - eyes)
    np.testing.assert_allclose((eyes + mouth) / 2, (128, 136), atol=0.05)
    assert 0.5 * (spread / 54 + length / 56) == pytest.approx(1, abs=1e-3)
    assert left[0] > right[0]
    assert abs(pivot[0] - 128) < 2
    assert 200 < pivot[1] < 235
    toward = scene.view.pivot_depth_cm - measure.depth
    nose = scene.landmarks_px[30] * 2
    assert 8 < toward[int(nose[1]), int(nose[0])] < 16


def test_a_turned_drawing_shifts_its_nose_against_its_ears(renderer: DrawnRenderer) -> None:
    person = renderer.sample(np.random.default_rng(12))
    noses = []
    for yaw in (-0.2, 0.2):
        scene = renderer.begin(person, Framing(yaw=yaw), _expression())
        noses.append(scene.landmarks_px[30, 0] - scene.landmarks_px[[0, 16], 0].mean())
        scene.close()

    assert noses[1] - noses[0] > 8


def test_a_seed_gives_the_same_clip_and_another_seed_another(renderer: DrawnRenderer) -> None:
    first, again, other = (_clip(renderer, seed) for seed in (13, 13, 14))

    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name], err_msg=name)
    assert not np.array_equal(first["ref_rgb"], other["ref_rgb"])


def test_records_are_those_of_the_heads(renderer: DrawnRenderer, facekit_dir: Path) -> None:
    drawn, head = _clip(renderer, 15), _clip(HeadRenderer(facekit_dir), 15)

    assert {name: (value.shape, value.dtype) for name, value in drawn.items()} == {
        name: (value.shape, value.dtype) for name, value in head.items()
    }
    assert not drawn["ref_headness"][-2:, :8].any()


def test_an_unknown_expression_is_refused_by_name(renderer: DrawnRenderer) -> None:
    with pytest.raises(ExpressionError, match="earWiggle"):
        renderer.kit.expression_index("earWiggle")


def _clip(renderer: Renderer[Any], seed: int) -> dict[str, np.ndarray]:
    beat = np.clip(np.sin(np.arange(NUM_FRAMES) * 0.5), 0, 1)
    expression_TE = beat[:, None] * _expression(jawOpen=0.6)
    script = Script(
        expression_TE=expression_TE.astype(np.float32),
        visemes_TV=np.zeros((NUM_FRAMES, 6), np.float32),
        blink_T=np.zeros(NUM_FRAMES, np.float32),
        gaze_T2=np.zeros((NUM_FRAMES, 2), np.float32),
        pose_T6=np.zeros((NUM_FRAMES, 6), np.float32),
        speaking_E=expression_TE[3].astype(np.float32),
        samples_T=np.zeros(41_920, np.int16),
    )
    return render_clip(renderer, script, np.random.default_rng(seed))
