"""Low-rank adapters at work in a network: W + scale * B @ A, merged into weights or beside them.

Merged, a layer costs what it did; beside, two thin products more, but many adapters share one copy
of the weights. Both give the same output but for rounding. One adapter works at a time.

Source: design page "live-avatar-spec", section 1.12 (Live Avatar: rank 128, alpha 64, 448 layers).
"""

import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import nn

from video.errors import WeightsError
from video.lora_file import Factors, LoraFile, read_lora, require_fit

NetworkT = TypeVar("NetworkT", bound=nn.Module)

LIVE_AVATAR_ALPHA = 64.0
TARGET_SUFFIXES = ("q", "k", "v", "o", "ffn.0", "ffn.2")


def adapter_targets(module: nn.Module) -> list[str]:
    """Return the names of the linear layers that Live Avatar's adapter changes."""
    suffixes = tuple(f".{suffix}" for suffix in TARGET_SUFFIXES)
    return [
        name
        for name, child in module.named_modules()
        if isinstance(child, nn.Linear) and f".{name}".endswith(suffixes)
    ]


def merge_lora(
    module: nn.Module,
    path: Path | str,
    *,
    alpha: float | None = None,
    num_expected: int | None = None,
) -> int:
    """Add an adapter to the module's weights in place and return how many layers changed.

    `alpha` None: as the file says, or Live Avatar's, whose file says nothing. `num_expected` layers
    must match (None: all of `adapter_targets`). Raises WeightsError naming what does not fit; then
    no weight has changed.
    """
    lora = read_lora(path, alpha=alpha, silent_alpha=LIVE_AVATAR_ALPHA)
    require_fit(module, lora)
    wanted = len(adapter_targets(module)) if num_expected is None else num_expected
    if len(lora.layers) != wanted:
        raise WeightsError(
            f"{path} adapts {len(lora.layers)} layers where {wanted} are expected; use the adapter "
            f"made for this {type(module).__name__}"
        )
    merge_into(module, lora)
    return len(lora.layers)


@torch.no_grad()
def merge_into(module: nn.Module, lora: LoraFile) -> None:
    """Add an adapter to the module's weights in place, which are then the adapted network's.

    Sums are made in float32 and rounded once to the weight's dtype.

    Raises:
        WeightsError: it does not fit, or holds what is no number; then no weight has changed.
    """
    require_fit(module, lora)
    sums = {}
    for name in lora.layers:
        weight = module.get_parameter(f"{name}.weight")
        a, b = lora.factors(name, weight.device)
        sums[name] = (weight.float() + b @ a).to(weight.dtype)
    for name, summed in sums.items():
        module.get_parameter(f"{name}.weight").copy_(summed)


@torch.no_grad()
def merged_copy(module: NetworkT, lora: LoraFile) -> NetworkT:
    """A copy of the module with the adapter merged; the module stays as it is.

    Only adapted weights are copied, the others are the module's own.

    Raises:
        WeightsError: it does not fit, or holds what is no number.
    """
    require_fit(module, lora)
    adapted = {id(module.get_parameter(f"{name}.weight")) for name in lora.layers}
    shared = {
        id(tensor): tensor
        for tensor in (*module.parameters(), *module.buffers())
        if id(tensor) not in adapted
    }
    made = copy.deepcopy(module, shared)
    merge_into(made, lora)
    return made


_working = threading.local()


class LoraSwitch:
    """Adapters beside the weights of one network, none or one of them at work in a thread.

    Outside `active` the network is what it would be without: nothing of it is replaced.
    """

    def __init__(self, module: nn.Module) -> None:
        """Take a network whose weights are loaded; it stays where it is."""
        self._module = module
        self._factors: dict[str, dict[str, Factors]] = {}

    def add(self, name: str, lora: LoraFile) -> None:
        """Keep an adapter's factors, in the dtype and on the device of the weights they change.

        Raises:
            WeightsError: it does not fit, or holds what is no number.
        """
        require_fit(self._module, lora)
        kept = {}
        for layer in lora.layers:
            weight = self._module.get_parameter(f"{layer}.weight")
            a, b = lora.factors(layer, weight.device)
            kept[layer] = (a.to(weight.dtype), b.to(weight.dtype))
        self._factors[name] = kept

    @contextmanager
    def active(self, name: str | None) -> Iterator[None]:
        """Have the adapter of that name at work in this thread, None the bare network.

        Raises:
            KeyError: there is none of that name.
            ValueError: another is at work in this network: they are never summed.
        """
        if name is None:
            yield
            return
        factors = self._factors[name]
        names: dict[int, str] = _working.__dict__.setdefault("names", {})
        if id(self._module) in names:
            raise ValueError(
                f"adapter {name!r} while {names[id(self._module)]!r} is at work: one at a time"
            )
        names[id(self._module)] = name
        with ExitStack() as stack:
            stack.callback(names.pop, id(self._module))
            for layer, pair in factors.items():
                child = self._module.get_submodule(layer)
                stack.callback(child.register_forward_hook(_added(pair)).remove)
            yield


def _added(factors: Factors) -> Callable[[nn.Module, tuple[Any, ...], torch.Tensor], Any]:
    """A hook that adds the product of two factors to a layer's output, in this thread only."""
    a, b = factors
    thread = threading.get_ident()

    def add(_module: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> Any:
        if threading.get_ident() != thread:
            return None
        return output + F.linear(F.linear(inputs[0], a), b)

    return add
