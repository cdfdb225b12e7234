"""Windows of speech features: the same however the sound is cut, and after moving house."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audio.align import num_frames
from audio.chunk import AudioChunk
from audio.mel_encoder import MelEncoder, MelEncoderConfig, MelEncoderNet
from audio.resample import StreamResampler
from pipeline.resume import ResumableResampler
from pipeline.speech import SpeechWindows

pytestmark = pytest.mark.stream

SLOW = settings(
    deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def net() -> MelEncoderNet:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return MelEncoderNet(MelEncoderConfig(channels=8, out_channels=8, dilations=(1, 2))).eval()


def noise(seconds: float, rate: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    return (0.2 * rng.standard_normal(int(seconds * rate))).astype(np.float32)


def chunks(samples_T: np.ndarray, rate: int, cuts: list[int]) -> list[AudioChunk]:
    edges = sorted({0, len(samples_T), *(cut % len(samples_T) for cut in cuts)})
    return [
        AudioChunk(samples_T=samples_T[a:b], sample_rate=rate, pts=a) for a, b in pairwise(edges)
    ]


def windows_of(
    net: MelEncoderNet, sound: list[AudioChunk], rate: int, fps: Fraction, frames: int = 12
) -> list[torch.Tensor]:
    speech = SpeechWindows(MelEncoder(net), sample_rate=rate, fps=fps, window_frames=frames)
    total = num_frames(sound[-1].end_pts, rate, fps)
    return [w for chunk in sound for w in speech.push(chunk)] + speech.flush(total)


@SLOW
@given(
    cuts=st.lists(st.integers(0, 100000), max_size=8),
    rate=st.sampled_from([8000, 16000, 44100]),
    fps=st.sampled_from([Fraction(25), Fraction(30000, 1001), Fraction(12)]),
)
def test_any_cut_of_the_sound_gives_the_same_windows(
    net: MelEncoderNet, cuts: list[int], rate: int, fps: Fraction
) -> None:
    samples_T = noise(1.3, rate)
    whole = windows_of(net, chunks(samples_T, rate, []), rate, fps)
    cut = windows_of(net, chunks(samples_T, rate, cuts), rate, fps)
    assert len(whole) == len(cut) == -(-num_frames(len(samples_T), rate, fps) // 12)
    torch.testing.assert_close(torch.stack(cut), torch.stack(whole), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("num_samples", [1, 2, 159, 160, 1600, 7679, 7680, 7681, 16000])
def test_every_length_gives_enough_windows_and_no_more(
    net: MelEncoderNet, num_samples: int
) -> None:
    sound = chunks(noise(1.0, 16000)[:num_samples], 16000, [])
    made = windows_of(net, sound, 16000, Fraction(25))
    assert len(made) == -(-num_frames(num_samples, 16000, Fraction(25)) // 12)
    assert all(w.shape == (1, 14, 12) and torch.isfinite(w).all() for w in made)


@pytest.mark.parametrize("fps", [Fraction(1), Fraction(60), Fraction(24000, 1001)])
def test_slow_and_fast_pictures_get_whole_windows(net: MelEncoderNet, fps: Fraction) -> None:
    sound = chunks(noise(2.0, 16000), 16000, [])
    assert len(windows_of(net, sound, 16000, fps)) == -(-num_frames(32000, 16000, fps) // 12)


def test_what_is_to_come_does_not_change_what_was_said_but_for_the_look_ahead(
    net: MelEncoderNet,
) -> None:
    samples_T = noise(2.0, 16000)
    other_T = samples_T.copy()
    other_T[24000:] = 0
    one = windows_of(net, chunks(samples_T, 16000, []), 16000, Fraction(25))
    two = windows_of(net, chunks(other_T, 16000, []), 16000, Fraction(25))
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
    assert not torch.equal(one[3], two[3])


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000, 44101])
def test_a_resampler_goes_on_in_a_twin(rate: int) -> None:
    samples_T = noise(3.0, rate)
    parts = chunks(samples_T, rate, list(range(0, 3 * rate, rate // 10)))
    plain = StreamResampler(rate, 16000)
    expected = [plain.push(part).samples_T for part in parts] + [plain.flush().samples_T]
    moving = ResumableResampler(rate, 16000)
    made: list[np.ndarray] = []
    for index, part in enumerate(parts):
        if index in (1, 3, 17, 18):
            state = moving.export_state()
            moving = ResumableResampler(rate, 16000)
            moving.import_state(state)
        out = moving.push(part)
        assert out.pts == sum(len(piece) for piece in made)
        made.append(out.samples_T)
    made.append(moving.flush().samples_T)
    joined, whole = np.concatenate(made), np.concatenate(expected)
    assert len(joined) == len(whole)
    np.testing.assert_allclose(joined, whole, atol=0 if rate == 16000 else 2e-6)


def test_a_resampler_remembers_a_bounded_time() -> None:
    moving = ResumableResampler(44100, 16000)
    for index in range(300):
        part = np.zeros(4410, np.float32)
        moving.push(AudioChunk(samples_T=part, sample_rate=44100, pts=index * 4410))
    assert len(moving.export_state().tensors["recent_T"]) < 44100
