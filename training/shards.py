"""Read shards of rendered clips, written by `training.data`.

A shard is an uncompressed npz whose arrays carry a leading clip axis; see `training/data.py` for
the record. Only the arrays asked for are read.
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from training.errors import InputError
from training.stored import Arrays, Shape, read_arrays, require_shapes

# What every clip of a shard holds, without the leading clip axis (see training/clip.py).
SHAPES: dict[str, Shape] = {
    "ref_rgb": (256, 256, 3),
    "ref_depth": (64, 64),
    "ref_headness": (64, 64),
    "landmarks": (68, 2),
    "pivot_px": (2,),
    "ref_expression": (None,),
    "ref_openness": (),
    "flow64": (48, 2, 64, 64),
    "occl64": (48, 64, 64),
    "group_start": (4,),
    "rgb": (16, 256, 256, 3),
    "flow128": (16, 2, 128, 128),
    "occl128": (16, 128, 128),
    "expression": (48, None),
    "visemes": (48, 6),
    "openness": (48,),
    "blink": (48,),
    "gaze": (48, 2),
    "pose": (48, 6),
    "samples": (41920,),
}


def shard_paths(folder: Path) -> list[Path]:
    """Return the shards of a folder and of its subfolders, those of different folders in turn.

    Raises:
        InputError: there are none.
    """
    paths = sorted(folder.rglob("clips_*.npz"), key=lambda path: (path.name, path))
    if not paths:
        raise InputError(f"{folder} holds no clips_*.npz: make some with viva data make")
    return paths


def read_shard(path: Path, names: Sequence[str]) -> Arrays:
    """Read the named arrays of one shard.

    Raises:
        InputError: the file is damaged, lacks an array, or holds one of another shape or values
            that are not finite.
    """
    arrays = read_arrays(path, names)
    shapes = {name: array.shape for name, array in arrays.items()}
    require_shapes(shapes, {name: (None, *SHAPES[name]) for name in names}, path)
    clips = {shape[0] for shape in shapes.values()}
    if len(clips) > 1:
        raise InputError(f"{path} holds different numbers of clips {sorted(clips)}: make it again")
    return arrays


def iterate_shards(
    paths: Sequence[Path], names: Sequence[str], seed: int, start: int = 0
) -> Iterator[Arrays]:
    """Yield shards for ever from the `start`-th on, in random orders that each cover all of them.

    The orders follow from the seed alone, wherever one starts.
    """
    for index in itertools.count(start):
        turn, place = divmod(index, len(paths))
        order = np.random.default_rng((seed, turn)).permutation(len(paths))
        yield read_shard(paths[order[place]], names)


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
