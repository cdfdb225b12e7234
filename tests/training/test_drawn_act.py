"""Expressions of 3-D heads as px of a drawing: monotonous, sided and closed when lips press."""

from __future__ import annotations

import numpy as np
import pytest

from training.drawn_act import Act, act_out
from training.drawn_face import eye, mouth, outline, skin_shift
from training.drawn_identity import sample_character
from training.performance import EXPRESSIONS

pytestmark = pytest.mark.unit
PERSON = sample_character(np.random.default_rng(3))


def _act(**weights: float) -> Act:
    values = np.zeros(len(EXPRESSIONS), np.float32)
    for name, weight in weights.items():
        values[EXPRESSIONS.index(name)] = weight
    return act_out(values, (0.0, 0.0))


def test_a_jaw_opens_in_step_and_a_close_undoes_it() -> None:
    gaps = [act.up_px + act.down_px for act in (_act(jawOpen=jaw) for jaw in (0, 0.2, 0.5, 1.0))]
    undone = _act(jawOpen=0.5, mouthClose=0.42)

    assert gaps[0] == 0
    assert np.all(np.diff(gaps) > 3)
    assert undone.up_px + undone.down_px == pytest.approx(0, abs=1e-4)
    assert undone.chin_px > 5


def test_the_characters_right_is_the_viewers_left() -> None:
    act = _act(mouthSmile_R=0.8, eyeBlink_R=1.0, browInnerUp_L=1.0)

    assert act.lift_px[0] > act.lift_px[1]
    assert act.lid[0] == 1
    assert act.lid[1] < 0.1
    assert act.brow_in_px[1] > 5 > act.brow_in_px[0]


def test_shut_lids_lie_on_the_lower_edge_and_pressed_lips_on_each_other() -> None:
    shut = _act(eyeBlink_L=1.0, eyeBlink_R=1.0, mouthPress_L=0.55, mouthPress_R=0.55)
    lips = mouth(PERSON, shut)

    for side in (-1, 1):
        seen = eye(PERSON, shut, side)
        np.testing.assert_allclose(seen.lid, seen.lower, atol=1e-4)
    np.testing.assert_array_equal(lips.upper_in, lips.lower_in)


def test_skin_beside_the_lips_goes_with_them_and_the_forehead_stays() -> None:
    act = _act(jawOpen=0.6)
    lips = mouth(PERSON, act)
    rest = mouth(PERSON, _act())
    middle = len(lips.lower_out) // 2
    below = rest.lower_out[middle : middle + 1] + np.array([0, 1], np.float32)
    forehead = np.array([[0, PERSON.eye_y - 45]], np.float32)

    fall = lips.lower_out[middle, 1] - rest.lower_out[middle, 1]
    assert skin_shift(PERSON, act, below)[0, 1] == pytest.approx(fall, abs=1.5)
    assert np.abs(skin_shift(PERSON, act, forehead)).max() < 0.05


@pytest.mark.parametrize("seed", range(8))
def test_outlines_run_from_the_skull_to_the_chin_without_crossing_the_middle(seed: int) -> None:
    person = sample_character(np.random.default_rng(seed))
    half = outline(person)

    assert half[0, 0] == half[-1, 0] == 0
    assert (half[1:-1, 0] > 0).all()
    assert half[-1, 1] == pytest.approx(person.chin_y, abs=2)
    assert half[0, 1] == pytest.approx(person.top_y, abs=0.01)
