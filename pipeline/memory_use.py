"""How many bytes of tensors something holds."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import torch


def tensor_bytes(held: Any) -> int:
    """Bytes of all tensors in an object: its fields, items and attributes, each storage once.

    A view counts as the whole storage that it keeps alive.
    """
    storages: dict[int, int] = {}
    _collect(held, storages, set())
    return sum(storages.values())


def _collect(held: Any, storages: dict[int, int], seen: set[int]) -> None:
    if id(held) in seen:
        return
    seen.add(id(held))
    if isinstance(held, torch.Tensor):
        storage = held.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return
    for part in _parts(held):
        _collect(part, storages, seen)


def _parts(held: Any) -> Sequence[Any]:
    """What an object consists of."""
    if isinstance(held, str | bytes):
        return ()
    if isinstance(held, Mapping):
        return list(held.values())
    if isinstance(held, list | tuple | set | frozenset):
        return list(held)
    if is_dataclass(held) and not isinstance(held, type):
        return [getattr(held, field.name) for field in fields(held)]
    return list(getattr(held, "__dict__", {}).values())
