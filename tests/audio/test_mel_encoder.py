"""The pocket's speech encoder: a stream equals the whole, and the look-ahead is exact."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audio.chunk import AudioChunk
from audio.encoder import SpeechEncoder
from audio.features import log_mel
from audio.mel_encoder import VISEME_NAMES, MelEncoder, MelEncoderConfig, MelEncoderNet
from tests.support.sound import noise, push_in_pieces

pytestmark = pytest.mark.stream

SMALL = MelEncoderConfig(channels=16, out_channels=8, lookahead_frames=3, dilations=(1, 2))


def make_net(config: MelEncoderConfig = SMALL, seed: int = 0) -> MelEncoderNet:
    torch.manual_seed(seed)
    return MelEncoderNet(config).eval()


NET = make_net()
FULL_NET = make_net(MelEncoderConfig())


@torch.no_grad()
def whole(net: MelEncoderNet, samples: np.ndarray) -> torch.Tensor:
    return torch.cat(net(log_mel(torch.from_numpy(samples)[None])), dim=1)


@settings(max_examples=40, deadline=None)
@given(num_samples=st.integers(1, 20_000), cuts=st.lists(st.integers(0, 4000), max_size=12))
def test_any_cut_equals_the_whole(num_samples: int, cuts: list[int]) -> None:
    samples = noise(num_samples)
    got = push_in_pieces(MelEncoder(NET), samples, cuts)
    assert torch.equal(got, push_in_pieces(MelEncoder(NET), samples, []))
    torch.testing.assert_close(got, whole(NET, samples), atol=1e-5, rtol=0)


def test_the_shipped_size_streams_as_well() -> None:
    samples = noise(48_000)
    got = push_in_pieces(MelEncoder(FULL_NET), samples, [320] * 100)
    assert got.shape == (1, 70, 301)
    torch.testing.assert_close(got, whole(FULL_NET, samples), atol=1e-5, rtol=0)


def test_the_shipped_size_is_small_and_looks_far_enough_back() -> None:
    assert sum(p.numel() for p in FULL_NET.parameters()) <= 600_000
    assert FULL_NET.num_past - FULL_NET.config.lookahead_frames >= 40  # 0.4 s


@pytest.mark.parametrize("net", [NET, FULL_NET])
def test_an_output_sees_its_look_ahead_and_nothing_later(net: MelEncoderNet) -> None:
    """Change one mel frame: exactly the outputs whose window holds it change."""
    ahead, past = net.config.lookahead_frames, net.num_past - net.config.lookahead_frames
    mel = torch.randn(1, 80, 160)
    changed, at = mel.clone(), 70
    changed[..., at] += 3.0
    with torch.no_grad():
        difference = (net(mel)[0] - net(changed)[0]).abs().amax(dim=1)[0]
    seen = torch.nonzero(difference > 1e-7).flatten()
    assert seen.min() == at - ahead
    assert seen.max() <= at + past
    assert (difference[at - ahead : at + 1] > 1e-7).all()


def test_silence_before_the_start_changes_nothing() -> None:
    mel = torch.randn(1, 80, 50)
    silence = torch.full((1, 80, 200), NET.config.silent_mel)
    with torch.no_grad():
        late = NET(torch.cat([silence, mel], dim=-1))[0][..., 200:]
        torch.testing.assert_close(late, NET(mel)[0], atol=1e-5, rtol=0)


def test_features_come_after_the_promised_wait() -> None:
    encoder = MelEncoder(NET)
    assert encoder.lookahead_s == Fraction((3 + 7) * 160 + 200, 16_000)
    sound, starts = noise(20_000), range(0, 20_000, 40)
    for pts in starts:
        piece = AudioChunk(samples_T=sound[pts : pts + 40], sample_rate=16_000, pts=pts)
        end = encoder.push(piece).end
        # Every frame whose wait is over is out: frame i waits until i * 160 + lookahead.
        assert end * 160 + int(encoder.lookahead_s * 16_000) > piece.end_pts


def test_visemes_are_shares() -> None:
    features, visemes = NET(torch.randn(2, 80, 30))
    assert features.shape == (2, 8, 30)
    assert visemes.shape == (2, len(VISEME_NAMES), 30)
    assert ((visemes >= 0) & (visemes <= 1)).all()


def test_the_network_can_learn() -> None:
    net = make_net(seed=1)
    loudness = torch.randn(4, 1, 40)
    mel = loudness - 3.5 + 0.1 * torch.randn(4, 80, 40)
    target = (loudness > 0).float().expand(-1, 6, -1)
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
    losses = []
    for _ in range(25):
        loss = torch.nn.functional.binary_cross_entropy(net(mel)[1], target)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_state_moves_to_another_encoder() -> None:
    samples = noise(20_000)
    first, second = MelEncoder(NET), MelEncoder(NET)
    head = first.push(AudioChunk(samples_T=samples[:7777], sample_rate=16_000, pts=0))
    state = first.export_state()
    first.push(AudioChunk(samples_T=samples[7777:9000], sample_rate=16_000, pts=7777))
    second.import_state(state)  # what the first did since must not show
    rest = second.push(AudioChunk(samples_T=samples[7777:], sample_rate=16_000, pts=7777))
    joined = torch.cat([p.values_LCT for p in (head, rest, second.flush())], dim=-1)
    torch.testing.assert_close(joined, whole(NET, samples), atol=1e-5, rtol=0)


def test_flush_and_reset_start_a_stream() -> None:
    encoder, samples = MelEncoder(NET), noise(5000)
    first = push_in_pieces(encoder, samples, [100])
    encoder.push(AudioChunk(samples_T=noise(3000, 9), sample_rate=16_000, pts=0))
    encoder.reset()
    assert torch.equal(push_in_pieces(encoder, samples, [100]), first)
    assert push_in_pieces(encoder, np.zeros(0, np.float32), []).shape == (1, 14, 0)


def test_it_is_a_speech_encoder() -> None:
    encoder: SpeechEncoder = MelEncoder(FULL_NET)
    assert (encoder.num_layers, encoder.channels, encoder.sample_rate) == (1, 70, 16_000)
    assert encoder.rate == 100


@pytest.mark.unit
def test_config_from_a_model_folder() -> None:
    config = MelEncoderConfig.from_dict({"channels": 32, "dilations": [1, 3]})
    assert (config.channels, config.dilations, config.feature_channels) == (32, (1, 3), 70)
    with pytest.raises(ValueError, match="unknown keys in the mel encoder's config: chanels"):
        MelEncoderConfig.from_dict({"chanels": 32})


@pytest.mark.unit
@pytest.mark.parametrize(
    "values", [{"channels": 0}, {"dilations": ()}, {"lookahead_frames": -1}, {"mel_std": 0.0}]
)
def test_impossible_dimensions_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="speech"):
        MelEncoderConfig(**values)


@pytest.mark.unit
def test_sound_of_another_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="resample it"):
        MelEncoder(NET).push(AudioChunk(samples_T=noise(10), sample_rate=48_000, pts=0))
