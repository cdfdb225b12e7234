"""Packets of 20 ms in place, whatever the frame rate, the sample rate and the gaps."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.sound_packets import SoundPacker, SoundPacket

pytestmark = pytest.mark.unit


def beat(tick: int, rate: int, fps: Fraction) -> np.ndarray:
    """A ramp that says which sample it is."""
    return (np.arange(int(tick * rate / fps), int((tick + 1) * rate / fps)) % 30000).astype(
        np.int16
    )


@settings(max_examples=20)
@given(
    fps=st.sampled_from([Fraction(25), Fraction(16), Fraction(30000, 1001), Fraction(12, 5)]),
    first=st.integers(0, 1000),
)
def test_every_sample_is_packed_once_and_stands_where_it_belongs(fps: Fraction, first: int) -> None:
    packer = SoundPacker(48000, fps)
    packets = [p for t in range(first, first + 20) for p in packer.push(t, beat(t, 48000, fps))]
    begin = int(first * 48000 / fps)
    assert [p.pts for p in packets] == [begin + 960 * i for i in range(len(packets))]
    assert len(packets) == (int((first + 20) * 48000 / fps) - begin) // 960
    for packet in packets:
        assert len(packet.samples_T) == 960
        assert packet.samples_T[0] == packet.pts % 30000


def test_missing_ticks_are_left_out_and_time_goes_on_behind_them() -> None:
    packer = SoundPacker(48000, Fraction(16))
    packets = [p for t in (0, 1, 5, 6) for p in packer.push(t, beat(t, 48000, Fraction(16)))]
    pts = [p.pts for p in packets]
    # 6000 samples: six packets and a filled seventh; then tick 5, which begins at 15000.
    assert pts[:7] == [960 * i for i in range(7)]
    assert pts[7] == 15000
    assert not packets[6].samples_T[240:].any()


def loud_from(packets: list[SoundPacket]) -> int:
    sound = np.concatenate([p.samples_T for p in packets])
    return packets[0].pts + int(np.argmax(np.abs(sound) > 4000))


@pytest.mark.parametrize("rate", [16000, 24000, 44100])
def test_other_rates_come_out_at_48_khz_in_place(rate: int) -> None:
    fps = Fraction(25)
    packer = SoundPacker(rate, fps)
    times = np.arange(rate * 2) / rate
    sound = np.where(times >= 1, 9000 * np.sin(2 * np.pi * 500 * times), 0).astype(np.int16)
    packets = []
    for tick in range(50):
        packets += packer.push(tick, sound[tick * rate // 25 : (tick + 1) * rate // 25])
    assert len(packets) >= 94
    assert abs(loud_from(packets) - 48000) < 48


def test_a_rate_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="sample_rate must be positive"):
        SoundPacker(0, Fraction(25))
