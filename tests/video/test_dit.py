"""Streaming equals the whole clip at once, for any configuration; and the promises around it.

Shape legend: B = batch, C = latent channels, T = latent frames, H, W = latent size.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.goldens import GoldenSet
from video.audio_tokens import AudioHistory
from video.dit import SpeechToVideoDiT
from video.dit_block import timestep_sinusoid
from video.dit_config import DiTConfig
from video.kv_cache import KVCache, Sink

pytestmark = [pytest.mark.unit, pytest.mark.stream]

LIMIT = 2e-5
SMALL = DiTConfig(
    dim=48, ffn_dim=80, num_heads=2, num_layers=3, in_dim=6, out_dim=6, cond_dim=5, freq_dim=16,
    audio_dim=7, num_audio_layers=1, num_audio_token=3, audio_inject_layers=(0, 2),
)  # fmt: skip
CONFIGS = {
    "pocket-like": SMALL,
    "carries-audio": replace(SMALL, audio_context="carry"),
    "small-window": replace(SMALL, window_frames=6),
    "one-frame-chunks": replace(SMALL, frames_per_chunk=1, window_frames=4),
    "speaks-to-nobody": replace(SMALL, audio_inject_layers=(), cond_dim=0),
    "normalised": replace(SMALL, audio_norm="expression", audio_scale=0.7),
    "normalised-to-text": replace(SMALL, audio_norm="expression", text_dim=9, text_len=5),
    "everything": replace(
        SMALL, text_dim=9, text_len=5, enable_framepack=True, num_audio_layers=4,
        audio_inject_layers=(1,), num_heads=4, frames_per_chunk=2, window_frames=4,
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


class Clip:
    """Random inputs of the right shapes for one network."""

    def __init__(
        self, config: DiTConfig, *, num_chunks: int = 4, batch: int = 1, start: int = 0
    ) -> None:
        self.config, self.num_chunks, self.batch, self.start = config, num_chunks, batch, start
        frames, size = num_chunks * config.frames_per_chunk, (8, 12)
        self.x = torch.randn(batch, config.in_dim, frames, *size)
        self.t = 1000 * torch.rand(batch, frames)
        self.audio: torch.Tensor | None = torch.randn(
            batch, config.num_audio_layers, config.audio_dim, 4 * frames
        )
        self.reference = torch.randn(batch, config.in_dim, 1, *size)
        self.cond = torch.randn(batch, config.cond_dim, frames, *size) if config.cond_dim else None
        self.motion = None
        if config.enable_framepack:
            self.motion = torch.randn(batch, config.in_dim, 19, *size)
        self.context = torch.randn(batch, 4, config.text_dim) if config.text_dim else None
        if not config.audio_inject_layers:
            self.audio = None

    def sink(self, net: SpeechToVideoDiT) -> Sink:
        return net.prefill_sink(self.reference, self.motion, self.context)

    def chunk(self, b: int) -> dict[str, Any]:
        num = self.config.frames_per_chunk
        frames = slice(b * num, (b + 1) * num)
        audio = None if self.audio is None else self.audio[..., 4 * b * num : 4 * (b + 1) * num]
        return {
            "x_BCTHW": self.x[:, :, frames],
            "t_BF": self.t[:, frames],
            "audio_BYCT": audio,
            "cond_BCTHW": None if self.cond is None else self.cond[:, :, frames],
            "start_frame": self.start + b * num,
        }

    def stream(
        self, net: SpeechToVideoDiT, distance: int | None, cache: KVCache | None = None
    ) -> torch.Tensor:
        cache, sink, history = cache or net.new_cache(), self.sink(net), AudioHistory()
        parts = [
            net.stream(
                **self.chunk(b), cache=cache, sink=sink, sink_distance=distance,
                audio_state=history,
            )
            for b in range(self.num_chunks)
        ]  # fmt: skip
        return torch.cat(parts, dim=2)

    def whole(self, net: SpeechToVideoDiT, distance: int | None = None, **kw: Any) -> torch.Tensor:
        return net.forward_full(
            self.x, self.t, self.audio, self.reference, motion=self.motion, cond=self.cond,
            context=self.context, sink_distance=distance, start_frame=self.start, **kw,
        )  # fmt: skip


def network(config: DiTConfig) -> SpeechToVideoDiT:
    net = SpeechToVideoDiT(config).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net


def assert_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=LIMIT, rtol=LIMIT)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(("start", "distance"), [(0, None), (0, 29), (18, 15), (5000, 15)])
@torch.no_grad()
def test_stream_equals_the_whole_clip(name: str, start: int, distance: int | None) -> None:
    net = network(CONFIGS[name])
    clip = Clip(net.config, num_chunks=5, batch=2, start=start)
    assert_close(clip.stream(net, distance), clip.whole(net, distance))


@torch.no_grad()
def test_rolling_the_reference_changes_the_picture() -> None:
    net = network(SMALL)
    clip = Clip(SMALL, start=600)
    assert (clip.whole(net, 15) - clip.whole(net, None)).abs().max() > 1e-3


@torch.no_grad()
def test_samples_of_a_batch_do_not_touch() -> None:
    net = network(CONFIGS["everything"])
    clip = Clip(net.config, batch=2)
    both = clip.stream(net, 15)
    for name in ("x", "t", "audio", "reference", "cond", "motion", "context"):
        setattr(clip, name, getattr(clip, name)[1:])
    assert_close(clip.stream(net, 15), both[1:])


@torch.no_grad()
def test_delivering_a_chunk_twice_changes_nothing() -> None:
    net = network(CONFIGS["carries-audio"])
    clip, cache, history = Clip(net.config), net.new_cache(), AudioHistory()
    sink, once = clip.sink(net), clip.stream(net, 15)
    for b in range(clip.num_chunks):
        for _ in range(2):
            out = net.stream(
                **clip.chunk(b), cache=cache, sink=sink, sink_distance=15, audio_state=history
            )
            num = net.config.frames_per_chunk
            assert_close(out, once[:, :, b * num : (b + 1) * num])


@torch.no_grad()
def test_an_uncommitted_pass_leaves_the_ring_as_it_was() -> None:
    net = network(SMALL)
    clip, cache = Clip(SMALL, num_chunks=6), net.new_cache()
    sink = clip.sink(net)
    for b in range(6):
        args = clip.chunk(b) | {"cache": cache, "sink": sink, "sink_distance": 15}
        before, index = cache.export_state(), cache.index
        trial = net.stream(**args, commit=False)
        assert cache.index == index
        for key, value in cache.export_state().items():
            assert torch.equal(value, before[key])
        assert torch.equal(net.stream(**args), trial)


@torch.no_grad()
def test_a_stream_goes_on_elsewhere_from_exported_state() -> None:
    net = network(CONFIGS["carries-audio"])
    clip = Clip(net.config, num_chunks=6)
    expected = clip.stream(net, 15)
    cache, history, parts = net.new_cache(), AudioHistory(), []
    for b in range(6):
        moved, heard = net.new_cache(), AudioHistory()
        moved.import_state(cache.export_state())
        heard.import_state(history.export_state())
        cache, history = moved, heard
        parts.append(
            net.stream(
                **clip.chunk(b), cache=cache, sink=clip.sink(net), sink_distance=15,
                audio_state=history,
            )
        )  # fmt: skip
    assert torch.equal(torch.cat(parts, dim=2), expected)


@torch.no_grad()
def test_shared_audio_tokens_equal_features() -> None:
    net = network(SMALL)
    clip = Clip(SMALL)
    sink = clip.sink(net)
    args = clip.chunk(0) | {"sink": sink, "sink_distance": 15}
    direct = net.stream(**args, cache=net.new_cache())
    args["audio_BYCT"] = net.encode_audio(args["audio_BYCT"], start_frame=0)
    assert torch.equal(net.stream(**args, cache=net.new_cache()), direct)


@torch.no_grad()
def test_absent_condition_counts_as_zeros() -> None:
    net = network(SMALL)
    clip = Clip(SMALL)
    assert clip.cond is not None
    clip.cond = torch.zeros_like(clip.cond)
    zeros = clip.stream(net, 15)
    clip.cond = None
    assert_close(clip.stream(net, 15), zeros)


@torch.no_grad()
def test_a_new_sink_and_a_prompt_given_late_take_effect() -> None:
    net = network(CONFIGS["everything"])
    clip, cache = Clip(net.config), net.new_cache()
    assert clip.context is not None
    first, other = clip.sink(net), Clip(net.config).sink(net)
    args = clip.chunk(0) | {"cache": cache, "sink_distance": 15}
    a = net.stream(**args, sink=first)
    assert (net.stream(**args, sink=other) - a).abs().max() > 1e-3
    assert torch.equal(net.stream(**args, sink=first), a)
    given = net.stream(**args, sink=first, context=clip.context)
    assert_close(given, a)
    assert (net.stream(**args, sink=first, context=clip.context + 1) - a).abs().max() > 1e-3


@torch.no_grad()
def test_the_future_is_not_seen() -> None:
    net = network(SMALL)
    clip = Clip(SMALL)
    before = clip.whole(net)
    clip.x[:, :, 6:] += 1
    clip.t[:, 6:] *= 0.5
    assert clip.audio is not None
    clip.audio[..., 24:] += 1
    after = clip.whole(net)
    assert torch.equal(after[:, :, :6], before[:, :, :6])
    assert (after[:, :, 6:] - before[:, :, 6:]).abs().max() > 1e-2


@pytest.mark.parametrize("name", CONFIGS)
def test_training_reaches_every_parameter(name: str) -> None:
    net = network(CONFIGS[name])
    clip = Clip(net.config, batch=2)
    clip.whole(net, 15).square().mean().backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    # A single feature layer has nothing to be mixed with.
    spared = {"casual_audio_encoder.weights"} if net.config.num_audio_layers == 1 else set()
    missing = {
        key for key, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0
    }
    assert missing <= spared


def test_training_goes_on_after_inference_has_filled_the_caches() -> None:
    """Rotations and masks are kept; made under inference mode they could not be trained with."""
    net = network(CONFIGS["pocket-like"])
    clip = Clip(net.config, batch=1, start=7301)
    with torch.inference_mode():
        clip.whole(net, 15)
    clip.whole(net, 15).square().mean().backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    assert all(p.grad is not None for p in net.blocks.parameters())


def test_a_network_starts_silent_with_zero_init() -> None:
    net = SpeechToVideoDiT(replace(SMALL, zero_init=True))
    clip = Clip(SMALL)
    out = clip.whole(net)
    assert not out.any()
    out.sub(1).square().mean().backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    gradient = net.head.head.weight.grad
    assert gradient is not None
    assert float(gradient.abs().max()) > 0


@pytest.mark.parametrize("name", ["pocket-like", "everything"])
@torch.no_grad()
def test_half_precision_stays_close(name: str) -> None:
    net = network(CONFIGS[name])
    clip = Clip(net.config, start=3000)
    exact = clip.stream(net, 15)
    rough = clip.stream(net.lower_precision(torch.bfloat16), 15)
    assert rough.dtype == torch.float32
    assert (rough - exact).abs().mean() < 0.03 * exact.abs().mean()
    assert clip.stream(net.to(torch.bfloat16), 15).isfinite().all()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"x_BCTHW": torch.zeros(1, 5, 3, 8, 12)}, "expected \\[batch, 6"),
        ({"x_BCTHW": torch.zeros(1, 6, 3, 7, 12)}, "patches"),
        ({"x_BCTHW": torch.zeros(1, 6, 4, 8, 12)}, "chunk of 4 frames"),
        ({"t_BF": torch.zeros(1, 2)}, "one time per sample"),
        ({"audio_BYCT": None}, "speech"),
        ({"audio_BYCT": torch.zeros(1, 1, 8, 12)}, "7 channels"),
        ({"cond_BCTHW": torch.zeros(1, 5, 3, 4, 4)}, "do not match"),
        ({"context": torch.zeros(1, 2, 9)}, "text_dim 0"),
    ],
)
@torch.no_grad()
def test_inputs_that_do_not_fit_are_refused(change: dict[str, Any], reason: str) -> None:
    net = network(SMALL)
    clip = Clip(SMALL)
    args = clip.chunk(0) | change
    with pytest.raises(ValueError, match=reason):
        net.stream(**args, cache=net.new_cache(), sink=clip.sink(net), sink_distance=15)


def test_missing_or_superfluous_parts_are_refused() -> None:
    plain, full = network(SMALL), network(CONFIGS["everything"])
    reference = torch.zeros(1, 6, 1, 8, 8)
    with pytest.raises(ValueError, match="motion"):
        plain.prefill_sink(reference, torch.zeros(1, 6, 19, 8, 8))
    with pytest.raises(ValueError, match="motion"):
        full.prefill_sink(reference, None, torch.zeros(1, 2, 9))
    with pytest.raises(ValueError, match="prompt"):
        full.prefill_sink(reference, torch.zeros(1, 6, 19, 8, 8))
    with pytest.raises(ValueError, match="exactly one"):
        plain.prefill_sink(torch.zeros(1, 6, 2, 8, 8))
    carrying = network(CONFIGS["carries-audio"])
    with pytest.raises(ValueError, match="audio_state"):
        carrying.encode_audio(torch.zeros(1, 1, 7, 12), start_frame=0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dim": 51}, "dim 51 must be a multiple of num_heads 2"),
        ({"audio_inject_layers": (3,)}, "audio_inject_layers"),
        ({"window_frames": 10}, "window_frames"),
        ({"audio_context": "forget"}, "audio_context"),
        ({"patch_size": (2, 2, 2)}, "patch_size"),
        ({"patch_size": (1, 0, 2)}, "patch_size"),
        ({"num_layers": 10**9}, "num_layers"),
        ({"eps": float("nan")}, "eps"),
    ],
)
def test_config_names_what_does_not_fit(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        replace(SMALL, **change)


def test_config_refuses_unknown_and_missing_keys() -> None:
    with pytest.raises(ValueError, match="unknown DiT config keys \\['depth'\\]"):
        DiTConfig.from_dict({"dim": 48, "depth": 3})
    with pytest.raises(ValueError, match="lacks \\['ffn_dim'"):
        DiTConfig.from_dict({"dim": 48})
    with pytest.raises(ValueError, match="enable_motioner"):
        DiTConfig.from_published({"dim": 48, "enable_motioner": True})


@pytest.mark.golden
def test_published_checkpoint_fits_name_by_name(goldens_dir: Path) -> None:
    shapes = json.loads((goldens_dir / "liveavatar_checkpoint_shapes.json").read_text())
    config = DiTConfig.from_published(
        {
            "dim": 5120, "ffn_dim": 13824, "num_heads": 40, "num_layers": 40, "model_type": "s2v",
            "audio_inject_layers": [0, 4, 8, 12, 16, 20, 24, 27, 30, 33, 36, 39],
        }
    )  # fmt: skip
    with torch.device("meta"):
        net = SpeechToVideoDiT(config)
    ours = {key: list(value.shape) for key, value in net.state_dict().items()}
    assert ours == shapes["s2v_14b_dit"]
    assert sum(p.numel() for p in net.parameters()) == 16_295_755_609


@pytest.mark.golden
@torch.no_grad()
def test_time_embedding_matches_the_reference(golden_set: GoldenSet) -> None:
    t = golden_set.tensors("misc")
    config = DiTConfig.from_published(golden_set.config("dit"))
    net = SpeechToVideoDiT(config)
    net.load_state_dict(golden_set.weights("dit"))
    sinusoid = timestep_sinusoid(t["time.t"], config.freq_dim)
    time_BGD, times_BG6D = net.embed_times(t["time.t"][None])
    torch.testing.assert_close(sinusoid, t["time.sinusoid"], atol=2e-5, rtol=0)
    torch.testing.assert_close(time_BGD[0], t["time.e"], atol=2e-5, rtol=0)
    torch.testing.assert_close(times_BG6D[0].flatten(1), t["time.e0"], atol=2e-5, rtol=0)
