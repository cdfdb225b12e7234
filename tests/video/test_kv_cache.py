"""The ring of past chunks: where rows lie, what counts twice, and what survives a move."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from video.kv_cache import KVCache, RingIndex, Sink
from video.rope import LatentGrid

pytestmark = pytest.mark.unit

GRID = LatentGrid(height=4, width=4)


@settings(max_examples=60, deadline=None)
@given(
    per_chunk=st.integers(1, 5), num_chunks=st.integers(1, 5), first=st.integers(0, 1000),
    repeats=st.lists(st.integers(1, 3), min_size=1, max_size=12),
)  # fmt: skip
def test_ring_holds_exactly_the_last_window(
    per_chunk: int, num_chunks: int, first: int, repeats: list[int]
) -> None:
    window = per_chunk * num_chunks
    index = RingIndex(window_frames=window, frames_per_chunk=per_chunk)
    rows: dict[int, int] = {}
    for b, times in enumerate(repeats):
        start = first + b * per_chunk
        for _ in range(times):
            index = index.place(start)
            for offset in range(per_chunk):
                rows[index.slot(start) + offset] = start + offset
        end = start + per_chunk
        assert sorted(rows.values()) == list(range(max(first, end - window), end))
        assert index.num_filled == len(rows) == max(rows) + 1


def test_ring_from_frame_zero_lies_at_frame_modulo_window() -> None:
    index = RingIndex(window_frames=12, frames_per_chunk=3)
    for start in range(0, 60, 3):
        index = index.place(start)
        assert index.slot(start) == start % 12
    assert index.place(3000).slot(3000) == 0


@pytest.mark.parametrize(("start", "reason"), [(0, "older"), (9, "does not follow")])
def test_ring_refuses_old_chunks_and_holes(start: int, reason: str) -> None:
    index = RingIndex(window_frames=12, frames_per_chunk=3).place(0).place(3)
    with pytest.raises(ValueError, match=reason):
        index.place(start)


def test_ring_refuses_a_window_of_broken_chunks() -> None:
    with pytest.raises(ValueError, match="multiple"):
        RingIndex(window_frames=10, frames_per_chunk=3)


def make_sink(value: float = 0.0, grid: LatentGrid = GRID) -> Sink:
    part = torch.full((1, grid.frame_tokens, 2, 8), value)
    return Sink(keys=(part, part), values=(part, part), grid=grid, motion=False)


def write(cache: KVCache, start: int, sink: Sink) -> None:
    slot = cache.open_chunk(start, sink, 30, 1, torch.float32)
    for layer in range(2):
        rows = torch.full((1, 8, 2, 8), float(start + 100 * layer))
        slot.write(layer, rows, rows + 0.5)


def test_export_and_import_round_trip() -> None:
    source, sink = KVCache(window_frames=6, frames_per_chunk=2), make_sink()
    for start in (0, 2, 4, 6):
        write(source, start, sink)
    copy = KVCache(window_frames=6, frames_per_chunk=2)
    state = source.export_state()
    copy.import_state(state)
    write(source, 8, sink)
    write(copy, 8, sink)
    assert copy.index == source.index
    for layer in range(2):
        assert torch.equal(copy.ring_keys(layer), source.ring_keys(layer))
        assert torch.equal(copy.ring_values(layer), source.ring_values(layer))
    assert float(state["keys"].max()) == 106.0, "an exported state is a copy"


def test_an_empty_cache_exports_nothing_and_takes_it_back() -> None:
    cache = KVCache(window_frames=6, frames_per_chunk=2)
    assert cache.export_state() == {}
    write(cache, 0, make_sink())
    cache.import_state({})
    assert cache.index.latest_start is None


def test_import_refuses_a_ring_of_another_window() -> None:
    source = KVCache(window_frames=6, frames_per_chunk=2)
    for start in (0, 2, 4):
        write(source, start, make_sink())
    with pytest.raises(ValueError, match="does not fit a window of 4"):
        KVCache(window_frames=4, frames_per_chunk=2).import_state(source.export_state())


def test_cache_refuses_another_latent_size() -> None:
    cache = KVCache(window_frames=6, frames_per_chunk=2)
    write(cache, 0, make_sink())
    with pytest.raises(ValueError, match="use a new cache"):
        cache.open_chunk(2, make_sink(grid=LatentGrid(height=8, width=4)), 30, 1, torch.float32)
    assert cache.index.latest_start == 0, "a refused chunk leaves no trace"


def test_reset_forgets_the_ring() -> None:
    cache, sink = KVCache(window_frames=6, frames_per_chunk=2), make_sink()
    write(cache, 0, sink)
    cache.reset()
    write(cache, 100, sink)
    assert cache.index.num_filled == 2
    assert float(cache.ring_keys(0).max()) == 100.0
