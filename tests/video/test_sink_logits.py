"""What a stream sees of its sink does not depend on how far it is, once it is past the beginning.

Shape legend: B = batch, L = query tokens, K = sink tokens, N = heads, E = channels of a head.
"""

import pytest
import torch

from video.kv_cache import KVCache, Sink
from video.rope import NATIVE, LatentGrid, RopeScaling, frames_rotation, reference_frame, rotate

pytestmark = pytest.mark.unit

CPU = torch.device("cpu")
FRAMES, HEADS, HEAD_DIM = 3, 2, 24
SCALINGS = [
    NATIVE,
    RopeScaling(kind="positions", stretch=2.0),
    RopeScaling(kind="ntk", stretch=2.0),
]


def sink_of(scaling: RopeScaling) -> Sink:
    grid = LatentGrid(height=4, width=6, scaling=scaling)
    generator = torch.Generator().manual_seed(3)
    keys = torch.randn(1, grid.frame_tokens, HEADS, HEAD_DIM, generator=generator)
    return Sink(keys=(keys,), values=(keys,), grid=grid, motion=False)


def logits(sink: Sink, cache: KVCache, start: int, distance: int | None) -> torch.Tensor:
    """Products of one chunk's queries, the same at every place, with the sink in its cache."""
    generator = torch.Generator().manual_seed(4)
    num = FRAMES * sink.grid.frame_tokens
    q_BLNE = torch.randn(1, num, HEADS, HEAD_DIM, generator=generator)
    slot = cache.open_chunk(start, sink, reference_frame(start, distance), 1, torch.float32)
    k_BKNE = slot.keys_YBKNE[0][:, : sink.num_tokens]
    turned = rotate(q_BLNE, frames_rotation(start, FRAMES, sink.grid, HEAD_DIM, CPU))
    return torch.einsum("blne,bkne->bnlk", turned.double(), k_BKNE.double())


def stream(scaling: RopeScaling, distance: int | None, starts: list[int]) -> list[torch.Tensor]:
    """The logits of chunks at these places, each in a cache of its own."""
    sink = sink_of(scaling)
    caches = [KVCache(window_frames=12, frames_per_chunk=FRAMES) for _ in starts]
    return [logits(sink, c, start, distance) for c, start in zip(caches, starts, strict=True)]


@pytest.mark.parametrize("scaling", SCALINGS, ids=lambda s: s.kind)
@pytest.mark.parametrize("distance", [4, 15, 30])
def test_logits_are_the_same_for_every_chunk_past_the_beginning(
    distance: int, scaling: RopeScaling
) -> None:
    past = -(-(30 - distance) // FRAMES) * FRAMES
    first, *later = stream(scaling, distance, [past, past + 3, past + 300, 3_000_000, 75_000_000])
    for other in later:
        torch.testing.assert_close(other, first, atol=1e-4, rtol=0)


def test_before_that_and_without_rolling_they_move() -> None:
    early, last_early, rolling = stream(NATIVE, 15, [0, 3, 15])
    assert float((early - last_early).abs().max()) > 0.1
    assert float((last_early - rolling).abs().max()) > 0.1
    still, far = stream(NATIVE, None, [15, 3000])
    assert float((still - far).abs().max()) > 0.1


def test_one_cache_rolls_its_sink_as_the_stream_goes_on() -> None:
    sink, cache = sink_of(NATIVE), KVCache(window_frames=12, frames_per_chunk=FRAMES)
    seen = [logits(sink, cache, start, 15) for start in range(0, 120, FRAMES)]
    for start, made in zip(range(0, 120, FRAMES), seen, strict=True):
        fresh = KVCache(window_frames=12, frames_per_chunk=FRAMES)
        assert torch.equal(made, logits(sink, fresh, start, 15))
        if start >= 15:
            torch.testing.assert_close(made, seen[5], atol=1e-5, rtol=0)
