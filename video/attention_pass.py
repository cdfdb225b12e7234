"""The four ways self-attention runs: over the sink, a stream, a whole causal clip, or jointly.

Shape legend: B = batch, L = query tokens, K = key tokens, N = heads, E = channels of a head,
R = E / 2 rotations, D = model channels.

Each pass is called once per layer with un-rotated q, k, v `[B, L, N, E]` and returns `[B, L, D]`.
"""

import contextlib
from collections.abc import Iterator, Sequence
from functools import lru_cache

import torch

from video.attention import attend
from video.kv_cache import LanePlace, Sink
from video.rope import frames_rotation, motion_rotation, reference_frame, rotate

# Keys of all lanes together that are worth copying to save calls: a few rings of a small network.
STACKED_BYTES = 8 << 20

# How far ahead of its chunk the reference of all lanes stays, or of each.
SinkDistances = int | None | Sequence[int | None]


class JointPass:
    """All tokens look at all tokens; keys before rotation and values are kept for a sink."""

    def __init__(self, rotation_LR: torch.Tensor) -> None:
        """`rotation_LR` holds the position of every token."""
        self._rotation_LR = rotation_LR
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []

    def __call__(
        self, _layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> torch.Tensor:
        """Attend, in layer order."""
        self.keys.append(k)
        self.values.append(v)
        return attend(rotate(q, self._rotation_LR), rotate(k, self._rotation_LR), v)


class StreamPass:
    """Each lane's chunk looks at itself, at its ring of past chunks, and at its sink.

    The batch holds lane after lane, each with the same number of samples.
    """

    def __init__(
        self,
        places: Sequence[LanePlace],
        sink_distance: SinkDistances,
        samples: int,
        dtype: torch.dtype,
    ) -> None:
        """Open each lane's chunk in its cache, of `dtype`, for `samples` samples a lane."""
        self.grid = places[0].sink.grid
        self._places = tuple(places)
        self._samples = samples
        self._slots = [
            place.cache.open_chunk(
                place.start_frame,
                place.sink,
                reference_frame(place.start_frame, distance),
                samples,
                dtype,
            )
            for place, distance in zip(places, _each(sink_distance, len(places)), strict=True)
        ]
        rotations_LR = [_rotation(place) for place in places]
        self._rotation = rotations_LR[0] if len(places) == 1 else torch.stack(rotations_LR)

    @contextlib.contextmanager
    def kept(self, commit: bool) -> Iterator[None]:
        """Run a pass; unless it is to `commit`, the caches are as before at the end."""
        if commit:
            yield
            return
        saved = [slot.snapshot() for slot in self._slots]
        yield
        for place, slot, before in zip(self._places, self._slots, saved, strict=True):
            slot.restore(before)
            place.cache.restore_index(slot.before)

    def __call__(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> torch.Tensor:
        """Write this layer's keys and values, then attend."""
        rotated = torch.split(rotate(k, self._rotation), self._samples)
        written = zip(rotated, torch.split(v, self._samples), strict=True)
        seen = [slot.write(layer, *lane) for slot, lane in zip(self._slots, written, strict=True)]
        return attend_lanes(rotate(q, self._rotation), seen)


def _each(sink_distance: SinkDistances, num_lanes: int) -> Sequence[int | None]:
    """The distance of each lane."""
    if sink_distance is None or isinstance(sink_distance, int):
        return [sink_distance] * num_lanes
    return sink_distance


def _rotation(place: LanePlace) -> torch.Tensor:
    """Rotation of the tokens of a lane's chunk."""
    keys, num_frames = place.sink.keys[0], place.cache.index.frames_per_chunk
    grid, head_dim = place.sink.grid, keys.shape[-1]
    return frames_rotation(place.start_frame, num_frames, grid, head_dim, keys.device)


def attend_lanes(
    q_BLNE: torch.Tensor, seen: Sequence[tuple[torch.Tensor, torch.Tensor]]
) -> torch.Tensor:
    """Each lane's queries over its own keys and values `[B, K, N, E]`; returns `[B, L, D]`.

    Small rings filled alike are copied side by side for one call; where they are large, or filled
    differently (a session's first chunks), a call for each costs less than copies and masks.
    """
    keys = [k for k, _ in seen]
    num_bytes = sum(k.numel() * k.element_size() for k in keys)
    if len(seen) == 1:
        return attend(q_BLNE, *seen[0])
    if len({k.shape for k in keys}) == 1 and num_bytes <= STACKED_BYTES:
        return attend(q_BLNE, torch.cat(keys), torch.cat([v for _, v in seen]))
    samples = q_BLNE.shape[0] // len(seen)
    lanes = zip(torch.split(q_BLNE, samples), seen, strict=True)
    return torch.cat([attend(q, k, v) for q, (k, v) in lanes])


class CausalPass:
    """A whole clip at once, each chunk seeing what it would see in a stream.

    When the reference rolls, every chunk has its own copy of it among the keys and sees only that.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        start_frame: int,
        num_frames: int,
        frames_per_chunk: int,
        window_frames: int,
        reference_frames: tuple[int, ...],
    ) -> None:
        """`reference_frames` is the reference's time position for each chunk."""
        self._sink = sink
        head_dim, device = sink.keys[0].shape[-1], sink.keys[0].device
        grid = sink.grid
        positions = tuple(dict.fromkeys(reference_frames))
        rotations = [frames_rotation(p, 1, grid, head_dim, device) for p in positions]
        if sink.motion:
            rotations.append(motion_rotation(grid, head_dim, device))
        self._sink_rotation_KR = torch.cat(rotations)
        self._num_copies = len(positions)
        self._rotation_LR = frames_rotation(start_frame, num_frames, grid, head_dim, device)
        self._mask_LK = causal_mask(
            num_frames=num_frames,
            frames_per_chunk=frames_per_chunk,
            window_frames=window_frames,
            frame_tokens=grid.frame_tokens,
            copy_of_chunk=tuple(positions.index(p) for p in reference_frames),
            num_motion=grid.motion_tokens if sink.motion else 0,
            device=device,
        )

    def __call__(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> torch.Tensor:
        """Attend to the clip's own keys and the sink's, through the mask."""
        sink_keys = rotate(self._repeated(self._sink.keys[layer]), self._sink_rotation_KR)
        sink_values = self._repeated(self._sink.values[layer])
        keys = torch.cat([rotate(k, self._rotation_LR), sink_keys], dim=1)
        values = torch.cat([v, sink_values], dim=1)
        return attend(rotate(q, self._rotation_LR), keys, values, self._mask_LK)

    def _repeated(self, sink_BKNE: torch.Tensor) -> torch.Tensor:
        if self._num_copies == 1:
            return sink_BKNE
        num = self._sink.grid.frame_tokens
        return torch.cat([sink_BKNE[:, :num]] * self._num_copies + [sink_BKNE[:, num:]], dim=1)


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # cached for training too, whoever asks first
def causal_mask(
    *,
    num_frames: int,
    frames_per_chunk: int,
    window_frames: int,
    frame_tokens: int,
    copy_of_chunk: tuple[int, ...],
    num_motion: int,
    device: torch.device,
) -> torch.Tensor | None:
    """Who may look where in a whole clip: `[L, K]`, keys being clip, reference copies, motion.

    A query sees clip frames up to the end of its chunk and at most `window_frames` back from
    there, the reference copy of its chunk, and all motion tokens. None if everybody sees all.
    """
    frames = torch.arange(num_frames, device=device)
    chunk_end = (frames // frames_per_chunk + 1) * frames_per_chunk
    seen = (frames < chunk_end[:, None]) & (frames >= chunk_end[:, None] - window_frames)
    copy = torch.tensor(copy_of_chunk, device=device).repeat_interleave(frames_per_chunk)
    copies = torch.arange(max(copy_of_chunk) + 1, device=device)
    blocks = torch.cat([seen, copy[:, None] == copies], dim=1)
    blocks = blocks.repeat_interleave(frame_tokens, 0).repeat_interleave(frame_tokens, 1)
    mask = torch.cat([blocks, blocks.new_ones(blocks.shape[0], num_motion)], dim=1)
    return None if bool(mask.all()) else mask
