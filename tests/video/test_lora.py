"""Merging an adapter: the right sum in the right layers, or no change at all."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.support.published import published_shapes
from video.errors import WeightsError
from video.lora import adapter_targets, merge_lora

pytestmark = pytest.mark.unit

RANK, ALPHA = 2, 1.0
LAYERS = ("attn.q", "attn.k", "ffn.0", "ffn.2")


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.ModuleDict({"q": nn.Linear(4, 6), "k": nn.Linear(4, 6)})
        self.ffn = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 4))
        self.head = nn.Linear(4, 4)


def factors(network: nn.Module, layers: tuple[str, ...] = LAYERS) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    tensors = {}
    for name in layers:
        num_out, num_in = network.get_parameter(f"{name}.weight").shape
        tensors[f"{name}.lora_A.weight"] = torch.randn(RANK, num_in, generator=generator)
        tensors[f"{name}.lora_B.weight"] = torch.randn(num_out, RANK, generator=generator)
    return tensors


def weights(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.named_parameters()}


@pytest.mark.parametrize("prefix", ["", "base_model.model."])
@pytest.mark.parametrize("adapter", ["", ".default"])
def test_every_spelling_merges_the_scaled_product(
    tmp_path: Path, prefix: str, adapter: str
) -> None:
    network = Network()
    before, tensors = weights(network), factors(network)
    keys = {prefix + k.replace(".weight", f"{adapter}.weight"): t for k, t in tensors.items()}
    save_file(keys, tmp_path / "lora.safetensors")
    assert merge_lora(network, tmp_path / "lora.safetensors", alpha=ALPHA) == len(LAYERS)
    after = weights(network)
    for name in LAYERS:
        product = tensors[f"{name}.lora_B.weight"] @ tensors[f"{name}.lora_A.weight"]
        wanted = before[f"{name}.weight"] + ALPHA / RANK * product
        torch.testing.assert_close(after.pop(f"{name}.weight"), wanted, atol=1e-6, rtol=0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())


def test_low_precision_weights_are_rounded_once(tmp_path: Path) -> None:
    network = Network().to(torch.bfloat16)
    before, tensors = weights(network), factors(network)
    save_file(tensors, tmp_path / "lora.safetensors")
    merge_lora(network, tmp_path / "lora.safetensors", alpha=ALPHA)
    product = tensors["attn.q.lora_B.weight"] @ tensors["attn.q.lora_A.weight"]
    wanted = (before["attn.q.weight"].float() + ALPHA / RANK * product).to(torch.bfloat16)
    assert torch.equal(network.get_parameter("attn.q.weight"), wanted)


def _without(name: str) -> dict[str, torch.Tensor]:
    return {key: t for key, t in factors(Network()).items() if not key.startswith(name)}


REFUSED = {
    "too few layers": (_without("ffn.2"), "adapts 3 layers where 4 are expected"),
    "half a pair": (_without("ffn.2.lora_A"), r"ffn\.2: lora_A or lora_B is missing"),
    "layer that is not there": (
        {**_without("ffn.2"), **{f"ffn.9.lora_{s}.weight": torch.ones(2, 2) for s in "AB"}},
        r"1 layers \(ffn\.9: no such linear layer\)",
    ),
    "wrong width": (
        {**factors(Network()), "attn.q.lora_A.weight": torch.ones(RANK, 5)},
        r"attn\.q: factors \[6, 2\] @ \[2, 5\] for a weight \[6, 4\]",
    ),
    "ranks that differ": (
        {**factors(Network()), "attn.q.lora_A.weight": torch.ones(3, 4)},
        r"attn\.q: factors \[6, 2\] @ \[3, 4\]",
    ),
    "other tensors": (
        {**factors(Network()), "head.weight": torch.ones(4, 4)},
        r"1 tensors that are no LoRA factors \(head\.weight\)",
    ),
    "same factor twice": (
        {**factors(Network()), "attn.q.lora_A.default.weight": torch.ones(RANK, 4)},
        r"lora_A of attn\.q twice",
    ),
    "no tensor at all": ({}, "0 adapted layers"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_adapter_that_does_not_fit_changes_nothing(tmp_path: Path, case: str) -> None:
    tensors, message = REFUSED[case]
    network = Network()
    before = weights(network)
    save_file(tensors, tmp_path / "lora.safetensors")
    with pytest.raises(WeightsError, match=message) as caught:
        merge_lora(network, tmp_path / "lora.safetensors")
    assert "\n" not in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(network).items())


def test_number_of_layers_may_be_given(tmp_path: Path) -> None:
    network = Network()
    save_file(factors(network, ("attn.q",)), tmp_path / "lora.safetensors")
    assert merge_lora(network, tmp_path / "lora.safetensors", num_expected=1) == 1
    with pytest.raises(WeightsError, match="1 layers where 448 are expected"):
        merge_lora(network, tmp_path / "lora.safetensors", num_expected=448)


def test_network_without_memory_is_refused(tmp_path: Path) -> None:
    save_file(factors(Network()), tmp_path / "lora.safetensors")
    with torch.device("meta"):
        network = Network()
    with pytest.raises(WeightsError, match="its weight is not loaded yet"):
        merge_lora(network, tmp_path / "lora.safetensors")


@pytest.mark.golden
def test_targets_in_the_published_network_are_448(goldens_dir: Path) -> None:
    skeleton = nn.Module()
    with torch.device("meta"):
        for key, shape in published_shapes(goldens_dir, "s2v_14b_dit").items():
            if key.endswith(".weight") and len(shape) == 2:
                _add_linear(skeleton, key.removesuffix(".weight").split("."), shape)
    assert len(adapter_targets(skeleton)) == 448


def _add_linear(parent: nn.Module, path: list[str], shape: list[int]) -> None:
    *parts, leaf = path
    for part in parts:
        if not hasattr(parent, part):
            parent.add_module(part, nn.Module())
        parent = parent.get_submodule(part)
    parent.add_module(leaf, nn.Linear(shape[1], shape[0]))
