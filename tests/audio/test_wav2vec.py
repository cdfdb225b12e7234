"""wav2vec2 features: the reference program's numbers, and the same ones for any cut of a stream."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from audio.align import Aligner
from audio.chunk import AudioChunk
from audio.errors import AudioError
from audio.wav2vec import (
    Wav2Vec2Encoder,
    Wav2Vec2Window,
    hidden_states,
    load_wav2vec2,
    load_wav2vec2_folder,
    normalise,
    to_clips,
    to_video_rate,
    video_rate_length,
)
from tests.support.goldens import GoldenSet
from tests.support.sound import noise, push_in_pieces

CONFIG = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "conv_dim": [8] * 7, "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "conv_bias": True, "feat_extract_norm": "layer", "do_stable_layer_norm": True,
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, "apply_spec_augment": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def model() -> nn.Module:
    transformers = pytest.importorskip("transformers", reason="the wav2vec extra is not installed")
    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(**CONFIG)
    network: nn.Module = transformers.Wav2Vec2Model(config)
    return network.eval()


@pytest.mark.golden
def test_hidden_states_equal_the_reference(golden_set: GoldenSet) -> None:
    pytest.importorskip("transformers", reason="the wav2vec extra is not installed")
    tensors = golden_set.tensors("audio")
    weights = golden_set.weights("audio", "w2v.w.")
    net = load_wav2vec2(golden_set.config("wav2vec2"), weights)
    torch.testing.assert_close(
        normalise(tensors["w2v.raw"])[None], tensors["w2v.input_values"], atol=2e-5, rtol=0
    )
    got = hidden_states(net, tensors["w2v.raw"])
    torch.testing.assert_close(got, tensors["w2v.hidden_states"], atol=2e-5, rtol=0)


@pytest.mark.golden
def test_features_on_the_video_grid_equal_the_reference(golden_set: GoldenSet) -> None:
    tensors = golden_set.tensors("audio")
    cases = sorted({key.split(".")[1] for key in tensors if key.startswith("feat.")})
    assert cases
    for case in cases:
        clip_frames = int(case.split("_bf")[1])
        f30 = to_video_rate(tensors[f"feat.{case}.in50"])
        torch.testing.assert_close(f30, tensors[f"feat.{case}.f30"], atol=1e-6, rtol=0)
        clips = to_clips(f30, clip_frames)
        torch.testing.assert_close(clips[None], tensors[f"feat.{case}.embed"], atol=1e-6, rtol=0)
        assert clips.shape[-1] == int(tensors[f"feat.{case}.num_clips"]) * clip_frames


@pytest.mark.unit
def test_length_rule_is_the_float_one() -> None:
    assert [video_rate_length(n) for n in (23, 49, 97, 205, 250)] == [13, 29, 58, 122, 150]


@pytest.mark.unit
def test_the_last_clip_is_padded_with_zeros() -> None:
    features = torch.arange(1.0, 14.0).reshape(1, 13, 1)  # one live chunk: 23 hidden frames
    clips = to_clips(features, 12)[0, 0]
    assert clips.tolist() == [1, 2, 3, 5, 6, 7, 8, 9, 11, 12, 13, 0]


@pytest.mark.unit
def test_a_transformers_without_parametrized_weight_norm_loads_as_well(model: nn.Module) -> None:
    """Whichever names the weights have, the same network results."""
    state = model.state_dict()
    old = {
        "wav2vec2."
        + key.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): value
        for key, value in state.items()
    }
    assert any(key.endswith("weight_g") for key in old)
    old["lm_head.weight"] = torch.zeros(8, 16)
    sound = torch.from_numpy(noise(4000))
    want = hidden_states(model, sound)
    for weights in (old, state):
        assert torch.equal(hidden_states(load_wav2vec2(CONFIG, weights), sound), want)


@pytest.mark.unit
def test_weights_that_do_not_fit_are_named(model: nn.Module) -> None:
    weights = dict(model.state_dict())
    weights.pop("feature_projection.projection.bias")
    with pytest.raises(AudioError, match=r"feature_projection\.projection\.bias"):
        load_wav2vec2(CONFIG, weights)


@pytest.mark.unit
def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=str(tmp_path)):
        load_wav2vec2_folder(tmp_path)


@pytest.mark.unit
def test_missing_transformers_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(AudioError, match="pip install"):
        load_wav2vec2(CONFIG, {})


@pytest.mark.stream
@pytest.mark.parametrize("num_samples", [1, 500, 8000, 23_456])
def test_any_cut_gives_the_same_features(model: nn.Module, num_samples: int) -> None:
    window = Wav2Vec2Window(step=3, before=5, after=1)
    samples = noise(num_samples)
    whole = push_in_pieces(Wav2Vec2Encoder(model, window), samples, [])
    assert whole.shape == (3, 16, -(-num_samples * 30 // 16_000))
    for seed in range(3):
        cuts = np.random.default_rng(seed).integers(0, 4000, 12).tolist()
        assert torch.equal(push_in_pieces(Wav2Vec2Encoder(model, window), samples, cuts), whole)


@pytest.mark.stream
def test_a_window_over_everything_equals_the_whole_signal(model: nn.Module) -> None:
    """With all the past in the window, a frame is the interpolation of its neighbours."""
    samples = noise(16_000 + 1600)
    encoder = Wav2Vec2Encoder(model, Wav2Vec2Window(step=10, before=100, after=1))
    features = encoder.push(AudioChunk(samples_T=samples, sample_rate=16_000, pts=0))
    hidden = hidden_states(model, torch.from_numpy(samples))
    assert features.num_frames == 30
    for i in (0, 3, 27):
        torch.testing.assert_close(features.values_LCT[..., i], hidden[:, 5 * i // 3])
    want = hidden[:, 1] + (hidden[:, 2] - hidden[:, 1]) * 2 / 3
    torch.testing.assert_close(features.values_LCT[..., 1], want)


@pytest.mark.stream
def test_state_moves_to_another_encoder(model: nn.Module) -> None:
    samples = noise(30_000)
    whole = push_in_pieces(Wav2Vec2Encoder(model), samples, [])
    first, second = Wav2Vec2Encoder(model), Wav2Vec2Encoder(model)
    head = first.push(AudioChunk(samples_T=samples[:17_000], sample_rate=16_000, pts=0))
    second.import_state(first.export_state())
    rest = second.push(AudioChunk(samples_T=samples[17_000:], sample_rate=16_000, pts=17_000))
    joined = [head.values_LCT, rest.values_LCT, second.flush().values_LCT]
    assert torch.equal(torch.cat(joined, dim=-1), whole)


@pytest.mark.unit
def test_aligned_features_follow_the_reference_index_rule(model: nn.Module) -> None:
    """The aligner takes feature round(1.2 j) for frame j at 25 fps, as the clips do."""
    samples = noise(16_000)
    encoder, aligner = Wav2Vec2Encoder(model), Aligner(Fraction(30), Fraction(25))
    pieces = [encoder.push(AudioChunk(samples_T=samples, sample_rate=16_000, pts=0))]
    pieces.append(encoder.flush())
    features = torch.cat([p.values_LCT for p in pieces], dim=-1)
    frames = [aligner.push(p).values_LCT for p in pieces] + [aligner.flush(25).values_LCT]
    got = torch.cat(frames, dim=-1)
    assert torch.equal(got, to_clips(features.transpose(1, 2), 25)[..., :25])


@pytest.mark.unit
@pytest.mark.parametrize("values", [{"step": 0}, {"before": -1}, {"after": -1}])
def test_a_window_without_progress_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="window needs"):
        Wav2Vec2Window(**values)
