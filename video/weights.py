"""Weights from safetensors files into networks: all names and shapes fit, or one clear error.

A checkpoint is a `.safetensors` file, a `.safetensors.index.json` with its shards, or a folder
holding either. Headers are compared before any data is read, so a 33 GB mistake costs nothing.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from video.errors import WeightsError

# (regular expression, replacement), applied in order to every name in the file.
RenameRules = Sequence[tuple[str, str]]

INDEX_SUFFIX = ".safetensors.index.json"
PICKLE_SUFFIXES = frozenset({".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle"})
# A zip archive or the opcode that begins a binary pickle: the two forms torch.save writes.
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_FLOAT_KINDS = ("F", "BF")
_NUM_NAMED = 3


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where a tensor lies, and what its file's header says of it."""

    file: Path
    name: str
    shape: tuple[int, ...]
    kind: str

    @property
    def is_float(self) -> bool:
        """Whether the values are floating-point (they may then be cast)."""
        return self.kind.startswith(_FLOAT_KINDS)


@dataclass(frozen=True, slots=True)
class ShapeDifferences:
    """How the tensors found differ from those wanted; empty when they fit."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshaped: tuple[str, ...]

    def __bool__(self) -> bool:
        """Say whether anything differs."""
        return bool(self.missing or self.unexpected or self.misshaped)

    def __str__(self) -> str:
        """Return counts and the first few names of each kind, on one line."""
        parts = (
            f"{len(names)} {kind} ({', '.join(names[:_NUM_NAMED])}"
            + (", ...)" if len(names) > _NUM_NAMED else ")")
            for kind, names in (
                ("missing", self.missing),
                ("unexpected", self.unexpected),
                ("mis-shaped", self.misshaped),
            )
            if names
        )
        return "; ".join(parts)


def compare_shapes(
    wanted: Mapping[str, Sequence[int]], found: Mapping[str, Sequence[int]]
) -> ShapeDifferences:
    """Return how the names and shapes found differ from those wanted."""
    return ShapeDifferences(
        missing=tuple(name for name in wanted if name not in found),
        unexpected=tuple(name for name in found if name not in wanted),
        misshaped=tuple(
            f"{name}: file {list(found[name])}, network {list(shape)}"
            for name, shape in wanted.items()
            if name in found and tuple(found[name]) != tuple(shape)
        ),
    )


def module_shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor the module saves and loads."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def read_checkpoint(path: Path | str) -> dict[str, StoredTensor]:
    """Return every tensor of a checkpoint by name, from headers only.

    Raises WeightsError for what is absent, a pickle, damaged, or contradicts its own index.
    """
    path = _resolve(Path(path))
    if path.name.endswith(".json"):
        return _read_index(path)
    return {tensor.name: tensor for tensor in _read_header(path)}


def read_config_metadata(path: Path | str, *, key: str = "config") -> dict[str, Any]:
    """Return the JSON object a safetensors file carries as metadata `key`; {} without one."""
    path = Path(path)
    _refuse_pickle(path)
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(key, "{}")
        config = json.loads(text)
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from error
    if not isinstance(config, dict):
        raise WeightsError(f"{path}: metadata {key!r} is not a JSON object; save the file again")
    return config


def read_tensors(
    stored: Iterable[StoredTensor], device: torch.device | str = "cpu"
) -> Iterator[tuple[StoredTensor, torch.Tensor]]:
    """Yield the values of stored tensors on `device`, file by file.

    On the CPU the values stay mapped from the file, which must not be overwritten in place.
    """
    by_file: dict[Path, list[StoredTensor]] = {}
    for tensor in stored:
        by_file.setdefault(tensor.file, []).append(tensor)
    for path, tensors in by_file.items():
        try:
            with safe_open(path, framework="pt", device=str(device)) as file:
                for tensor in tensors:
                    yield tensor, file.get_tensor(tensor.name)
        except (SafetensorError, OSError) as error:
            raise _damaged(path, error) from error


def load_into(
    module: nn.Module,
    path: Path | str,
    *,
    rename: RenameRules = (),
    ignore: Sequence[str] = (),
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> None:
    """Give the module a checkpoint's tensors, on `device`; works for modules on the meta device.

    `rename` maps file names to module names; `ignore` are regular expressions of (renamed)
    names to leave out; `dtype` casts floating-point tensors (None keeps the file's).
    Raises one WeightsError listing all that is missing, unexpected or mis-shaped; then the
    module is unchanged.
    """
    stored = _renamed(read_checkpoint(path), rename, ignore, Path(path))
    _require_fit(module, stored, Path(path))
    names = {tensor: name for name, tensor in stored.items()}
    state = {
        names[tensor]: values.to(dtype) if dtype is not None and tensor.is_float else values
        for tensor, values in read_tensors(stored.values(), device)
    }
    module.load_state_dict(state, strict=True, assign=True)


def _require_fit(module: nn.Module, stored: Mapping[str, StoredTensor], path: Path) -> None:
    shapes = {name: tensor.shape for name, tensor in stored.items()}
    differences = compare_shapes(module_shapes(module), shapes)
    if differences:
        raise WeightsError(
            f"{path} does not fit {type(module).__name__}: {differences}; use the checkpoint of "
            "this configuration"
        )
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() != stored[name].is_float:
            raise WeightsError(
                f"{path}: {name} holds {stored[name].kind} where {type(module).__name__} has "
                f"{tensor.dtype}; use the checkpoint of this configuration"
            )


def _renamed(
    stored: Mapping[str, StoredTensor], rename: RenameRules, ignore: Sequence[str], path: Path
) -> dict[str, StoredTensor]:
    renamed: dict[str, StoredTensor] = {}
    for name, tensor in stored.items():
        for pattern, replacement in rename:
            name = re.sub(pattern, replacement, name)
        if any(re.search(pattern, name) for pattern in ignore):
            continue
        if name in renamed:
            raise WeightsError(
                f"{path}: {renamed[name].name} and {tensor.name} both become {name}; "
                "correct the rename rules"
            )
        renamed[name] = tensor
    return renamed


def _resolve(path: Path) -> Path:
    """Return the file that describes the checkpoint: itself, or the only one in its folder."""
    if not path.is_dir():
        return path
    for pattern in (f"*{INDEX_SUFFIX}", "*.safetensors"):
        candidates = sorted(path.glob(pattern))
        if len(candidates) > 1:
            names = ", ".join(file.name for file in candidates[:_NUM_NAMED])
            raise WeightsError(f"{path} holds several checkpoints ({names}); name one of them")
        if candidates:
            return candidates[0]
    for file in sorted(path.iterdir()):
        _refuse_pickle(file)
    raise WeightsError(f"{path} holds no .safetensors file; give the folder of a checkpoint")


def _refuse_pickle(path: Path) -> None:
    is_pickle = path.suffix.lower() in PICKLE_SUFFIXES
    try:
        if not is_pickle and path.is_file():
            with path.open("rb") as file:
                is_pickle = file.read(4).startswith(_PICKLE_STARTS)
    except OSError as error:
        raise _damaged(path, error) from error
    if is_pickle:
        raise WeightsError(
            f"{path} is a pickle, which can run any code when opened; download the .safetensors "
            "release or convert it where you trust it with safetensors.torch.save_file"
        )


def _read_header(path: Path) -> list[StoredTensor]:
    _refuse_pickle(path)
    if not path.is_file():
        raise WeightsError(f"{path} does not exist; check the path or download it again")
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            return [
                StoredTensor(path, name, tuple(part.get_shape()), str(part.get_dtype()))
                for name, part in slices.items()
            ]
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from error


def _read_index(path: Path) -> dict[str, StoredTensor]:
    shard_of = _weight_map(path)
    found: dict[str, StoredTensor] = {}
    for shard in sorted(set(shard_of.values())):
        file = path.parent / shard
        if not file.is_file():
            raise WeightsError(f"{path} names {shard}, which is not beside it; download it too")
        found.update({tensor.name: tensor for tensor in _read_header(file)})
    wrong = [
        name
        for name in {**shard_of, **found}
        if name not in found or found[name].file.name != shard_of.get(name)
    ]
    if wrong:
        raise WeightsError(
            f"{path} and its shards disagree about {len(wrong)} tensors "
            f"({', '.join(wrong[:_NUM_NAMED])}); download the checkpoint again"
        )
    return found


def _weight_map(path: Path) -> dict[str, str]:
    """Return {tensor name: shard file name} of an index; shards lie beside the index."""
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path, error) from error
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise WeightsError(f"{path} has no 'weight_map'; download the checkpoint's index again")
    for shard in weight_map.values():
        # A bare file name only: an index must not be able to reach out of its folder.
        if not isinstance(shard, str) or not re.fullmatch(r"[\w\-]+(\.[\w\-]+)*", shard):
            raise WeightsError(f"{path} names the shard {shard!r}, which is not a file name")
    return weight_map


def _damaged(path: Path, error: Exception) -> WeightsError:
    reason = " ".join(str(error).split())
    return WeightsError(f"{path} cannot be read ({reason}); check the path or download it again")
