"""A batch of lanes gives what each lane gives alone, wherever each lane stands.

Shape legend: B = batch, C = latent channels, T = latent frames, H, W = latent size.
"""

from dataclasses import replace

import pytest
import torch

from video import attention_pass
from video.audio_tokens import AudioHistory, Heard, join_heard
from video.dit import SpeechToVideoDiT
from video.dit_config import DiTConfig
from video.kv_cache import KVCache, LanePlace, Sink

pytestmark = [pytest.mark.unit, pytest.mark.stream]

LIMIT = 1e-5
SMALL = DiTConfig(
    dim=48, ffn_dim=80, num_heads=2, num_layers=3, in_dim=6, out_dim=6, cond_dim=5, freq_dim=16,
    audio_dim=7, num_audio_layers=1, num_audio_token=3, audio_inject_layers=(0, 2),
    audio_context="carry",
)  # fmt: skip
CONFIGS = {
    "pocket-like": SMALL,
    "speaks-to-nobody": replace(SMALL, audio_inject_layers=(), cond_dim=0),
    "normalised": replace(SMALL, audio_norm="expression"),
    "normalised-to-text": replace(SMALL, audio_norm="expression", text_dim=9, text_len=5),
    "everything": replace(
        SMALL, text_dim=9, text_len=5, enable_framepack=True, num_audio_layers=4,
        frames_per_chunk=2, window_frames=4, audio_context="reset",
    ),
}  # fmt: skip
SIZE = (8, 12)


def network(config: DiTConfig) -> SpeechToVideoDiT:
    torch.manual_seed(0)
    net = SpeechToVideoDiT(config).eval().requires_grad_(False)
    for parameter in net.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    return net


class Lane:
    """A step of a session that has already seen `num_before` chunks."""

    def __init__(self, net: SpeechToVideoDiT, sink: Sink, t: float, num_before: int) -> None:
        self.net, self.sink, self.t, self.next = net, sink, t, 0
        self.cache, self.history = net.new_cache(), AudioHistory()
        for _ in range(num_before):
            self.alone(self.cache, *self.chunk())

    def chunk(self) -> tuple[torch.Tensor, torch.Tensor, tuple[Heard, ...] | None, LanePlace]:
        """The next chunk: latents, cond, speech and place."""
        config = self.net.config
        frames, start = config.frames_per_chunk, self.next * config.frames_per_chunk
        self.next += 1
        heard = None
        if config.audio_inject_layers:
            audio = torch.randn(1, config.num_audio_layers, config.audio_dim, 4 * frames)
            heard = self.net.encode_audio(audio, start_frame=start, history=self.history)
        x = torch.randn(1, config.in_dim, frames, *SIZE)
        cond = torch.randn(1, config.cond_dim, frames, *SIZE)
        return x, cond, heard, LanePlace(start_frame=start, cache=self.cache, sink=self.sink)

    def alone(
        self,
        cache: KVCache,
        x: torch.Tensor,
        cond: torch.Tensor,
        heard: tuple[Heard, ...] | None,
        place: LanePlace,
    ) -> torch.Tensor:
        return self.net.stream(
            x,
            torch.full((1, x.shape[2]), self.t),
            heard,
            start_frame=place.start_frame,
            cache=cache,
            sink=place.sink,
            sink_distance=15,
            cond_BCTHW=cond if self.net.config.cond_dim else None,
        )


def sink_of(net: SpeechToVideoDiT) -> Sink:
    config = net.config
    motion = torch.randn(1, config.in_dim, 19, *SIZE) if config.enable_framepack else None
    context = torch.randn(1, 4, config.text_dim) if config.text_dim else None
    return net.prefill_sink(torch.randn(1, config.in_dim, 1, *SIZE), motion, context)


@pytest.mark.parametrize("stacked_bytes", [0, attention_pass.STACKED_BYTES])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_batch_of_lanes_equals_each_lane_alone(
    name: str, stacked_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rings that are empty, half full and wrapped; two sinks; all times different."""
    monkeypatch.setattr(attention_pass, "STACKED_BYTES", stacked_bytes)
    net = network(CONFIGS[name])
    shared = sink_of(net)
    ages = (0, 1, 5, 6, 7)
    lanes = [Lane(net, shared if age % 2 else sink_of(net), 900.0 / (age + 1), age) for age in ages]
    for num in (len(lanes), 2, 3):  # the last ones alone are all full, so they are stacked
        batch = lanes[-num:]
        chunks = [lane.chunk() for lane in batch]
        expected = []
        for lane, chunk in zip(batch, chunks, strict=True):
            twin = net.new_cache()
            twin.import_state(lane.cache.export_state())
            expected.append(lane.alone(twin, *chunk))
        heard = [chunk[2] for chunk in chunks if chunk[2] is not None]
        made = net.stream_lanes(
            torch.cat([chunk[0] for chunk in chunks]),
            torch.tensor([[lane.t] for lane in batch]).expand(-1, net.config.frames_per_chunk),
            join_heard(heard) if heard else None,
            [chunk[3] for chunk in chunks],
            sink_distance=15,
            cond_BCTHW=torch.cat([c[1] for c in chunks]) if net.config.cond_dim else None,
        )
        assert (made[0] - made[1]).abs().max() > 0.01
        torch.testing.assert_close(made, torch.cat(expected), atol=LIMIT, rtol=LIMIT)


def test_a_lane_that_stands_in_two_places_is_refused() -> None:
    net = network(CONFIGS["speaks-to-nobody"])
    lane = Lane(net, sink_of(net), 500.0, 0)
    x, _, _, place = lane.chunk()
    both = torch.cat([x, x])
    with pytest.raises(ValueError, match="a cache of its own"):
        net.stream_lanes(both, torch.ones(2, 3), None, [place, place], sink_distance=15)
    with pytest.raises(ValueError, match="2 chunks in 1 places"):
        net.stream_lanes(both, torch.ones(2, 3), None, [place], sink_distance=15)
    other = replace(place, cache=KVCache(window_frames=4, frames_per_chunk=1))
    with pytest.raises(ValueError, match="does not fit a cache"):
        net.stream_lanes(x, torch.ones(1, 3), None, [other], sink_distance=15)
