"""Speech is told from silence in noise of any level, however the stream is cut."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audio.activity import ActivityConfig, ActivityDetector, ActivityState, level_db, next_state
from audio.chunk import AudioChunk
from tests.support.sound import noise

pytestmark = pytest.mark.unit

RATE = 16_000
CONFIG = ActivityConfig()


def syllables(seconds: float, level: float) -> np.ndarray:
    """A voiced buzz swelling five times a second: the envelope of speech."""
    times_s = np.arange(int(seconds * RATE)) / RATE
    buzz = np.sign(np.sin(2 * np.pi * 120 * times_s)) * np.sin(2 * np.pi * 5 * times_s) ** 2
    return np.asarray(level * buzz, np.float32)


def decide(samples: np.ndarray, cuts: Sequence[int] = ()) -> np.ndarray:
    detector, pieces, start = ActivityDetector(RATE), [], 0
    for size in [*cuts, len(samples)]:
        chunk = samples[start : start + size]
        pieces.append(detector.push(AudioChunk(samples_T=chunk, sample_rate=RATE, pts=start)))
        start += len(chunk)
    return np.concatenate(pieces)


@pytest.mark.parametrize("noise_level", [0.0, 1e-4, 3e-3, 0.02])
def test_planted_speech_is_found(noise_level: float) -> None:
    """4 s of noise, 3 s of speech, 2 s of noise: begins within 60 ms, ends within the hangover."""
    samples = noise(9 * RATE, level=noise_level)
    samples[4 * RATE : 7 * RATE] += syllables(3, 0.25)
    frames = decide(samples)
    assert not frames[300:400].any()
    begin = int(np.argmax(frames[400:])) + 400
    assert 400 <= begin <= 410
    assert frames[begin:695].all()
    assert not frames[700 + CONFIG.hangover_frames + 1 :].any()


def test_steady_noise_is_learnt() -> None:
    frames = decide(noise(12 * RATE, level=0.05))  # -26 dB from the first sample on
    assert not frames[1000:].any()


def test_a_click_is_no_speech() -> None:
    samples = noise(RATE, level=1e-4)
    samples[8000:8100] = 0.9
    assert not decide(samples).any()


def test_a_pause_within_a_word_is_no_end() -> None:
    samples = np.concatenate(
        [syllables(1, 0.3), np.zeros(RATE // 5, np.float32), syllables(1, 0.3)]
    )
    assert decide(samples)[20:].all()


def test_silence_is_silence() -> None:
    assert not decide(np.zeros(RATE, np.float32)).any()


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, 3000), max_size=15), seed=st.integers(0, 9))
def test_any_cut_gives_the_same_decisions(cuts: Sequence[int], seed: int) -> None:
    samples = noise(RATE, seed, level=0.01)
    samples[5000:9000] += syllables(0.25, 0.3)
    assert np.array_equal(decide(samples, cuts), decide(samples))


@given(st.floats(-100, 0), st.floats(-100, 0), st.integers(0, 5), st.integers(0, 31))
def test_the_decision_is_pure_and_its_floor_bounded(
    floor_db: float, level: float, loud_frames: int, hangover_left: int
) -> None:
    state = ActivityState(floor_db=floor_db, loud_frames=loud_frames, hangover_left=hangover_left)
    after = next_state(state, level, CONFIG)
    assert after == next_state(state, level, CONFIG)
    assert after.floor_db <= min(level, floor_db + 0.05) + 1e-9
    assert 0 <= after.hangover_left <= CONFIG.hangover_frames + 1


def test_level_of_known_signals() -> None:
    assert level_db(np.zeros(10, np.float32)) == -100.0
    assert level_db(np.full(10, 0.1, np.float32)) == pytest.approx(-20.0, abs=1e-4)


def test_state_moves_to_another_detector() -> None:
    samples = noise(2 * RATE, level=1e-3)
    samples[RATE:] += syllables(1, 0.3)
    first, second = ActivityDetector(RATE), ActivityDetector(RATE)
    head = first.push(AudioChunk(samples_T=samples[:20_001], sample_rate=RATE, pts=0))
    second.import_state({k: v.clone() for k, v in first.export_state().items()})
    assert isinstance(first.export_state()["state"], torch.Tensor)
    rest = second.push(AudioChunk(samples_T=samples[20_001:], sample_rate=RATE, pts=20_001))
    assert np.array_equal(np.concatenate([head, rest]), decide(samples))
    assert second.speaking
    second.reset()
    assert not second.speaking


@pytest.mark.parametrize("values", [{"frame_ms": 0}, {"hangover_ms": -5}, {"margin_db": 0}])
def test_impossible_limits_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        ActivityConfig(**values)
    with pytest.raises(ValueError, match="no sample in a frame"):
        ActivityDetector(50)


def test_real_speech_is_mostly_speech() -> None:
    """The shared samples are talk with pauses: both must be found."""
    from audio.source import FileSource

    folder = Path(__file__).resolve().parents[2] / ".." / "shared" / "samples"
    files = sorted(folder.glob("*.wav"))
    if not files:
        pytest.skip(f"no sample speech in {folder}")
    for path in files:
        source = FileSource(path)
        detector = ActivityDetector(source.sample_rate)
        frames = np.concatenate([detector.push(chunk) for chunk in source.chunks()])
        assert 0.5 < frames.mean() <= 1.0
