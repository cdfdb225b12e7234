"""The fade reaches silence in 15 ms without a step, the blend the new picture in four frames."""

import numpy as np
import pytest

from services.bridge import Blend, fade_samples, faded

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_sound_goes_down_in_15_ms(rate: int) -> None:
    out_T = faded(np.full(rate, 10_000, np.int16), rate // 25, rate)
    assert len(out_T) == rate // 25
    assert out_T[0] > 9_900
    assert (np.diff(out_T.astype(int)) <= 0).all()
    assert np.abs(np.diff(out_T.astype(int))).max() <= 10_000 / fade_samples(rate) + 1
    assert np.flatnonzero(out_T)[-1] + 1 in (fade_samples(rate) - 1, fade_samples(rate) - 2)


def test_sound_that_ends_within_the_fade_is_faded_to_its_end() -> None:
    out_T = faded(np.full(100, -32_768, np.int16), 1920, 48_000)
    assert out_T[99] == 0
    assert out_T[0] < -32_000
    assert not faded(np.zeros(0, np.int16), 1920, 48_000).any()
    assert len(faded(np.ones(900, np.int16), 10, 48_000)) == 10


def test_pictures_blend_in_four_equal_steps() -> None:
    old_HWC, new_HWC = np.full((2, 3, 3), 250, np.uint8), np.zeros((2, 3, 3), np.uint8)
    blend, shown = Blend(old_HWC), []
    while not blend.is_over:
        shown.append(int(blend.shown(new_HWC)[0, 0, 0]))
        blend = blend.after()
    assert shown == [200, 150, 100, 50]
    assert blend.shown(new_HWC) is new_HWC


def test_a_picture_of_another_size_takes_over() -> None:
    other_HWC = np.zeros((4, 4, 3), np.uint8)
    assert Blend(np.full((2, 2, 3), 9, np.uint8)).shown(other_HWC) is other_HWC
