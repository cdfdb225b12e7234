"""The network reproduces the reference network's tensors, whatever the set's dimensions.

Shape legend: B = batch, C = latent channels, T = latent frames, H, W = latent size, F = latent
frames of a chunk.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

from tests.support.goldens import GoldenSet
from video.dit import SpeechToVideoDiT
from video.dit_config import DiTConfig
from video.kv_cache import KVCache, Sink
from video.noise import euler_step

pytestmark = [pytest.mark.unit, pytest.mark.golden]

LIMIT = 1e-4


class Reference:
    """A golden set with its network loaded, and the streaming run replayed once."""

    def __init__(self, golden_set: GoldenSet) -> None:
        self.t = golden_set.tensors("dit")
        self.config = DiTConfig.from_published(golden_set.config("dit"))
        self.net = SpeechToVideoDiT(self.config)
        self.net.load_state_dict(golden_set.weights("dit"))
        self.net.eval()
        self.frames = self.config.frames_per_chunk
        self.num_steps = len(self.t["in.timesteps"])
        self.num_chunks = self.t["in.noise"].shape[1] // self.frames
        self.chunks_per_clip = self.config.window_frames // self.frames
        self.sink0 = self.sink(self.t["in.ref_latents"])
        self.sink1 = self.sink(self.t["in.ref_latents_r1"])
        self.vel: dict[tuple[int, int], torch.Tensor] = {}
        self.x: dict[int, torch.Tensor] = {}
        self.inputs: dict[tuple[int, int], torch.Tensor] = {}
        self.ring_keys: dict[int, torch.Tensor] = {}
        self.caches = [self.net.new_cache() for _ in range(self.num_steps)]
        self._replay()
        self.far = self.call(
            self.noise(0), self.time(1), 0, int(self.t["far.start_frame"]), self.caches[1],
            self.sink1, int(self.t["far.rel_dist"]),
        )  # fmt: skip

    def sink(self, reference: torch.Tensor, motion: torch.Tensor | None = None) -> Sink:
        motion = self.t["in.motion_latents"] if motion is None else motion
        return self.net.prefill_sink(reference, motion, self.t["in.context"][None])

    def noise(self, chunk: int) -> torch.Tensor:
        return self.t["in.noise"][None, :, chunk * self.frames : (chunk + 1) * self.frames]

    def audio(self, chunk: int) -> torch.Tensor:
        return self.t["in.audio"][..., 4 * self.frames * chunk : 4 * self.frames * (chunk + 1)]

    def time(self, step: int) -> torch.Tensor:
        return self.t["in.timesteps"][step].expand(1, self.frames)

    def call(
        self, x: torch.Tensor, t: torch.Tensor, chunk: int, start: int, cache: KVCache,
        sink: Sink, distance: int,
    ) -> torch.Tensor:  # fmt: skip
        return self.net.stream(
            x, t, self.audio(chunk), start_frame=start, cache=cache, sink=sink,
            sink_distance=distance,
        )  # fmt: skip

    def _replay(self) -> None:
        sigmas = self.t["in.sigmas"].tolist()
        for b in range(self.num_chunks):
            x = self.noise(b)
            sink = self.sink0 if b < self.chunks_per_clip else self.sink1
            for i in range(self.num_steps):
                self.inputs[b, i] = x
                distance = int(self.t["in.rel_dist"][b, i])
                vel = self.call(x, self.time(i), b, b * self.frames, self.caches[i], sink, distance)
                self.vel[b, i] = vel[0]
                x = euler_step(x, vel, sigmas[i], sigmas[i + 1])
            self.x[b] = x[0]
            self.ring_keys[b] = self.caches[0].ring_keys(0).clone()


@cache
def replayed(golden_set: GoldenSet) -> Reference:
    return Reference(golden_set)


@pytest.fixture
def reference(golden_set: GoldenSet) -> Reference:
    return replayed(golden_set)


def assert_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    assert actual.shape == expected.shape
    torch.testing.assert_close(actual, expected, atol=LIMIT, rtol=0)


@pytest.mark.parametrize("which", ["sink0", "sink1"])
def test_sink_keys_and_values_match_in_first_and_last_layer(
    reference: Reference, which: str
) -> None:
    sink = getattr(reference, which)
    for layer in (0, reference.config.num_layers - 1):
        assert_close(sink.keys[layer], reference.t[f"{which}.cond_k.l{layer}"])
        assert_close(sink.values[layer], reference.t[f"{which}.cond_v.l{layer}"])


def test_short_motion_history_is_padded_on_the_old_side(reference: Reference) -> None:
    sink = reference.sink(reference.t["in.ref_latents"], reference.t["sink_short.motion_latents"])
    assert_close(sink.keys[0], reference.t["sink_short.cond_k.l0"])
    assert_close(sink.values[0], reference.t["sink_short.cond_v.l0"])


def test_every_streamed_chunk_and_step_matches(reference: Reference) -> None:
    for (b, i), vel in reference.vel.items():
        assert_close(vel, reference.t[f"out.vel.b{b}.s{i}"])


def test_denoised_latents_match(reference: Reference) -> None:
    for b, x in reference.x.items():
        assert_close(x, reference.t[f"out.x.b{b}"])


def test_reference_is_replaced_by_the_first_frame_made(reference: Reference) -> None:
    assert_close(reference.x[0][None, :, :1], reference.t["in.ref_latents_r1"])


def test_ring_holds_the_reference_rows(reference: Reference) -> None:
    for b in (reference.chunks_per_clip - 1, reference.num_chunks - 1):
        assert_close(reference.ring_keys[b], reference.t[f"out.kcache.after_b{b}.s0.l0"])


def test_far_position_matches(reference: Reference) -> None:
    assert_close(reference.far[0], reference.t["far.vel"])


def test_pose_latents_and_mixed_times_match(reference: Reference) -> None:
    vel = reference.net.stream(
        reference.noise(0), reference.t["pose.t"], reference.audio(0), start_frame=0,
        cache=reference.net.new_cache(), sink=reference.sink0, sink_distance=30,
        cond_BCTHW=reference.t["pose.cond_states"],
    )  # fmt: skip
    assert_close(vel[0], reference.t["pose.vel"])


def test_several_actors_match(reference: Reference) -> None:
    vel = reference.net.stream(
        reference.noise(0), reference.time(0), reference.t["actors.audio"], start_frame=0,
        cache=reference.net.new_cache(), sink=reference.sink0, sink_distance=30,
        actor_mask_AFHW=reference.t["actors.mask"],
    )  # fmt: skip
    assert_close(vel[0], reference.t["actors.vel"])


@pytest.mark.parametrize(
    ("name", "causal", "per_chunk"),
    [
        ("full_causal.vel", True, False),
        ("full_causal.vel_blockaudio", True, True),
        ("noncausal.vel", False, False),
    ],
)
def test_whole_clip_matches(reference: Reference, name: str, causal: bool, per_chunk: bool) -> None:
    x = reference.t["full_causal.x"][None]
    t = reference.t["full_causal.t"] if causal else reference.t["noncausal.t"]
    with torch.no_grad():
        vel = reference.net.forward_full(
            x, t.expand(1, x.shape[2]), reference.t["in.audio"][..., : 4 * x.shape[2]],
            reference.t["in.ref_latents"], motion=reference.t["in.motion_latents"],
            context=reference.t["in.context"][None], causal=causal, audio_per_chunk=per_chunk,
        )  # fmt: skip
    assert_close(vel[0], reference.t[name])


def test_hidden_states_match_after_every_layer(reference: Reference) -> None:
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, Any, torch.Tensor], None]:
        def hook(_module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
            if name == "audio":
                seen[f"trace.block{inputs[0]}_audio"] = (inputs[1] + output).flatten(1, 2)
            else:
                seen[name] = output.flatten(1, 2)

        return hook

    net = reference.net
    hooks = [
        block.register_forward_hook(keep(f"trace.block{i}")) for i, block in enumerate(net.blocks)
    ]
    assert net.audio_injector is not None
    hooks.append(net.audio_injector.register_forward_hook(keep("audio")))
    tokens = net.chunk_audio(reference.audio(0), 0, None)
    net.stream(
        reference.noise(0), reference.time(0), reference.audio(0), start_frame=0,
        cache=net.new_cache(),
        sink=reference.sink0, sink_distance=int(reference.t["in.rel_dist"][0, 0]),
    )  # fmt: skip
    for hook in hooks:
        hook.remove()
    seen["trace.audio_global"] = tokens.global_BFD.unsqueeze(2)
    seen["trace.audio_local"] = tokens.local_BFHD
    expected = {key for key in reference.t if key.startswith("trace.")}
    assert set(seen) == expected
    for key in expected:
        assert_close(seen[key], reference.t[key])
