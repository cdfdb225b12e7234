"""Keyframes and bitrate: decided by time that is passed in."""

import pytest

from services.encode_rules import BitrateRule, KeyframeGate, video_share

pytestmark = pytest.mark.unit


def test_many_losses_make_one_keyframe_in_half_a_second() -> None:
    gate = KeyframeGate()
    gate.force()
    made = []
    for n in range(100):
        gate.ask()
        if gate.take(n * 0.04):
            made.append(n)
    assert made == list(range(0, 100, 13))
    assert made[1] * 0.04 >= 0.5


def test_who_joins_does_not_wait_and_nobody_asks_for_nothing() -> None:
    gate = KeyframeGate()
    assert not gate.take(0.0)
    gate.ask()
    assert gate.take(0.04)
    gate.force()
    assert gate.take(0.08)
    assert not gate.take(5.0)


def test_a_keyframe_made_for_other_reasons_answers_what_was_asked() -> None:
    gate = KeyframeGate()
    gate.ask()
    gate.made(1.0)
    assert not gate.take(9.0)


def test_the_slowest_viewer_decides() -> None:
    rule = BitrateRule(1_000_000)
    assert rule.next(0.0, [None, 500_000]) == video_share(500_000) == 390_000
    assert rule.next(0.5, [300_000]) is None
    assert rule.next(1.0, [300_000]) == 210_000


def test_bitrate_rises_slowly_and_never_above_what_the_picture_needs() -> None:
    rule = BitrateRule(1_000_000)
    assert rule.next(0.0, [400_000]) == 300_000
    assert rule.next(3.0, [9_000_000]) is None
    assert rule.next(4.0, [9_000_000]) == 1_000_000
    assert rule.next(90.0, [9_000_000]) is None


def test_small_changes_are_left_alone() -> None:
    rule = BitrateRule(1_000_000)
    assert rule.next(0.0, [1_000_000]) is None
    assert rule.next(9.0, []) is None
