"""The voice's envelope: loud where it is voiced, blind to hiss, quiet in pauses."""

from fractions import Fraction

import numpy as np
import pytest

from audio.chunk import AudioChunk
from audio.envelope import band_power, quiet_frames, streamed_band_power, voiced_envelope

pytestmark = pytest.mark.unit
RATE, FPS = 16_000, Fraction(25)


def _time_s(seconds: float) -> np.ndarray:
    return np.arange(int(seconds * RATE)) / RATE


def test_the_envelope_follows_the_voice_at_the_frames_instants() -> None:
    time_s = _time_s(4.0)
    loudness = 0.5 + 0.5 * np.sin(2 * np.pi * 1.5 * time_s)
    samples = (0.3 * loudness * np.sin(2 * np.pi * 220 * time_s)).astype(np.float32)
    envelope = voiced_envelope(band_power(samples, RATE, FPS, 100))
    expected = 0.5 + 0.5 * np.sin(2 * np.pi * 1.5 * np.arange(100) / 25)
    assert np.corrcoef(envelope[2:-2], expected[2:-2])[0, 1] > 0.97


def test_power_is_that_of_the_sine() -> None:
    samples = (0.3 * np.sin(2 * np.pi * 440 * _time_s(1.0))).astype(np.float32)
    power = band_power(samples, RATE, FPS, 25)
    assert power[5:-5] == pytest.approx(0.3**2 / 2, rel=0.02)


def test_hiss_is_no_voice() -> None:
    time_s = _time_s(1.0)
    voice = 0.05 * np.sin(2 * np.pi * 200 * time_s)
    hiss = 0.3 * np.sin(2 * np.pi * 5000 * time_s)
    alone, both = (
        band_power(samples.astype(np.float32), RATE, FPS, 25) for samples in (voice, voice + hiss)
    )
    assert both[3:-3] == pytest.approx(alone[3:-3], rel=0.05)


def test_a_pause_is_quiet_and_speech_is_not() -> None:
    samples = (0.2 * np.sin(2 * np.pi * 200 * _time_s(3.0))).astype(np.float32)
    samples[RATE : 2 * RATE] *= 0.003
    quiet = quiet_frames(band_power(samples, RATE, FPS, 75))
    assert quiet[27:48].all()
    assert not quiet[:23].any()
    assert not quiet[53:].any()


@pytest.mark.parametrize("cut", [1, 77, 1600, 40_000])
@pytest.mark.parametrize("fps", [FPS, Fraction(30000, 1001)])
def test_a_stream_of_sound_has_the_power_of_the_whole(cut: int, fps: Fraction) -> None:
    samples = np.random.default_rng(4).uniform(-0.5, 0.5, 9000).astype(np.float32)
    stream = (
        AudioChunk(samples_T=samples[at : at + cut], sample_rate=RATE, pts=at)
        for at in range(0, len(samples), cut)
    )
    power = streamed_band_power(stream, RATE, fps)
    assert len(power) == -(-9000 * fps.numerator // (RATE * fps.denominator))
    assert np.array_equal(power, band_power(samples, RATE, fps, len(power)))
