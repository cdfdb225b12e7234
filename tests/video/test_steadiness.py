"""Every meter of a long video trips on the fault that is planted for it, and only then."""

import numpy as np
import pytest

from video.steadiness import BlinkCounter, DriftMeter, PopMeter

pytestmark = pytest.mark.unit
PERIOD = 12


def _video(num_frames: int, seed: int = 0) -> np.ndarray:
    """A picture that changes by the same little amount from frame to frame."""
    rng = np.random.default_rng(seed)
    steps = rng.choice([-1, 1], (num_frames, 16, 16, 3)).cumsum(axis=0)
    video: np.ndarray = np.clip(128 + steps, 0, 255).astype(np.uint8)
    return video


def _blinks(lids: list[float]) -> int:
    counter = BlinkCounter()
    for value in lids:
        counter.push(value)
    return counter.count


def test_frozen_lids_never_blink() -> None:
    assert _blinks([1.0] * 3000) == 0
    assert _blinks([0.9, 1.1] * 1500) == 0


def test_blinks_are_counted_once_each() -> None:
    blink = [1.0, 0.8, 0.5, 0.4, 0.6, 0.9, 1.0]
    fluttering = [1.0, 0.6, 0.75, 0.5, 0.8, 0.6, 1.0]
    assert _blinks((blink + [1.0] * 60) * 4) == 4
    assert _blinks(fluttering) == 1


def _pop_ratio(video: np.ndarray, cut: int = 5) -> float:
    meter = PopMeter(PERIOD)
    for start in range(0, len(video), cut):
        meter.push(video[start : start + cut])
    return meter.ratio()


def test_a_smooth_video_has_no_pops_however_it_is_cut() -> None:
    video = _video(240)
    assert _pop_ratio(video) == pytest.approx(1.0, abs=0.05)
    assert _pop_ratio(video, cut=12) == _pop_ratio(video, cut=1)


def test_a_jump_at_the_borders_of_chunks_trips_the_pop_ratio() -> None:
    video = _video(240).astype(np.int16)
    for border in range(PERIOD, 240, PERIOD):
        video[border:] += 2 if border // PERIOD % 2 else -2
    assert _pop_ratio(np.clip(video, 0, 255).astype(np.uint8)) > 1.5


def test_a_jump_elsewhere_is_no_pop_at_a_border() -> None:
    video = _video(240).astype(np.int16)
    for inside in range(PERIOD // 2, 240, PERIOD):
        video[inside:] += 2 if inside // PERIOD % 2 else -2
    assert _pop_ratio(np.clip(video, 0, 255).astype(np.uint8)) < 1.0


def _meter() -> DriftMeter:
    background = np.zeros((16, 16), np.bool_)
    background[:, :4] = True
    face = np.zeros((16, 16), np.bool_)
    face[4:12, 6:12] = True
    return DriftMeter(background, face)


def test_a_still_picture_does_not_drift() -> None:
    meter = _meter()
    meter.push(np.repeat(_video(1), 50, axis=0))
    assert meter.take() == pytest.approx((0.0, 0.0), abs=1e-9)


def test_a_slow_change_of_colour_trips_both_meters() -> None:
    meter, video = _meter(), np.repeat(_video(1), 200, axis=0).astype(np.float64)
    video[..., 0] += np.linspace(0, 30, 200)[:, None, None]
    pixels = np.clip(video, 0, 255).astype(np.uint8)
    minutes = []
    for start in range(0, 200, 50):
        meter.push(pixels[start : start + 50])
        minutes.append(meter.take())
    backgrounds, faces = zip(*minutes, strict=True)
    assert list(backgrounds) == sorted(backgrounds)
    assert backgrounds[-1] > 5
    assert faces[-1] > 15


def test_a_background_that_moves_trips_its_meter_alone() -> None:
    meter = _meter()
    meter.push(_video(1))
    video = np.repeat(_video(1), 20, axis=0)
    video[:, :, :4] = np.roll(video[:, :, :4], 1, axis=1) ^ 32
    meter.push(video)
    background, face = meter.take()
    assert background > 5
    assert face == pytest.approx(0.0)
