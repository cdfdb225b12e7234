"""Runners of blocks: in full they change no bit, in part they run what they say and no more."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch

from video.block_cache import (
    BlockRunner,
    ClusteredBlocks,
    SomeBlocks,
    WatchedBlocks,
    WatchedHalves,
    chosen_tokens,
    clustered,
)
from video.dit import SpeechToVideoDiT
from video.dit_config import DiTConfig
from video.kv_cache import KVCache, LanePlace

pytestmark = pytest.mark.unit

CONFIG = DiTConfig(
    dim=24, ffn_dim=32, num_heads=2, num_layers=3, in_dim=4, out_dim=4, cond_dim=4, freq_dim=16,
    audio_dim=6, num_audio_layers=1, num_audio_token=2, audio_inject_layers=(0, 1),
)  # fmt: skip


@dataclass
class Recalled:
    """Predicts what it saw last, and counts what it was asked."""

    seen: dict[tuple[int, str], torch.Tensor] = field(default_factory=dict)
    asked: Counter[tuple[int, str]] = field(default_factory=Counter)

    def observe(self, layer: int, part: str, value: torch.Tensor) -> None:
        self.seen[layer, part] = value

    def predict(self, layer: int, part: str) -> torch.Tensor:
        self.asked[layer, part] += 1
        return self.seen[layer, part]


@pytest.fixture(scope="module")
def network() -> SpeechToVideoDiT:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = SpeechToVideoDiT(CONFIG).eval().requires_grad_(False)
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def velocity(
    network: SpeechToVideoDiT, runner: BlockRunner | None, cache: KVCache | None = None
) -> torch.Tensor:
    """One chunk's first pass."""
    place = LanePlace(
        start_frame=0,
        cache=network.new_cache() if cache is None else cache,
        sink=network.prefill_sink(drawn(1, 1, 4, 1, 4, 6)),
    )
    heard = network.encode_audio(drawn(2, 1, 1, 6, 12), start_frame=0)
    made: torch.Tensor = network.stream_lanes(
        drawn(3, 1, 4, 3, 4, 6), torch.full((1, 3), 700.0), heard, [place],
        sink_distance=15, cond_BCTHW=drawn(4, 1, 4, 3, 4, 6), runner=runner,
    )  # fmt: skip
    return made


def in_halves(memory: Recalled) -> WatchedHalves:
    return WatchedHalves(memory, lambda _: None)


@pytest.mark.parametrize("watching", [WatchedBlocks, in_halves])
def test_watching_changes_no_bit(
    network: SpeechToVideoDiT, watching: Callable[[Recalled], BlockRunner]
) -> None:
    assert torch.equal(velocity(network, watching(Recalled())), velocity(network, None))


def test_blocks_that_are_remembered_exactly_give_the_same(network: SpeechToVideoDiT) -> None:
    memory = Recalled()
    whole = velocity(network, WatchedBlocks(memory))
    torch.testing.assert_close(velocity(network, SomeBlocks(memory, {1})), whole)
    assert memory.asked == {(0, "whole"): 1, (2, "whole"): 1}


def test_blocks_that_are_left_out_write_no_keys(network: SpeechToVideoDiT) -> None:
    memory, cache = Recalled(), network.new_cache()
    velocity(network, WatchedBlocks(memory))
    velocity(network, SomeBlocks(memory, {1}), cache)
    written = [bool(cache.ring_keys(layer).any()) for layer in range(3)]
    assert written == [False, True, False]


def test_one_cluster_for_each_token_gives_the_whole_feed_forward(network: SpeechToVideoDiT) -> None:
    memory = Recalled()
    whole = velocity(network, in_halves(memory))
    for layer in range(3):
        memory.seen[layer, "fed"] = torch.full_like(memory.seen[layer, "fed"], 7.0)  # never used
    each = torch.arange(18)
    made = velocity(network, ClusteredBlocks(memory, each, each.flip(0), weight=0.0))
    torch.testing.assert_close(made, whole, atol=1e-5, rtol=1e-5)


def test_other_tokens_move_towards_the_one_that_is_computed(network: SpeechToVideoDiT) -> None:
    memory = Recalled()
    velocity(network, in_halves(memory))
    labels, chosen = torch.zeros(18, dtype=torch.int64), torch.tensor([5])
    still = velocity(network, ClusteredBlocks(memory, labels, chosen, weight=0.0))
    moved = [velocity(network, ClusteredBlocks(memory, labels, chosen, w)) for w in (0.1, 0.2)]
    first, second = (float((made - still).norm()) for made in moved)
    assert 0.0 < first < second


def test_clusters_are_those_that_were_built_in() -> None:
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    truth = torch.arange(30) % 3
    labels, distance = clustered(centres[truth] + 0.1 * drawn(5, 30, 2), 3)
    assert len({(int(a), int(b)) for a, b in zip(labels, truth, strict=True)}) == 3
    assert float(distance.max()) < 1.0
    chosen = chosen_tokens(labels, distance, 0)
    assert labels[chosen].tolist() == [0, 1, 2]
    assert all(distance[i] == distance[labels == labels[i]].min() for i in chosen)
    assert not set(chosen.tolist()) & set(chosen_tokens(labels, distance, 1).tolist())


def test_tokens_that_are_alike_make_one_cluster() -> None:
    labels, distance = clustered(torch.ones(6, 4), 3)
    assert set(labels.tolist()) == {0}
    assert chosen_tokens(labels, distance, 7).shape == (1,)
