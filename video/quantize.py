"""FP8 (e4m3) linear layers with one scale per tensor, as the 14B network runs on Hopper GPUs.

Weights are quantised once, inputs at every call; the product is exact in the quantised values:
`_scaled_mm` where the device has it, else the same numbers multiplied in float32.
Source: design page "live-avatar-spec", section 5.1.

Shape legend: M = rows, K = inputs, N = outputs.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

FP8_DTYPE = torch.float8_e4m3fn
FP8_MAX = 448.0
# Linears of the speech-to-video network that stay in full precision.
FULL_PRECISION_NAMES = (
    "text_embedding",
    "time_embedding",
    "time_projection",
    "head.head",
    "casual_audio_encoder.encoder.final_linear",
)


class Quantized(NamedTuple):
    """FP8 values and the factor that restores them: x is about values * scale."""

    values: torch.Tensor
    scale: torch.Tensor

    def dequantize(self) -> torch.Tensor:
        """Return the restored values in float32."""
        return self.values.float() * self.scale


def quantize(x: torch.Tensor) -> Quantized:
    """Return `x` rounded to e4m3 with its largest magnitude mapped to 448 (gain at most 448)."""
    largest = x.detach().abs().amax().float()
    gain = (FP8_MAX / largest).clamp(max=FP8_MAX)
    values = (x.float() * gain).clamp(-FP8_MAX, FP8_MAX).to(FP8_DTYPE)
    return Quantized(values, gain.reciprocal().reshape(1))


def quantized_linear(
    x_MK: torch.Tensor, weight_NK: Quantized, bias_N: torch.Tensor | None
) -> torch.Tensor:
    """Return x @ weight.T + bias with `x` quantised on the spot, in the dtype of `x`."""
    x = quantize(x_MK)
    if not _has_scaled_mm(weight_NK.values):
        bias = None if bias_N is None else bias_N.float()
        return F.linear(x.dequantize(), weight_NK.dequantize(), bias).to(x_MK.dtype)
    product = torch._scaled_mm(
        x.values,
        weight_NK.values.t(),
        scale_a=x.scale,
        scale_b=weight_NK.scale,
        out_dtype=torch.bfloat16,
        use_fast_accum=True,
    )
    return (product if bias_N is None else product + bias_N).to(x_MK.dtype)


def _has_scaled_mm(weight_NK: torch.Tensor) -> bool:
    """Say whether the device multiplies FP8 matrices of this shape (sides multiples of 16)."""
    if weight_NK.device.type != "cuda" or any(side % 16 for side in weight_NK.shape):
        return False
    return torch.cuda.get_device_capability(weight_NK.device) >= (8, 9)


class QuantizedLinear(nn.Module):
    """A linear layer whose weight is stored in FP8; for inference only."""

    def __init__(self, linear: nn.Linear) -> None:
        """Quantise the weight of `linear` and keep its bias."""
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = quantize(linear.weight.detach())
        self.register_buffer("weight", weight.values)
        self.register_buffer("scale", weight.scale)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return [..., out_features] for [..., in_features]."""
        weight = Quantized(self.get_buffer("weight"), self.get_buffer("scale"))
        bias = self._buffers["bias"]
        y = quantized_linear(x.flatten(0, -2), weight, bias)
        return y.reshape(*x.shape[:-1], self.out_features)


def is_quantizable(name: str) -> bool:
    """Say whether the 14B network runs the linear layer of this name in FP8."""
    return not any(part in name for part in FULL_PRECISION_NAMES)


def quantize_linears(
    module: nn.Module, select: Callable[[str], bool] = is_quantizable
) -> list[str]:
    """Replace the selected linear layers of `module` by FP8 ones; returns their names."""
    linears = {
        name: child
        for name, child in module.named_modules()
        if name and isinstance(child, nn.Linear) and select(name)
    }
    for name, linear in linears.items():
        parent, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(parent), leaf, QuantizedLinear(linear))
    return list(linears)
