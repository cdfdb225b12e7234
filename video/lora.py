"""Low-rank adapters merged into a network's linear layers: W += alpha / rank * B @ A.

Source: design page "live-avatar-spec", section 1.12 (Live Avatar: rank 128, alpha 64, 448 layers).
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from video.errors import WeightsError
from video.weights import StoredTensor, read_checkpoint, read_tensors

LIVE_AVATAR_ALPHA = 64.0
TARGET_SUFFIXES = ("q", "k", "v", "o", "ffn.0", "ffn.2")
_KEY = re.compile(
    r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight"
)
_NUM_NAMED = 3


@dataclass(frozen=True, slots=True)
class _Adapter:
    """The two stored factors of one layer: A [rank, in] and B [out, rank]."""

    a: StoredTensor | None = None
    b: StoredTensor | None = None


def adapter_targets(module: nn.Module) -> list[str]:
    """Return the names of the linear layers that Live Avatar's adapter changes."""
    suffixes = tuple(f".{suffix}" for suffix in TARGET_SUFFIXES)
    return [
        name
        for name, child in module.named_modules()
        if isinstance(child, nn.Linear) and f".{name}".endswith(suffixes)
    ]


@torch.no_grad()
def merge_lora(
    module: nn.Module,
    path: Path | str,
    *,
    alpha: float = LIVE_AVATAR_ALPHA,
    num_expected: int | None = None,
) -> int:
    """Add an adapter to the module's weights in place and return how many layers changed.

    `num_expected` layers must match (None: all of `adapter_targets`). The sum is made in
    float32 and rounded once to the weight's dtype. Raises WeightsError naming what does not
    fit; then no weight has changed.
    """
    path = Path(path)
    adapters = _read_adapters(path)
    _require_fit(module, adapters, path)
    wanted = len(adapter_targets(module)) if num_expected is None else num_expected
    if len(adapters) != wanted:
        raise WeightsError(
            f"{path} adapts {len(adapters)} layers where {wanted} are expected; use the adapter "
            f"made for this {type(module).__name__}"
        )
    for name, adapter in adapters.items():
        _merge(module.get_parameter(f"{name}.weight"), adapter, alpha)
    return len(adapters)


def _merge(weight: nn.Parameter, adapter: _Adapter, alpha: float) -> None:
    factors = [part for part in (adapter.a, adapter.b) if part is not None]
    a, b = (values.float() for _, values in read_tensors(factors, weight.device))
    weight.copy_(weight.float() + alpha / a.shape[0] * (b @ a))


def _read_adapters(path: Path) -> dict[str, _Adapter]:
    adapters: dict[str, _Adapter] = {}
    foreign = []
    for key, tensor in read_checkpoint(path).items():
        match = _KEY.fullmatch(key)
        if match is None:
            foreign.append(key)
            continue
        name, side = match["module"], match["side"].lower()
        adapter = adapters.get(name, _Adapter())
        if getattr(adapter, side) is not None:
            raise WeightsError(f"{path} holds lora_{match['side']} of {name} twice; save it again")
        adapters[name] = replace(adapter, **{side: tensor})
    if foreign or not adapters:
        raise WeightsError(
            f"{path} holds {len(foreign)} tensors that are no LoRA factors "
            f"({', '.join(foreign[:_NUM_NAMED])}) and {len(adapters)} adapted layers; "
            "give an adapter file"
        )
    return adapters


def _require_fit(module: nn.Module, adapters: dict[str, _Adapter], path: Path) -> None:
    weights = {
        name: child.weight for name, child in module.named_modules() if isinstance(child, nn.Linear)
    }
    problems = [
        f"{name}: {problem}"
        for name, adapter in adapters.items()
        if (problem := _problem(weights.get(name), adapter))
    ]
    if problems:
        raise WeightsError(
            f"{path} does not fit {type(module).__name__}: {len(problems)} layers "
            f"({'; '.join(problems[:_NUM_NAMED])}); use the adapter made for this network"
        )


def _problem(weight: torch.Tensor | None, adapter: _Adapter) -> str:
    """Return why this adapter cannot change this weight, or ""."""
    if weight is None:
        return "no such linear layer"
    if adapter.a is None or adapter.b is None:
        return "lora_A or lora_B is missing"
    if weight.is_meta:
        return "its weight is not loaded yet"
    a, b = adapter.a.shape, adapter.b.shape
    if len(a) != 2 or len(b) != 2 or a[0] != b[1] or (b[0], a[1]) != tuple(weight.shape):
        return f"factors {list(b)} @ {list(a)} for a weight {list(weight.shape)}"
    return ""
