"""The log-mel of a stream equals librosa's of the whole signal, however the signal is cut."""

from typing import Any

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audio.features import LogMelConfig, StreamingLogMel, log_mel, mel_filters
from tests.support.sound import noise, sine

pytestmark = pytest.mark.stream


def librosa_log_mel(samples: np.ndarray, config: LogMelConfig) -> np.ndarray:
    mel = librosa.feature.melspectrogram(
        y=samples.astype(np.float64),
        sr=config.sample_rate,
        n_fft=config.window,
        hop_length=config.hop,
        n_mels=config.num_mels,
        center=True,
        pad_mode="constant",
    )
    return np.asarray(np.log10(np.maximum(mel, config.floor)))


def stream(samples: np.ndarray, cuts: list[int], config: LogMelConfig) -> torch.Tensor:
    streaming = StreamingLogMel(config)
    pieces, start = [], 0
    for size in [*cuts, len(samples)]:
        pieces.append(streaming.push(samples[start : start + size]))
        start = min(start + size, len(samples))
    return torch.cat([*pieces, streaming.flush()], dim=-1)


CONFIGS = [LogMelConfig(), LogMelConfig(sample_rate=24_000, num_mels=40, hop=240, window=1024)]


@pytest.mark.filterwarnings("ignore:n_fft=.* is too large for input signal")
@settings(max_examples=50, deadline=None)
@given(
    config=st.sampled_from(CONFIGS),
    num_samples=st.integers(1, 12_000),
    level=st.sampled_from([1e-4, 0.01, 1.0]),
    cuts=st.lists(st.integers(0, 2000), max_size=15),
)
def test_any_cut_equals_librosa_of_the_whole(
    config: LogMelConfig, num_samples: int, level: float, cuts: list[int]
) -> None:
    samples = noise(num_samples, level=level) + level * np.resize(sine(16_000, 1), num_samples)
    want = librosa_log_mel(samples, config)
    got = stream(samples, cuts, config)
    assert torch.equal(got, stream(samples, [], config))
    assert got.dtype == torch.float32
    assert got.shape == want.shape == (config.num_mels, config.num_frames(num_samples))
    assert np.abs(got.numpy() - want).max() < 1e-5
    whole = log_mel(torch.from_numpy(samples)[None], config)[0]
    assert np.abs(whole.numpy() - want).max() < 1e-5


def test_equals_librosa_in_single_precision_as_well() -> None:
    samples = noise(48_000)
    mel = librosa.feature.melspectrogram(
        y=samples, sr=16_000, n_fft=400, hop_length=160, n_mels=80, pad_mode="constant"
    )
    got = log_mel(torch.from_numpy(samples)[None])[0].numpy()
    assert np.abs(got - np.log10(np.maximum(mel, 1e-5))).max() < 1e-4


def test_a_frame_comes_as_soon_as_its_window_is_in() -> None:
    streaming = StreamingLogMel(block_frames=1)
    assert streaming.push(noise(199)).shape == (80, 0)
    assert streaming.push(noise(1)).shape == (80, 1)  # frame 0 ends 200 samples after its centre
    assert streaming.push(noise(160)).shape == (80, 1)


def test_silence_is_the_floor() -> None:
    assert torch.equal(log_mel(torch.zeros(1, 1600)), torch.full((1, 80, 11), -5.0))


def test_nothing_makes_no_frames() -> None:
    assert log_mel(torch.zeros(2, 0)).shape == (2, 80, 0)
    streaming = StreamingLogMel()
    assert streaming.push(np.zeros(0, np.float32)).shape == (80, 0)
    assert streaming.flush().shape == (80, 0)


def test_state_moves_to_another_stream() -> None:
    samples = noise(5000)
    first, second = StreamingLogMel(), StreamingLogMel()
    head = first.push(samples[:1234])
    second.import_state(first.export_state())
    joined = torch.cat([head, second.push(samples[1234:]), second.flush()], dim=-1)
    assert torch.equal(joined, stream(samples, [], LogMelConfig()))


def test_memory_stays_one_block() -> None:
    streaming = StreamingLogMel()
    for seed in range(50):
        streaming.push(noise(1600, seed))
    assert len(streaming.export_state()["pending_T"]) < 400 + 8 * 160


def test_every_filter_hears_something() -> None:
    for config in CONFIGS:
        assert (mel_filters(config).amax(dim=0) > 0).all()


@pytest.mark.parametrize("values", [{"hop": 0}, {"hop": 401}, {"window": 401}, {"floor": 0.0}])
def test_impossible_dimensions_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        LogMelConfig(**values)
