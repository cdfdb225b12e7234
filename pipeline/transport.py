"""Which kind of link each edge of a chain gets: by the chain's transport and the two devices."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal, get_args

from pipeline.errors import ChainError
from pipeline.recipe import Recipe

Transport = Literal["unix", "tcp", "queue", "gloo", "nccl", "auto"]
_DRIVER = "cpu"


def node_addresses(transport: str, folder: Path, recipes: Sequence[Recipe]) -> list[str]:
    """Where each node listens; `*` stands for the number of its generation.

    Raises:
        ChainError: there is no such transport, or it wants GPUs where there are none.
    """
    devices = [_DRIVER, *(str(getattr(recipe, "device", "cpu")) for recipe in recipes)]
    joined = list(pairwise(devices))
    if transport == "nccl" and not any(map(_on_gpus, joined)):
        raise ChainError("transport nccl joins stages on GPUs, and here are none: use gloo or unix")
    return [
        edge_address(transport, folder, f"n{index}-*", pair) for index, pair in enumerate(joined)
    ]


def edge_address(
    transport: str, folder: Path, name: str, devices: tuple[str, str] = (_DRIVER, _DRIVER)
) -> str:
    """Where the receiving side of an edge between two devices listens.

    `nccl` and `auto` have NCCL join what lies on GPUs, and sockets all else.

    Raises:
        ChainError: there is no such transport.
    """
    if transport not in get_args(Transport):
        known = ", ".join(get_args(Transport))
        raise ChainError(f"there is no transport {transport!r}: choose one of {known}")
    if transport == "tcp":
        return "tcp:127.0.0.1:0"
    if transport == "queue":
        return f"queue:{folder.name}/{name}"
    if transport == "gloo":
        return f"gloo+unix:{folder / name}"
    by_nccl = transport in ("nccl", "auto") and _on_gpus(devices)
    return f"{'nccl+' if by_nccl else ''}unix:{folder / name}"


def _on_gpus(devices: tuple[str, str]) -> bool:
    return all(device.startswith("cuda") for device in devices)
