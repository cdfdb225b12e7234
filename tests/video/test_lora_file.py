"""Adapter files: strength from where it is written, refusals that name file and key."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from video.errors import WeightsError
from video.lora_file import (
    CONFIG_NAME,
    Factors,
    random_factors,
    read_lora,
    require_fit,
    write_lora,
)

pytestmark = pytest.mark.unit

RANK = 4


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.ModuleDict({"q": nn.Linear(6, 8), "k": nn.Linear(8, 6)})


def made() -> dict[str, Factors]:
    return random_factors(network(), ["q", "k"], rank=RANK, seed=3)


def bare(path: Path, metadata: dict[str, str] | None = None) -> Path:
    """A file of the same factors that says nothing of its strength, unless in its metadata."""
    tensors: dict[str, torch.Tensor] = {}
    for name, (a, b) in made().items():
        tensors |= {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}
    save_file(tensors, path, metadata=metadata)
    return path


def test_a_written_adapter_reads_back_with_its_strength(tmp_path: Path) -> None:
    write_lora(tmp_path / "x.safetensors", made(), alpha=2.0)
    lora = read_lora(tmp_path / "x.safetensors")
    require_fit(network(), lora)
    assert sorted(lora.layers) == ["k", "q"]
    a, b = lora.factors("q")
    assert torch.equal(a, made()["q"][0])
    assert torch.equal(b, made()["q"][1] * (2.0 / RANK))
    assert [file.name for file in tmp_path.iterdir()] == ["x.safetensors"]


def test_factors_from_a_seed_change_weights_by_about_their_own_spread() -> None:
    layer = network().get_parameter("q.weight").detach()
    a, b = random_factors(network(), ["q"], rank=64, seed=3, size=0.5)["q"]
    assert float((b @ a).std() / layer.std()) == pytest.approx(0.5, rel=0.2)


CONFIGS: dict[str, tuple[dict[str, Any], float]] = {
    "peft": ({"r": RANK, "lora_alpha": 8}, 2.0),
    "rank-stabilised": ({"r": RANK, "lora_alpha": 8, "use_rslora": True}, 4.0),
    "ranks of their own": ({"r": 99, "lora_alpha": 8, "rank_pattern": {"q": 4}}, 2.0),
}


@pytest.mark.parametrize("where", ["metadata", "diffusers", "beside", "folder"])
@pytest.mark.parametrize("case", CONFIGS)
def test_strength_is_read_where_it_is_written(tmp_path: Path, case: str, where: str) -> None:
    config, scale = CONFIGS[case]
    prefixed = {f"transformer.{key}": value for key, value in config.items()}
    metadata = {
        "metadata": {"config": json.dumps(config)},
        "diffusers": {"lora_adapter_metadata": json.dumps(prefixed)},
    }.get(where)
    file = bare(tmp_path / "adapter_model.safetensors", metadata)
    if metadata is None:
        (tmp_path / CONFIG_NAME).write_text(json.dumps(config))
    lora = read_lora(tmp_path if where == "folder" else file)
    torch.testing.assert_close(lora.factors("q")[1], scale * made()["q"][1])


def test_an_option_decides_over_the_file_and_a_default_does_not(tmp_path: Path) -> None:
    write_lora(tmp_path / "x.safetensors", made(), alpha=2.0)
    assert read_lora(tmp_path / "x.safetensors", alpha=6.0).strength.alpha == 6.0
    assert read_lora(tmp_path / "x.safetensors", silent_alpha=6.0).strength.alpha == 2.0
    assert read_lora(bare(tmp_path / "y.safetensors"), silent_alpha=6.0).strength.alpha == 6.0


REFUSED: dict[str, tuple[str, str]] = {
    "silent": ("", r"y\.safetensors does not say its strength: write adapter_config\.json"),
    "no alpha": ('{"r": 4}', "does not say its strength"),
    "another rank": ('{"r": 5, "lora_alpha": 8}', r"lora_A\.weight has rank 4 and .* says 5"),
    "rank that is none": ('{"r": 0, "lora_alpha": 8}', "r 0 must be an integer of at least 1"),
    "alpha in words": ('{"r": 4, "lora_alpha": "8"}', "lora_alpha '8' must be a number above 0"),
    "endless alpha": ('{"r": 4, "lora_alpha": Infinity}', "lora_alpha inf must be a number"),
    "dora": ('{"lora_alpha": 8, "use_dora": true}', "use_dora True is not supported"),
    "bias": ('{"lora_alpha": 8, "bias": "all"}', "bias 'all' is not supported"),
    "no object": ("[]", "is no JSON object"),
    "no JSON": ("{", r"adapter_config\.json cannot be read"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_strength_that_cannot_be_used_is_refused_by_file(tmp_path: Path, case: str) -> None:
    text, message = REFUSED[case]
    file = bare(tmp_path / "y.safetensors")
    if text:
        (tmp_path / CONFIG_NAME).write_text(text)
    with pytest.raises(WeightsError, match=message) as refused:
        read_lora(file)
    assert str(tmp_path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_factors_that_are_no_numbers_are_refused_by_key(tmp_path: Path) -> None:
    factors = made()
    factors["q"][1][0, 0] = float("nan")
    write_lora(tmp_path / "x.safetensors", factors, alpha=1.0)
    with pytest.raises(WeightsError, match=r"x\.safetensors: .*q\.lora_B\.weight holds values"):
        read_lora(tmp_path / "x.safetensors").factors("q")


def test_layers_of_several_ranks_are_not_written(tmp_path: Path) -> None:
    factors = made() | random_factors(network(), ["k"], rank=2, seed=1)
    with pytest.raises(WeightsError, match=r"factors of ranks \[2, 4\]"):
        write_lora(tmp_path / "x.safetensors", factors, alpha=1.0)
    with pytest.raises(WeightsError, match="give layers of one rank"):
        write_lora(tmp_path / "x.safetensors", {}, alpha=1.0)
    assert list(tmp_path.iterdir()) == []
