"""Read shards of rendered clips, written by `training.data`.

A shard is an uncompressed npz whose arrays carry a leading clip axis; see `training/data.py` for
the record. Only the arrays asked for are read.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

Arrays = dict[str, npt.NDArray[np.generic]]


def shard_paths(folder: Path) -> list[Path]:
    """Return the shards of a folder in order; an empty folder raises ValueError with the remedy."""
    paths = sorted(folder.glob("clips_*.npz"))
    if not paths:
        raise ValueError(f"{folder}: no clips_*.npz; make some with python -m training.data make")
    return paths


def read_shard(path: Path, names: Sequence[str]) -> Arrays:
    """Read the named arrays of one shard."""
    with np.load(path, allow_pickle=False) as shard:
        return {name: shard[name] for name in names}


def iterate_shards(
    paths: Sequence[Path], names: Sequence[str], rng: np.random.Generator
) -> Iterator[Arrays]:
    """Yield shards for ever in a random order that covers all before any repeats."""
    while True:
        for index in rng.permutation(len(paths)):
            yield read_shard(paths[index], names)


def motion_fields(shard: Arrays) -> torch.Tensor:
    """Return the fields [clips, T, 4, 3, 64, 64] of a shard's flow64 and occl64, as float32."""
    flow = torch.from_numpy(shard["flow64"].astype(np.float32))
    hidden = torch.from_numpy(shard["occl64"].astype(np.float32) / 255.0)
    return fields_of(flow, hidden)


def fields_of(flow_NT2SS: torch.Tensor, hidden_NTSS: torch.Tensor) -> torch.Tensor:
    """Join flow and hidden share of T frames into fields [N, T/4, 4, 3, S, S]."""
    joined = torch.cat((flow_NT2SS, hidden_NTSS[:, :, None]), dim=2)
    clips, frames = joined.shape[:2]
    return joined.reshape(clips, frames // 4, 4, *joined.shape[2:])


def mirror_fields(field: torch.Tensor) -> torch.Tensor:
    """Return the field of the mirrored picture: columns reversed, x displacement negated."""
    mirrored = field.flip(-1).clone()
    mirrored[..., 0, :, :] *= -1.0
    return mirrored
