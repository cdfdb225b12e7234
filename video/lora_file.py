"""Low-rank adapters as files: PEFT's names in safetensors, with rank and strength beside them.

A layer's factors are `[base_model.model.]LAYER.lora_A[.default].weight` `[rank, in]` and `lora_B`
`[out, rank]`. Rank and alpha are read from the file's own metadata (`config`, or diffusers'
`lora_adapter_metadata`), or from `adapter_config.json` beside it, as PEFT writes it.

Source: design page "live-avatar-spec", section 1.12; PEFT's LoraConfig.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from video.errors import WeightsError
from video.weights import StoredTensor, read_checkpoint, read_config_metadata, read_tensors

Factors = tuple[torch.Tensor, torch.Tensor]
"""A `[rank, in]` and B `[out, rank]` of one layer."""

CONFIG_NAME = "adapter_config.json"
_MAX_CONFIG_BYTES = 1 << 20
_KEY = re.compile(
    r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight"
)
# What PEFT can do and this does not: an adapter that needs it would be applied wrongly.
_UNKNOWN_VARIANTS = ("use_dora", "use_qalora", "alpha_pattern", "lora_bias", "modules_to_save")
_NUM_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraStrength:
    """What an adapter's config says; None and empty where it does not."""

    rank: int | None = None
    alpha: float | None = None
    by_root_of_rank: bool = False

    def scale(self, rank: int) -> float:
        """What the product of a layer's factors is multiplied by."""
        return (self.alpha or 0.0) / (math.sqrt(rank) if self.by_root_of_rank else rank)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraLayer:
    """The stored factors of one layer, A `[rank, in]` and B `[out, rank]`."""

    a: StoredTensor
    b: StoredTensor


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraFile:
    """An adapter by its headers: layers by the names of the network's, and its strength."""

    path: Path
    layers: Mapping[str, LoraLayer] = field(hash=False)
    strength: LoraStrength

    def factors(self, name: str, device: torch.device | str = "cpu") -> Factors:
        """A layer's factors, float32, B multiplied by the adapter's scale.

        Raises:
            WeightsError: a value is not finite.
        """
        layer = self.layers[name]
        read = {t.name: values.float() for t, values in read_tensors((layer.a, layer.b), device)}
        for key, values in read.items():
            if not torch.isfinite(values).all():
                raise WeightsError(f"{self.path}: {key} holds values that are no numbers")
        a, b = read[layer.a.name], read[layer.b.name]
        return a, self.strength.scale(a.shape[0]) * b


def read_lora(
    path: Path | str, *, alpha: float | None = None, silent_alpha: float | None = None
) -> LoraFile:
    """The adapter in a file, or in the folder that holds it alone.

    `alpha` is used whatever the file says, `silent_alpha` if it says nothing.

    Raises:
        WeightsError: it is no adapter, or of a kind unknown here, or its strength is not known.
    """
    path = Path(path)
    layers = _read_layers(path)
    written = _read_strength(next(iter(layers.values())).a.file)
    known = alpha if alpha is not None else written.alpha
    known = silent_alpha if known is None else known
    if known is None:
        raise WeightsError(
            f"{path} does not say its strength: write {CONFIG_NAME} beside it, such as "
            '{"r": 8, "lora_alpha": 8}'
        )
    for name, layer in layers.items():
        if written.rank is not None and layer.a.shape[:1] != (written.rank,):
            raise WeightsError(
                f"{path}: {layer.a.name} has rank {layer.a.shape[0]} and its config says "
                f"{written.rank}: use the config that was saved with it ({name})"
            )
    strength = LoraStrength(alpha=known, by_root_of_rank=written.by_root_of_rank)
    return LoraFile(path=path, layers=layers, strength=strength)


def require_fit(module: nn.Module, lora: LoraFile) -> None:
    """Refuse an adapter for layers that the network does not have, or of another size.

    Raises:
        WeightsError: names the file and the first layers that do not fit.
    """
    weights = {
        name: child.weight for name, child in module.named_modules() if isinstance(child, nn.Linear)
    }
    problems = [
        f"{name}: {problem}"
        for name, layer in lora.layers.items()
        if (problem := _problem(weights.get(name), layer))
    ]
    if problems:
        raise WeightsError(
            f"{lora.path} does not fit {type(module).__name__}: {len(problems)} layers "
            f"({'; '.join(problems[:_NUM_NAMED])}); use the adapter made for this network"
        )


def write_lora(path: Path | str, factors: Mapping[str, Factors], *, alpha: float) -> None:
    """Save factors by layer as an adapter that says its rank and alpha; whole or not at all.

    Raises:
        WeightsError: there is none, or ranks differ.
    """
    path = Path(path)
    ranks = {tensor.shape[side] for pair in factors.values() for side, tensor in enumerate(pair)}
    if len(ranks) != 1:
        raise WeightsError(f"{path}: factors of ranks {sorted(ranks)}: give layers of one rank")
    tensors = {}
    for name, (a, b) in factors.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = a.detach().cpu().contiguous()
        tensors[f"base_model.model.{name}.lora_B.weight"] = b.detach().cpu().contiguous()
    config = {"peft_type": "LORA", "r": ranks.pop(), "lora_alpha": alpha}
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(save(tensors, {"format": "pt", "config": json.dumps(config)}))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def random_factors(
    module: nn.Module, layers: list[str], *, rank: int, seed: int, size: float = 1.0
) -> dict[str, Factors]:
    """Factors from a seed that change each weight by about `size` of its own spread.

    For trials of the machinery: they have learnt nothing. Meant for alpha = rank.
    """
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name in layers:
        weight = module.get_parameter(f"{name}.weight")
        num_out, num_in = weight.shape
        a = torch.randn(rank, num_in, generator=generator)
        b = torch.randn(num_out, rank, generator=generator)
        made[name] = (a, size * float(weight.detach().std()) / math.sqrt(rank) * b)
    return made


def _read_layers(path: Path) -> dict[str, LoraLayer]:
    """The factors in a file by the layer they belong to."""
    sides: dict[str, dict[str, StoredTensor]] = {}
    foreign = []
    for key, tensor in read_checkpoint(path).items():
        match = _KEY.fullmatch(key)
        if match is None or not tensor.is_float:
            foreign.append(key)
            continue
        pair = sides.setdefault(match["module"], {})
        if match["side"] in pair:
            raise WeightsError(
                f"{path} holds lora_{match['side']} of {match['module']} twice; save it again"
            )
        pair[match["side"]] = tensor
    if foreign or not sides:
        raise WeightsError(
            f"{path} holds {len(foreign)} tensors that are no LoRA factors "
            f"({', '.join(foreign[:_NUM_NAMED])}) and {len(sides)} adapted layers; "
            "give an adapter file"
        )
    for name, pair in sides.items():
        if len(pair) < 2:
            raise WeightsError(f"{path}: {name}: lora_A or lora_B is missing; save it again")
    return {name: LoraLayer(a=pair["A"], b=pair["B"]) for name, pair in sides.items()}


def _problem(weight: torch.Tensor | None, layer: LoraLayer) -> str:
    """Why these factors cannot change this weight, or ""."""
    if weight is None:
        return "no such linear layer"
    if weight.is_meta:
        return "its weight is not loaded yet"
    a, b = layer.a.shape, layer.b.shape
    if len(a) != 2 or len(b) != 2 or a[0] != b[1] or (b[0], a[1]) != tuple(weight.shape):
        return f"factors {list(b)} @ {list(a)} for a weight {list(weight.shape)}"
    return ""


def _read_strength(path: Path) -> LoraStrength:
    """What is written of rank and alpha: in the file, else beside it."""
    own = read_config_metadata(path) or _unprefixed(
        read_config_metadata(path, key="lora_adapter_metadata")
    )
    if own:
        return _parse_strength(own, f"{path}: metadata")
    beside = path.parent / CONFIG_NAME
    return _parse_strength(_read_json(beside), str(beside)) if beside.is_file() else LoraStrength()


def _read_json(path: Path) -> dict[str, Any]:
    """The object in a small JSON file."""
    try:
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            raise WeightsError(f"{path} is too large for a config: give PEFT's {CONFIG_NAME}")
        config = json.loads(path.read_text(encoding="utf-8"))
    except WeightsError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise WeightsError(f"{path} cannot be read ({reason}): save it again") from error
    if not isinstance(config, dict):
        raise WeightsError(f"{path} is no JSON object: give PEFT's {CONFIG_NAME}")
    return config


def _unprefixed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Diffusers puts the component's name before each key, as in `transformer.r`."""
    return {key.rpartition(".")[2]: value for key, value in config.items()}


def _parse_strength(config: Mapping[str, Any], source: str) -> LoraStrength:
    """The fields that matter, of the right kind; what would need another rule is refused."""
    for key in _UNKNOWN_VARIANTS:
        if config.get(key):
            raise WeightsError(
                f"{source}: {key} {config[key]!r} is not supported: give a plain LoRA"
            )
    if config.get("bias", "none") != "none":
        raise WeightsError(f"{source}: bias {config['bias']!r} is not supported: train without")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if rank is not None and (not isinstance(rank, int) or isinstance(rank, bool) or rank < 1):
        raise WeightsError(f"{source}: r {rank!r} must be an integer of at least 1")
    if alpha is not None:
        is_number = isinstance(alpha, int | float) and not isinstance(alpha, bool)
        if not is_number or not 0.0 < alpha < math.inf:
            raise WeightsError(f"{source}: lora_alpha {alpha!r} must be a number above 0")
    return LoraStrength(
        # Where layers have ranks of their own, the tensors say them.
        rank=None if config.get("rank_pattern") else rank,
        alpha=None if alpha is None else float(alpha),
        by_root_of_rank=bool(config.get("use_rslora", False)),
    )
