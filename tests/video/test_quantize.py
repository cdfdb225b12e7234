"""FP8 quantisation against the reference's numbers, and layers replaced by FP8 ones."""

import pytest
import torch
from torch import nn

from tests.support.goldens import GoldenSet
from video.quantize import (
    FP8_MAX,
    QuantizedLinear,
    is_quantizable,
    quantize,
    quantize_linears,
    quantized_linear,
)

pytestmark = pytest.mark.unit


@pytest.mark.golden
@pytest.mark.parametrize("name", ["w", "x"])
def test_values_and_scale_of_the_reference(golden_set: GoldenSet, name: str) -> None:
    golden = golden_set.tensors("misc")
    quantized = quantize(golden[f"fp8.{name}"])
    assert torch.equal(quantized.values.float(), golden[f"fp8.{name}_q_as_f32"])
    assert torch.equal(quantized.scale, golden[f"fp8.{name}_scale"])


@pytest.mark.golden
def test_product_of_the_reference(golden_set: GoldenSet) -> None:
    golden = golden_set.tensors("misc")
    out = quantized_linear(golden["fp8.x"], quantize(golden["fp8.w"]), golden["fp8.bias"])
    torch.testing.assert_close(out, golden["fp8.out_ref_f32"], atol=1e-5, rtol=0)


def test_largest_magnitude_uses_the_whole_range_and_is_restored() -> None:
    x = torch.tensor([0.5, -7.0, 3.0])
    quantized = quantize(x)
    assert quantized.values.float().abs().max() == FP8_MAX
    assert quantized.dequantize()[1] == pytest.approx(-7.0)


@pytest.mark.parametrize("largest", [0.0, 1e-12, 0.9])
def test_gain_of_small_tensors_is_limited(largest: float) -> None:
    quantized = quantize(torch.tensor([largest, -largest]))
    assert quantized.scale.item() == pytest.approx(1 / FP8_MAX)
    assert quantized.values.float().isfinite().all()


def test_relative_error_is_that_of_three_mantissa_bits() -> None:
    x = torch.linspace(0.1, 5.0, 1000)
    error = (quantize(x).dequantize() - x).abs() / x
    assert 1e-3 < error.max() <= 2**-4


def test_layer_keeps_shape_dtype_and_value() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(32, 16, dtype=torch.bfloat16)
    x = torch.randn(2, 3, 32, dtype=torch.bfloat16)
    out = QuantizedLinear(linear)(x)
    assert out.shape == (2, 3, 16)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, linear(x), atol=0.1, rtol=0.1)


def test_layer_without_bias() -> None:
    linear = nn.Linear(16, 16, bias=False)
    x = torch.randn(4, 16, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(QuantizedLinear(linear)(x), linear(x), atol=0.1, rtol=0.1)


def test_only_the_selected_layers_are_replaced() -> None:
    network = nn.ModuleDict(
        {
            "block": nn.Sequential(nn.Linear(4, 4), nn.SiLU(), nn.Linear(4, 4)),
            "text_embedding": nn.Sequential(nn.Linear(4, 4)),
            "head": nn.ModuleDict({"head": nn.Linear(4, 4)}),
        }
    )
    assert quantize_linears(network) == ["block.0", "block.2"]
    assert isinstance(network.get_submodule("block.0"), QuantizedLinear)
    assert isinstance(network.get_submodule("text_embedding.0"), nn.Linear)
    assert isinstance(network.get_submodule("head.head"), nn.Linear)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("blocks.0.self_attn.q", True),
        ("audio_injector.injector.3.k", True),
        ("audio_injector.injector_adain_layers.0.linear", True),
        ("time_projection.1", False),
        ("casual_audio_encoder.encoder.final_linear", False),
    ],
)
def test_names_that_stay_in_full_precision(name: str, expected: bool) -> None:
    assert is_quantizable(name) is expected
