"""Held-out clips one by one, as the measuring programs need them.

Shape legend: T = 48 frames, F = 16 pictured frames, S = 64, H, W = 256, 2 = (x, y).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from training.shards import fields_of, read_shard, shard_paths
from video.face_flow import FlowReading, read_flow
from video.face_points import Points
from video.warp import resize

NAMES = (
    "ref_rgb", "landmarks", "flow64", "occl64", "openness", "ref_openness", "blink", "visemes",
    "samples", "group_start", "rgb", "occl128",
)  # fmt: skip
MOVING_PX = 1.0  # clips whose mouth moves less than this say nothing of correlation
SIDE = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutClip:
    """The arrays of one clip under the names of `training.clip`; pixels as stored."""

    arrays: dict[str, npt.NDArray[Any]]

    @property
    def portrait(self) -> torch.Tensor:
        """The portrait in [-1, 1]."""
        return pictures(self.arrays["ref_rgb"][None])

    @property
    def points(self) -> Points:
        """The portrait's points with pixel centres at whole numbers."""
        points: Points = self.arrays["landmarks"].astype(np.float64) - 0.5
        return points

    @property
    def openness(self) -> npt.NDArray[np.float64]:
        """The true gap between the lips, px."""
        return self.arrays["openness"].astype(np.float64)

    @property
    def moves(self) -> bool:
        """Whether the mouth moves enough to speak of correlation."""
        return bool(self.openness.std() > MOVING_PX)

    @property
    def pictured(self) -> npt.NDArray[np.int64]:
        """Indices of the frames that have pictures."""
        index: npt.NDArray[np.int64] = self.arrays["group_start"][:, None] + np.arange(4)
        return index.reshape(-1)

    def field(self) -> torch.Tensor:
        """The exact displacement fields, four frames to each latent."""
        flow, hidden = self._exact()
        return fields_of(flow[None], hidden[None])

    def exact_reading(self) -> FlowReading:
        """Mouth and lids read from exact displacement, as they are read from generated one."""
        flow, hidden = self._exact()
        return read_flow(resize(flow, SIDE, SIDE), resize(hidden[:, None], SIDE, SIDE), self.points)

    def _exact(self) -> tuple[torch.Tensor, torch.Tensor]:
        flow = torch.from_numpy(self.arrays["flow64"].astype(np.float32))
        hidden = torch.from_numpy(self.arrays["occl64"].astype(np.float32) / 255.0)
        return flow, hidden


def pictures(pixels_NHW3: npt.NDArray[np.uint8]) -> torch.Tensor:
    """Return pixels as pictures [N, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(pixels_NHW3).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def held_out_clips(folder: Path, limit: int) -> Iterator[HeldOutClip]:
    """Yield at most `limit` clips of a folder, in order.

    Raises:
        ValueError: the folder holds no shards.
    """
    left = limit
    for path in shard_paths(folder):
        shard = read_shard(path, NAMES)
        for clip in range(min(left, len(shard["ref_rgb"]))):
            yield HeldOutClip(arrays={name: values[clip] for name, values in shard.items()})
        left -= len(shard["ref_rgb"])
        if left <= 0:
            return
