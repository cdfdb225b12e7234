"""Three-dimensional rotary positions, computed on the fly for any absolute frame.

Shape legend: B = batch, L = tokens, N = heads, E = channels of a head, R = E / 2 rotations,
F = latent frames, S = positions inside one frame.

Angles are formed in float64 and only the finished rotation is rounded to complex64, so a
position has no upper limit and may be negative (the motion history lies before frame 0).
Source: Su et al., "RoFormer", 2021; axis split and condition segments as in Wan2.2-S2V.

A network that sees several resolutions may place rows and columns of the others where they lie on
the grid it knows (`RopeScaling`); time is the same on all.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
import torch

ROPE_THETA = 10_000.0
REFERENCE_FRAME = 30
"""Time position of the reference while the stream has not yet come near it."""

_MOTION_2X_FRAME = -3
_MOTION_4X_FRAMES = (-19, -14, -9, -4)


RopeKind = Literal["native", "positions", "ntk"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeScaling:
    """How rows and columns of a grid are placed by a network that knows another grid.

    `stretch` is how many tokens of the known grid one token of this grid is wide. "native" counts
    this grid's own tokens; "positions" puts each where its middle lies on the known grid (position
    interpolation); "ntk" counts its own and changes the base of the angles so that the slowest
    turn as on the known grid and the fastest as always. Source: design page "algorithms", section
    3.1 (HiStream); Chen et al., "Extending context window by position interpolation", 2023.
    """

    kind: RopeKind = "native"
    stretch: float = 1.0

    @classmethod
    def of(cls, kind: RopeKind, resolution: float, known_resolution: float) -> "RopeScaling":
        """The scaling of a grid at one resolution for a network that knows another."""
        stretch = known_resolution / resolution
        if kind == "native" or stretch == 1.0:
            return cls()
        return cls(kind=kind, stretch=stretch)

    def places(self, indices: np.ndarray) -> np.ndarray:
        """Positions of rows or columns."""
        if self.kind != "positions":
            return indices
        return indices * self.stretch + (self.stretch - 1.0) / 2.0

    def base(self, num_rotations: int) -> float:
        """Base of the angles of an axis with so many rotations."""
        if self.kind != "ntk" or num_rotations < 2:
            return ROPE_THETA
        dims = 2 * num_rotations
        return float(ROPE_THETA * self.stretch ** (-dims / (dims - 2)))


NATIVE = RopeScaling()


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentGrid:
    """Height and width of a latent frame, before and after cutting it into patches.

    `scaling` says where its rows and columns lie in rotary space.
    """

    height: int
    width: int
    patch_height: int = 2
    patch_width: int = 2
    scaling: RopeScaling = NATIVE

    def same_size(self, other: "LatentGrid") -> bool:
        """Whether both have the same tokens, wherever these lie."""
        return self == replace(other, scaling=self.scaling)

    @property
    def rows(self) -> int:
        """Token rows of one frame."""
        return self.height // self.patch_height

    @property
    def cols(self) -> int:
        """Token columns of one frame."""
        return self.width // self.patch_width

    @property
    def frame_tokens(self) -> int:
        """Tokens of one latent frame."""
        return self.rows * self.cols

    @property
    def motion_tokens(self) -> int:
        """Tokens of a packed motion history: one frame fine, two coarser, sixteen coarsest."""
        coarse = (self.height // 4) * (self.width // 4)
        coarsest = len(_MOTION_4X_FRAMES) * (self.height // 8) * (self.width // 8)
        return self.frame_tokens + coarse + coarsest


def axis_rotations(head_dim: int) -> tuple[int, int, int]:
    """How the rotations of a head are split over time, row and column."""
    total = head_dim // 2
    return total - 2 * (total // 3), total // 3, total // 3


def reference_frame(start_frame: int, sink_distance: int | None) -> int:
    """Time position of the reference for a chunk that starts at `start_frame`.

    The reference stays at frame 30 until the chunk comes within `sink_distance` of it, then
    keeps exactly that distance ahead. `None` never rolls. Source: Live Avatar, rolling RoPE.
    """
    if sink_distance is None:
        return REFERENCE_FRAME
    return REFERENCE_FRAME + max(0, start_frame - (REFERENCE_FRAME - sink_distance))


def _axis_angles(positions: np.ndarray, num_rotations: int, base: float = ROPE_THETA) -> np.ndarray:
    exponents = np.arange(num_rotations, dtype=np.float64) / max(num_rotations, 1)
    return np.multiply.outer(positions.astype(np.float64), base**-exponents)


def _as_rotation(angles: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.exp(1j * angles)).to(torch.complex64)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _plane_rotation(
    rows: tuple[int, ...],
    cols: tuple[int, ...],
    scaling: RopeScaling,
    head_dim: int,
    device: torch.device,
) -> torch.Tensor:
    """Rotation `[S, R_row + R_col]` of the positions of one frame, row by row."""
    _, num_row, num_col = axis_rotations(head_dim)
    row_places, col_places = scaling.places(np.array(rows)), scaling.places(np.array(cols))
    row_angles = _axis_angles(row_places, num_row, scaling.base(num_row))
    col_angles = _axis_angles(col_places, num_col, scaling.base(num_col))
    row_angles = np.repeat(row_angles, len(cols), axis=0)
    col_angles = np.tile(col_angles, (len(rows), 1))
    return _as_rotation(np.concatenate([row_angles, col_angles], axis=1)).to(device)


def segment_rotation(
    frames: tuple[int, ...],
    rows: tuple[int, ...],
    cols: tuple[int, ...],
    *,
    head_dim: int,
    device: torch.device,
    scaling: RopeScaling = NATIVE,
) -> torch.Tensor:
    """Rotation `[F * S, R]`, complex64, of a box of positions in (frame, row, col) order."""
    plane_SR = _plane_rotation(rows, cols, scaling, head_dim, device)
    num_time, _, _ = axis_rotations(head_dim)
    time_FR = _as_rotation(_axis_angles(np.array(frames), num_time)).to(device)
    num_frames, num_places = len(frames), plane_SR.shape[0]
    time_FSR = time_FR[:, None].expand(num_frames, num_places, num_time)
    plane_FSR = plane_SR[None].expand(num_frames, num_places, plane_SR.shape[1])
    return torch.cat([time_FSR, plane_FSR], dim=-1).flatten(0, 1)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def frames_rotation(
    start_frame: int, num_frames: int, grid: LatentGrid, head_dim: int, device: torch.device
) -> torch.Tensor:
    """Rotation `[F * S, R]` of whole latent frames at absolute places `start_frame ...`."""
    return segment_rotation(
        tuple(range(start_frame, start_frame + num_frames)),
        tuple(range(grid.rows)),
        tuple(range(grid.cols)),
        head_dim=head_dim,
        device=device,
        scaling=grid.scaling,
    )


def _coarse(extent: int, count: int) -> tuple[int, ...]:
    """`count` places spread over `0 .. extent - 1` with both ends, truncated to integers."""
    return tuple(int(place) for place in np.linspace(0, extent - 1, count))


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def motion_rotation(grid: LatentGrid, head_dim: int, device: torch.device) -> torch.Tensor:
    """Rotation of the packed motion tokens, in the order fine, coarse, coarsest.

    They lie before frame 0 and never move: -1; -3; -19, -14, -9, -4.
    """
    segments = [frames_rotation(-1, 1, grid, head_dim, device)]
    for frames, factor in (((_MOTION_2X_FRAME,), 4), (_MOTION_4X_FRAMES, 8)):
        rows = _coarse(grid.rows, grid.height // factor)
        cols = _coarse(grid.cols, grid.width // factor)
        coarse = segment_rotation(
            frames, rows, cols, head_dim=head_dim, device=device, scaling=grid.scaling
        )
        segments.append(coarse)
    return torch.cat(segments)


def condition_rotation(
    position: int, grid: LatentGrid, *, motion: bool, head_dim: int, device: torch.device
) -> torch.Tensor:
    """Rotation of the sink's tokens: the reference at time `position`, then any motion tokens."""
    reference = frames_rotation(position, 1, grid, head_dim, device)
    if not motion:
        return reference
    return torch.cat([reference, motion_rotation(grid, head_dim, device)])


def rotate(x_BLNE: torch.Tensor, rotation_LR: torch.Tensor) -> torch.Tensor:
    """Turn each adjacent channel pair of each token by its angle; keeps the dtype of `x_BLNE`.

    Leading dimensions before L are free; arithmetic is float32 (float64 for float64 input).
    """
    wide = x_BLNE if x_BLNE.dtype in (torch.float32, torch.float64) else x_BLNE.float()
    pairs = torch.view_as_complex(torch.unflatten(wide, -1, (-1, 2)))
    turned = torch.view_as_real(pairs * rotation_LR.unsqueeze(-2)).flatten(-2)
    return turned.to(x_BLNE.dtype)
