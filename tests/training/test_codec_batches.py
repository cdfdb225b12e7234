"""What codec training draws and what it leaves alone."""

import numpy as np
import pytest

from training.codec import choose_learners, draw_groups, learns
from video.motion_codec import MotionCodec, MotionCodecConfig
from video.motion_nets import MOUTH_BOX

pytestmark = pytest.mark.train


def _hidden(open_group: int, num_groups: int = 5) -> np.ndarray:
    """Two clips whose mouth is open in one group of four frames alone."""
    x, y, width, height = (side // 2 for side in MOUTH_BOX)
    hidden = np.zeros((2, num_groups * 4, 128, 128), np.uint8)
    hidden[:, 4 * open_group : 4 * open_group + 4, y : y + height, x : x + width] = 200
    return hidden


def test_groups_with_open_mouths_come_more_often_but_others_come_too() -> None:
    rng = np.random.default_rng(0)
    drawn = np.concatenate([draw_groups(_hidden(3), rng, 1) for _ in range(200)]).ravel()
    share = np.bincount(drawn, minlength=5) / len(drawn)
    assert share[3] > 0.5
    assert (share > 0.02).all()


def test_groups_of_a_clip_differ_and_closed_mouths_come_evenly() -> None:
    rng = np.random.default_rng(0)
    closed = np.zeros((64, 20, 128, 128), np.uint8)
    drawn = draw_groups(closed, rng, 5)
    assert (np.sort(drawn, axis=1) == np.arange(5)).all()
    assert len(np.unique(drawn[:, 0])) == 5


def test_named_parts_learn_and_the_others_stay() -> None:
    codec = MotionCodec(MotionCodecConfig())
    choose_learners(codec, ["mouth"])
    assert learns(codec.mouth)
    assert not any(learns(part) for part in (codec.eyes, codec.refiner, codec.portrait))
    choose_learners(codec, [])
    assert all(learns(part) for part in (codec.mouth, codec.eyes, codec.refiner, codec.portrait))
    assert not learns(codec.identity)
