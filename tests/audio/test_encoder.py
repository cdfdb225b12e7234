"""Every consumer of a stream refuses gaps and broken samples, and goes on after a refusal."""

from collections.abc import Callable
from fractions import Fraction
from typing import Protocol

import numpy as np
import pytest
import torch

from audio.activity import ActivityDetector
from audio.chunk import AudioChunk
from audio.encoder import AudioFeatures, ChunkClock
from audio.errors import AudioError
from audio.mel_encoder import MelEncoder, MelEncoderConfig, MelEncoderNet
from audio.resample import StreamResampler
from tests.support.sound import noise

pytestmark = pytest.mark.unit

SMALL = MelEncoderConfig(channels=8, out_channels=4, dilations=(1,))


class Consumer(Protocol):
    """What takes a stream of sound piece by piece."""

    def push(self, chunk: AudioChunk) -> object: ...


CONSUMERS: dict[str, Callable[[], Consumer]] = {
    "resampler": lambda: StreamResampler(16_000, 8_000),
    "mel encoder": lambda: MelEncoder(MelEncoderNet(SMALL)),
    "activity": lambda: ActivityDetector(16_000),
}


def chunk(samples: np.ndarray, pts: int, sample_rate: int = 16_000) -> AudioChunk:
    return AudioChunk(samples_T=samples, sample_rate=sample_rate, pts=pts)


@pytest.mark.parametrize("name", CONSUMERS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_broken_samples_are_refused_and_the_stream_goes_on(name: str, value: float) -> None:
    consumer = CONSUMERS[name]()
    consumer.push(chunk(noise(500), 0))
    broken = noise(500)
    broken[123] = value
    with pytest.raises(AudioError, match="pts 500 holds NaN or infinite"):
        consumer.push(chunk(broken, 500))
    consumer.push(chunk(noise(500), 500))


@pytest.mark.parametrize("name", CONSUMERS)
def test_gaps_and_other_rates_are_refused(name: str) -> None:
    consumer = CONSUMERS[name]()
    consumer.push(chunk(noise(500), 0))
    with pytest.raises(ValueError, match="starts at pts 501, the last one ended at 500"):
        consumer.push(chunk(noise(500), 501))
    with pytest.raises(ValueError, match="chunk has 8000 Hz, the stream has 16000"):
        consumer.push(chunk(noise(500), 500, sample_rate=8_000))


def test_a_clock_moves_and_starts_anew() -> None:
    clock, twin = ChunkClock(16_000), ChunkClock(16_000)
    twin.import_state(clock.export_state())
    twin.check(chunk(noise(10), 7))  # the first chunk may begin anywhere
    clock.import_state(twin.export_state())
    with pytest.raises(ValueError, match="ended at 17"):
        clock.check(chunk(noise(10), 0))
    clock.reset()
    clock.check(chunk(noise(10), 0))


def test_features_say_where_they_end() -> None:
    features = AudioFeatures(values_LCT=torch.zeros(1, 2, 5), rate=Fraction(100), start=3)
    assert (features.num_frames, features.end) == (5, 8)


@pytest.mark.parametrize(("shape", "rate"), [((2, 5), Fraction(100)), ((1, 2, 5), Fraction(0))])
def test_impossible_features_are_refused(shape: tuple[int, ...], rate: Fraction) -> None:
    with pytest.raises(ValueError, match="must be"):
        AudioFeatures(values_LCT=torch.zeros(shape), rate=rate, start=0)
