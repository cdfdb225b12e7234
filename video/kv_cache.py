"""What a denoising step remembers: a ring of past keys and values, beside a sink.

Shape legend: Y = transformer layers, B = batch, K = cached tokens, N = heads, E = channels of a
head. A cached row is one token; a latent frame takes `frame_tokens` rows.

One `KVCache` belongs to one (session, denoising step): its history holds latents at that step's
noise level and must never be shared with another step.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from video.rope import (
    NATIVE,
    LatentGrid,
    RopeKind,
    RopeScaling,
    condition_rotation,
    frames_rotation,
    rotate,
)

_ROPE_KINDS: tuple[RopeKind, ...] = ("native", "positions", "ntk")

TextKV = tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]
"""A prompt's keys and its values, for every layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RingIndex:
    """Where chunks lie in a ring of `window_frames` latent frames: pure arithmetic.

    `origin` is the first frame ever placed, `latest_start` the start of the chunk placed last,
    `num_filled` how many frames of the ring hold something. Filled frames always form a prefix.
    """

    window_frames: int
    frames_per_chunk: int
    origin: int | None = None
    latest_start: int | None = None
    num_filled: int = 0

    def __post_init__(self) -> None:
        """Reject a window that is no whole number of chunks."""
        if self.frames_per_chunk < 1 or self.window_frames < 1:
            raise ValueError("window_frames and frames_per_chunk must be at least 1")
        if self.window_frames % self.frames_per_chunk:
            raise ValueError(
                f"window_frames {self.window_frames} is not a multiple of "
                f"frames_per_chunk {self.frames_per_chunk}"
            )

    @property
    def is_full(self) -> bool:
        """Whether every frame of the ring holds something."""
        return self.num_filled == self.window_frames

    def slot(self, start_frame: int) -> int:
        """Ring frame at which a chunk starting at `start_frame` lies."""
        return (start_frame - (self.origin or 0)) % self.window_frames

    def place(self, start_frame: int) -> "RingIndex":
        """The index after a chunk at `start_frame` has been written.

        Placing the latest chunk again changes nothing, so a chunk may be delivered twice. A full
        ring lets the stream jump ahead by whole chunks; one still filling does not.

        Raises:
            ValueError: the chunk is older than the latest one, or would leave a hole.
        """
        if start_frame == self.latest_start:
            return self
        if self.latest_start is None:
            first = replace(self, origin=start_frame, latest_start=start_frame)
            return replace(first, num_filled=self.frames_per_chunk)
        self._check(start_frame)
        filled = max(self.num_filled, self.slot(start_frame) + self.frames_per_chunk)
        return replace(self, latest_start=start_frame, num_filled=filled)

    def _check(self, start_frame: int) -> None:
        if self.latest_start is not None and start_frame < self.latest_start:
            raise ValueError(
                f"chunk at frame {start_frame} is older than the latest one at "
                f"{self.latest_start}: only the latest can be delivered again"
            )
        follows = start_frame - (self.latest_start or 0) == self.frames_per_chunk
        fits = self.slot(start_frame) + self.frames_per_chunk <= self.window_frames
        if not fits or not (self.is_full or follows):
            raise ValueError(
                f"chunk at frame {start_frame} does not follow the one at {self.latest_start} "
                f"in chunks of {self.frames_per_chunk}: reset the cache or send what is missing"
            )


@dataclass(frozen=True, kw_only=True)
class Sink:
    """Keys and values of the reference (and motion history) that every chunk attends to.

    `keys[y]` (un-roped) and `values[y]` are `[B, K, N, E]`, the reference's tokens first; they
    are rotated when read, since the reference rolls along with the stream. `text_keys`,
    `text_values` hold the prompt's keys and values per layer, empty for a model without text.
    """

    keys: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]
    grid: LatentGrid
    motion: bool
    text_keys: tuple[torch.Tensor, ...] = ()
    text_values: tuple[torch.Tensor, ...] = ()

    @property
    def num_tokens(self) -> int:
        """Tokens held per layer."""
        return int(self.keys[0].shape[1])

    @property
    def num_bytes(self) -> int:
        """Bytes of all keys and values."""
        held = (*self.keys, *self.values, *self.text_keys, *self.text_values)
        return sum(tensor.numel() * tensor.element_size() for tensor in held)

    def roped_keys(self, layer: int, position: int) -> torch.Tensor:
        """Keys of one layer with the reference at time `position`."""
        keys = self.keys[layer]
        rotation = condition_rotation(
            position, self.grid, motion=self.motion, head_dim=keys.shape[-1], device=keys.device
        )
        return rotate(keys, rotation)


class KVCache:
    """Ring and sink of one denoising step, for all layers, in one buffer each for K and V.

    The sink's rows come first and the ring follows, so what a chunk attends to is one slice and
    nothing is concatenated. Buffers are made at the first chunk, in its dtype and on its device.
    """

    def __init__(self, *, window_frames: int, frames_per_chunk: int) -> None:
        """A ring of `window_frames` latent frames, a whole number of chunks."""
        self.index = RingIndex(window_frames=window_frames, frames_per_chunk=frames_per_chunk)
        self._keys_YBKNE: torch.Tensor | None = None
        self._values_YBKNE: torch.Tensor | None = None
        self._frame_tokens = 0
        self._scaling = NATIVE
        self._sink_tokens = 0
        self._sink: Sink | None = None
        self._sink_position: int | None = None

    def reset(self) -> None:
        """Forget everything; buffers are kept for reuse."""
        self.index = replace(self.index, origin=None, latest_start=None, num_filled=0)
        self._sink = None
        self._sink_position = None

    def open_chunk(
        self, start_frame: int, sink: Sink, position: int, batch: int, dtype: torch.dtype
    ) -> "ChunkSlot":
        """Make room for the chunk at `start_frame`, with the sink's reference at `position`."""
        before, placed = self.index, self.index.place(start_frame)
        self._make_room(sink, batch, dtype)
        self._write_sink(sink, position)
        self.index = placed
        first = self._sink_tokens + self.index.slot(start_frame) * self._frame_tokens
        end = self._sink_tokens + self.index.num_filled * self._frame_tokens
        rows = slice(first, first + self.index.frames_per_chunk * self._frame_tokens)
        keys, values = self._buffers()
        return ChunkSlot(keys_YBKNE=keys, values_YBKNE=values, rows=rows, end=end, before=before)

    def ring_keys(self, layer: int) -> torch.Tensor:
        """Roped keys of one layer in ring order, `[B, K, N, E]`."""
        keys, _ = self._buffers()
        return keys[layer][:, self._ring_rows()]

    def ring_values(self, layer: int) -> torch.Tensor:
        """Values of one layer in ring order, `[B, K, N, E]`."""
        _, values = self._buffers()
        return values[layer][:, self._ring_rows()]

    def export_state(self) -> dict[str, torch.Tensor]:
        """The ring as tensors (copies); the sink is not in it, since it is given at each call."""
        if self.index.latest_start is None:
            return {}
        keys, values = self._buffers()
        origin, latest = self.index.origin or 0, self.index.latest_start
        numbers = [origin, latest, self.index.num_filled, self._frame_tokens]
        return {
            "keys": keys[:, :, self._ring_rows()].clone(),
            "values": values[:, :, self._ring_rows()].clone(),
            "index": torch.tensor(numbers, dtype=torch.int64),
            **_packed_scaling(self._scaling),
        }

    def import_state(self, state: dict[str, torch.Tensor]) -> None:
        """Take over a ring exported elsewhere.

        Raises:
            ValueError: the state's ring does not fit this one's window.
        """
        self.reset()
        self._keys_YBKNE = self._values_YBKNE = None
        self._sink_tokens = 0
        if not state:
            return
        origin, latest, filled, frame_tokens = (int(v) for v in state["index"])
        if filled > self.index.window_frames or state["keys"].shape[2] != filled * frame_tokens:
            raise ValueError(
                f"ring state of {filled} frames does not fit a window of "
                f"{self.index.window_frames}: use the plan it was exported under"
            )
        self.index = replace(self.index, origin=origin, latest_start=latest, num_filled=filled)
        self._frame_tokens = frame_tokens
        self._scaling = _unpacked_scaling(state)
        self._keys_YBKNE = self._widened(state["keys"], 0, 0)
        self._values_YBKNE = self._widened(state["values"], 0, 0)

    def _ring_rows(self) -> slice:
        end = self._sink_tokens + self.index.num_filled * self._frame_tokens
        return slice(self._sink_tokens, end)

    def _buffers(self) -> tuple[torch.Tensor, torch.Tensor]:
        if self._keys_YBKNE is None or self._values_YBKNE is None:
            raise ValueError("this cache holds no chunk yet")
        return self._keys_YBKNE, self._values_YBKNE

    def _widened(self, old_YBKNE: torch.Tensor, skip: int, sink_tokens: int) -> torch.Tensor:
        """A buffer with room for the sink and the whole window, the old ring's rows in it."""
        num_layers, batch, num_rows, num_heads, head_dim = old_YBKNE.shape
        rows = sink_tokens + self.index.window_frames * self._frame_tokens
        buffer = old_YBKNE.new_zeros(num_layers, batch, rows, num_heads, head_dim)
        kept = min(num_rows - skip, rows - sink_tokens)
        buffer[:, :, sink_tokens : sink_tokens + kept] = old_YBKNE[:, :, skip : skip + kept]
        return buffer

    def _make_room(self, sink: Sink, batch: int, dtype: torch.dtype) -> None:
        _, _, num_heads, head_dim = sink.keys[0].shape
        if self._keys_YBKNE is None or self._values_YBKNE is None:
            self._frame_tokens = sink.grid.frame_tokens
            self._scaling = sink.grid.scaling
            self._sink_tokens = sink.num_tokens
            rows = self._sink_tokens + self.index.window_frames * self._frame_tokens
            shape = (len(sink.keys), batch, rows, num_heads, head_dim)
            self._keys_YBKNE = torch.zeros(shape, dtype=dtype, device=sink.keys[0].device)
            self._values_YBKNE = torch.zeros_like(self._keys_YBKNE)
            return
        if self._frame_tokens != sink.grid.frame_tokens or self._keys_YBKNE.shape[1] != batch:
            raise ValueError(
                f"cache of batch {self._keys_YBKNE.shape[1]} and {self._frame_tokens} tokens per "
                f"frame got batch {batch} and {sink.grid.frame_tokens}: use a new cache"
            )
        if self._scaling != sink.grid.scaling:
            raise ValueError(
                f"cache of keys turned by {self._scaling} got a sink of {sink.grid.scaling}: use a "
                "new cache, or the plan that it was filled under"
            )
        if self._sink_tokens != sink.num_tokens:
            old = self._sink_tokens
            self._keys_YBKNE = self._widened(self._keys_YBKNE, old, sink.num_tokens)
            self._values_YBKNE = self._widened(self._values_YBKNE, old, sink.num_tokens)
            self._sink_tokens = sink.num_tokens

    def _write_sink(self, sink: Sink, position: int) -> None:
        """Bring the sink's rows up to date: all of them for a new sink, else only what rolled."""
        if not sink.num_tokens:  # emptied, to show what it does
            return
        keys, values = self._buffers()
        head_dim, device = keys.shape[-1], keys.device
        if self._sink is not sink:
            rotation = condition_rotation(
                position, sink.grid, motion=sink.motion, head_dim=head_dim, device=device
            )
            keys[:, :, : self._sink_tokens] = rotate(torch.stack(sink.keys), rotation)
            values[:, :, : self._sink_tokens] = torch.stack(sink.values)
        elif self._sink_position != position:
            num = sink.grid.frame_tokens
            reference = torch.stack([layer[:, :num] for layer in sink.keys])
            rotation = frames_rotation(position, 1, sink.grid, head_dim, device)
            keys[:, :, :num] = rotate(reference, rotation)
        self._sink, self._sink_position = sink, position

    def restore_index(self, index: RingIndex) -> None:
        """Take back a placement that shall not count."""
        self.index = index

    @property
    def num_bytes(self) -> int:
        """Bytes of both buffers, the sink's rows included; 0 before the first chunk."""
        buffers = (self._keys_YBKNE, self._values_YBKNE)
        return sum(b.numel() * b.element_size() for b in buffers if b is not None)


def _packed_scaling(scaling: RopeScaling) -> dict[str, torch.Tensor]:
    """How the ring's keys are placed, for an export; nothing where they are as usual."""
    if scaling == NATIVE:
        return {}
    numbers = [_ROPE_KINDS.index(scaling.kind), scaling.stretch]
    return {"scaling": torch.tensor(numbers, dtype=torch.float64)}


def _unpacked_scaling(state: dict[str, torch.Tensor]) -> RopeScaling:
    if "scaling" not in state:
        return NATIVE
    kind, stretch = (float(value) for value in state["scaling"])
    return RopeScaling(kind=_ROPE_KINDS[int(kind)], stretch=stretch)


@dataclass(frozen=True, slots=True, kw_only=True)
class LanePlace:
    """Where one lane of a batched pass stands: its chunk's first frame, its ring and its sink."""

    start_frame: int
    cache: KVCache
    sink: Sink


def require_places(places: Sequence[LanePlace], num_frames: int, grid: LatentGrid) -> None:
    """Refuse chunks of another size than their rings and sinks.

    Raises:
        ValueError: they do not fit.
    """
    for place in places:
        per_chunk = place.cache.index.frames_per_chunk
        if num_frames != per_chunk or not grid.same_size(place.sink.grid):
            raise ValueError(
                f"chunk of {num_frames} frames on {grid} does not fit a cache for "
                f"{per_chunk} frames and a sink on {place.sink.grid}"
            )


def joined_text(sinks: Sequence[Sink]) -> TextKV:
    """Keys and values of the sinks' prompts, sink after sink; empty without text."""
    if len(sinks) == 1 or not sinks[0].text_keys:
        return sinks[0].text_keys, sinks[0].text_values
    keys = zip(*(sink.text_keys for sink in sinks), strict=True)
    values = zip(*(sink.text_values for sink in sinks), strict=True)
    return tuple(map(torch.cat, keys)), tuple(map(torch.cat, values))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkSlot:
    """The rows of one chunk in a cache's buffers, open for one forward pass."""

    keys_YBKNE: torch.Tensor
    values_YBKNE: torch.Tensor
    rows: slice
    end: int
    before: RingIndex

    def write(
        self, layer: int, k_BLNE: torch.Tensor, v_BLNE: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store the chunk's roped keys and values; return all that the chunk attends to."""
        keys, values = self.keys_YBKNE[layer], self.values_YBKNE[layer]
        keys[:, self.rows] = k_BLNE
        values[:, self.rows] = v_BLNE
        return keys[:, : self.end], values[:, : self.end]

    def snapshot(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Copies of what the chunk is about to overwrite."""
        rows = self.rows
        return self.keys_YBKNE[:, :, rows].clone(), self.values_YBKNE[:, :, rows].clone()

    def restore(self, saved: tuple[torch.Tensor, torch.Tensor]) -> None:
        """Put a snapshot back."""
        self.keys_YBKNE[:, :, self.rows], self.values_YBKNE[:, :, self.rows] = saved
