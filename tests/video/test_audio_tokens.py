"""Audio tokens: the reference's numbers, causality, and history that survives repetition."""

import re

import pytest
import torch

from tests.support.goldens import GoldenSet
from video.audio_tokens import (
    HISTORY_FRAMES,
    AudioHistory,
    AudioInjector,
    AudioTokens,
    CausalAudioEncoder,
)

pytestmark = pytest.mark.unit

LIMIT = 2e-5


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def golden_encoder(golden_set: GoldenSet) -> CausalAudioEncoder:
    config = golden_set.config("dit")
    encoder = CausalAudioEncoder(
        config["audio_dim"], config["num_audio_layers"], config["num_audio_token"], config["dim"]
    )
    encoder.load_state_dict(golden_set.weights("dit", "w.casual_audio_encoder."))
    return encoder


def small_encoder() -> CausalAudioEncoder:
    torch.manual_seed(3)
    encoder = CausalAudioEncoder(audio_dim=7, num_layers=2, num_tokens=3, dim=16)
    torch.nn.init.normal_(encoder.encoder.padding_tokens)
    return encoder


def assert_tokens(tokens: AudioTokens, global_: torch.Tensor, local: torch.Tensor) -> None:
    torch.testing.assert_close(tokens.global_BFD.unsqueeze(2), global_, atol=LIMIT, rtol=0)
    torch.testing.assert_close(tokens.local_BFHD, local, atol=LIMIT, rtol=0)


def lengths_of(tensors: dict[str, torch.Tensor], kind: str) -> list[str]:
    """The numbers of frames in the names of a set's inputs, such as 85 of `cae.in85`."""
    found = [m[1] for key in sorted(tensors) if (m := re.fullmatch(rf"cae\.{kind}(\d+)", key))]
    assert found
    return found


@pytest.mark.golden
@torch.no_grad()
def test_reference_outputs_of_a_run(golden_set: GoldenSet) -> None:
    t = golden_set.tensors("audio")
    for length in lengths_of(t, "in"):
        tokens = golden_encoder(golden_set)(t[f"cae.in{length}"])
        assert_tokens(tokens, t[f"cae.global{length}"], t[f"cae.local{length}"])


@pytest.mark.golden
@torch.no_grad()
def test_reference_outputs_of_a_chunk(golden_set: GoldenSet) -> None:
    t = golden_set.tensors("audio")
    (length,) = lengths_of(t, "block")
    tokens = golden_encoder(golden_set).encode_run(t[f"cae.block{length}"])
    assert_tokens(tokens, t["cae.block_global"], t["cae.block_local"])


@pytest.mark.golden
@torch.no_grad()
def test_reference_outputs_of_a_clip(golden_set: GoldenSet) -> None:
    t = golden_set.tensors("audio")
    for length in lengths_of(t, "clip"):
        tokens = golden_encoder(golden_set).encode_run(t[f"cae.clip{length}"])
        assert_tokens(tokens, t[f"cae.clip{length}_global"], t[f"cae.clip{length}_local"])


@torch.no_grad()
def test_carried_chunks_equal_the_clip_encoded_at_once() -> None:
    encoder, audio = small_encoder(), torch.randn(2, 2, 7, 36)
    whole = encoder.encode_run(audio)
    history, parts = AudioHistory(), []
    for start in range(0, 9, 3):
        chunk = audio[..., 4 * start : 4 * start + 12]
        parts.append(encoder.encode_run(chunk, history.advance(start, chunk)))
    joined = torch.cat([part.local_BFHD for part in parts], dim=1)
    torch.testing.assert_close(joined, whole.local_BFHD, atol=1e-5, rtol=0)
    joined = torch.cat([part.global_BFD for part in parts], dim=1)
    torch.testing.assert_close(joined, whole.global_BFD, atol=1e-5, rtol=0)


@torch.no_grad()
def test_chunks_encoded_alone_differ_from_carried_ones() -> None:
    encoder, audio = small_encoder(), torch.randn(1, 2, 7, 24)
    alone = encoder.encode_run(audio[..., 12:]).local_BFHD
    carried = encoder.encode_run(audio).local_BFHD[:, 3:]
    assert (alone[:, 0] - carried[:, 0]).abs().max() > 1e-2
    torch.testing.assert_close(alone[:, 2], carried[:, 2], atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_future_is_not_heard() -> None:
    encoder, audio = small_encoder(), torch.randn(1, 2, 7, 24)
    changed = audio.clone()
    changed[..., 12:] += 1
    before = encoder.encode_run(audio).local_BFHD[:, :3]
    torch.testing.assert_close(encoder.encode_run(changed).local_BFHD[:, :3], before)


def advanced(history: AudioHistory, start_frame: int, audio: torch.Tensor) -> torch.Tensor:
    before = history.advance(start_frame, audio)
    assert before is not None
    return before


def test_history_repeats_for_the_same_chunk_and_survives_export() -> None:
    history, audio = AudioHistory(), torch.randn(1, 2, 7, 24)
    assert history.advance(0, audio[..., :12]) is None
    first = advanced(history, 3, audio[..., 12:])
    assert torch.equal(first, audio[..., 12 - HISTORY_FRAMES : 12])
    copy = AudioHistory()
    copy.import_state(history.export_state())
    for each in (history, copy):
        assert torch.equal(advanced(each, 3, audio[..., 12:]), first)
        assert torch.equal(advanced(each, 6, audio[..., :12]), audio[..., -HISTORY_FRAMES:])
    with pytest.raises(ValueError, match="older"):
        history.advance(3, audio[..., 12:])


def test_feature_frames_must_fill_latent_frames() -> None:
    with pytest.raises(ValueError, match="13 feature frames"):
        small_encoder().encode_run(torch.zeros(1, 2, 7, 13))


@torch.no_grad()
def test_injectors_are_matched_by_exact_layer() -> None:
    torch.manual_seed(0)
    injector = AudioInjector(16, 2, (1, 11), 1e-6)
    tokens = AudioTokens(torch.randn(1, 3, 16), torch.randn(1, 3, 5, 16))
    x, heard = torch.randn(1, 3, 4, 16), injector.prepare(tokens)
    assert injector.slot_of_layer == {1: 0, 11: 1}
    assert not torch.allclose(injector(1, x, heard), injector(11, x, heard))


@torch.no_grad()
def test_two_actors_split_by_mask_are_two_single_runs() -> None:
    torch.manual_seed(0)
    injector = AudioInjector(16, 2, (0,), 1e-6)
    x = torch.randn(2, 3, 4, 16)
    pair = AudioTokens(torch.randn(4, 3, 16), torch.randn(4, 3, 5, 16))
    mask = torch.zeros(2, 3, 4)
    mask[0, :, :2] = mask[1, :, 2:] = 1
    both = injector(0, x, injector.prepare(pair), mask)
    for actor, places in ((0, slice(0, 2)), (1, slice(2, 4))):
        alone = AudioTokens(pair.global_BFD[actor::2], pair.local_BFHD[actor::2])
        single = injector(0, x, injector.prepare(alone))
        torch.testing.assert_close(both[:, :, places], single[:, :, places])
