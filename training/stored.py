"""Files that training wrote and reads again; a damaged or foreign one gives one line."""

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from training.errors import InputError, reason
from video.errors import WeightsError
from video.weights import compare_shapes, module_shapes

Shape = Sequence[int | None]
Arrays = dict[str, npt.NDArray[np.generic]]


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Return all tensors of a safetensors file.

    Raises:
        InputError: it is missing or damaged.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read ({reason(error)}): make it again with the command that wrote it"
        ) from error


def load_weights(module: nn.Module, path: Path, prefix: str = "") -> None:
    """Copy a file's weights into a module, which keeps its own precision.

    With a prefix, those that begin with it, by the rest of their names.

    Raises:
        InputError: the file is missing or damaged.
        WeightsError: it holds the weights of another network.
    """
    stored = load_tensors(path)
    state = {n.removeprefix(prefix): t for n, t in stored.items() if n.startswith(prefix)}
    differences = compare_shapes(module_shapes(module), {n: t.shape for n, t in state.items()})
    if differences:
        raise WeightsError(
            f"{path} does not fit the network: {differences}; use weights made by this version"
        )
    module.load_state_dict(state)


def read_arrays(path: Path, names: Sequence[str]) -> Arrays:
    """Read the named arrays of an .npz file.

    Raises:
        InputError: the file is damaged, lacks an array, or holds numbers that are not finite.
    """
    try:
        # Opened here, since numpy leaves its own file open when the archive is damaged.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as shard:
            arrays = {name: shard[name] for name in names if name in shard}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, TypeError) as error:
        raise InputError(f"{path} is no shard ({reason(error)}): make it again") from error
    for name in names:
        if name not in arrays:
            raise InputError(f"{path} holds no array {name!r}: make it again")
        if arrays[name].dtype.kind not in "fiu" or not np.isfinite(arrays[name]).all():
            raise InputError(f"{path}: {name} holds what is no finite number: make it again")
    return arrays


def require_shapes(
    found: Mapping[str, Sequence[int]], wanted: Mapping[str, Shape], source: Path
) -> None:
    """Refuse arrays whose names or shapes are not those wanted; None stands for any size above 0.

    Raises:
        InputError: names the file, the array and what it should be.
    """
    for name, shape in wanted.items():
        if name not in found:
            raise InputError(f"{source} holds no array {name!r}: make it again")
        actual = tuple(found[name])
        fits = len(actual) == len(shape) and all(
            size == want if want is not None else size > 0
            for size, want in zip(actual, shape, strict=True)
        )
        if not fits:
            text = "x".join("any" if want is None else str(want) for want in shape)
            raise InputError(f"{source}: {name} has shape {actual}, not {text}: make it again")
