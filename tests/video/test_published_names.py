"""Checkpoints in the names of diffusers and transformers load into the same networks."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from video.published_names import TEXT_IGNORED, TEXT_RULES, VAE_RULES
from video.text import TextEncoder, TextEncoderConfig
from video.vae import WanVAE
from video.weights import RenameRules, load_into, module_shapes

pytestmark = pytest.mark.unit


def renamed(name: str, rules: RenameRules) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


@pytest.mark.parametrize(
    ("build", "rules"),
    [pytest.param(WanVAE, VAE_RULES, id="vae"), pytest.param(TextEncoder, TEXT_RULES, id="text")],
)
def test_original_names_are_left_alone(build: Callable[[], nn.Module], rules: RenameRules) -> None:
    with torch.device("meta"):
        names = list(module_shapes(build()))
    assert [renamed(name, rules) for name in names] == names


@pytest.mark.parametrize(
    ("diffusers", "original"),
    [
        ("encoder.conv_in.weight", "encoder.conv1.weight"),
        ("encoder.down_blocks.3.conv_shortcut.bias", "encoder.downsamples.3.shortcut.bias"),
        ("encoder.down_blocks.10.norm1.gamma", "encoder.downsamples.10.residual.0.gamma"),
        ("encoder.down_blocks.5.time_conv.bias", "encoder.downsamples.5.time_conv.bias"),
        ("encoder.mid_block.resnets.1.conv2.bias", "encoder.middle.2.residual.6.bias"),
        ("decoder.mid_block.attentions.0.to_qkv.bias", "decoder.middle.1.to_qkv.bias"),
        ("decoder.mid_block.resnets.0.conv1.bias", "decoder.middle.0.residual.2.bias"),
        ("decoder.up_blocks.0.resnets.2.norm2.gamma", "decoder.upsamples.2.residual.3.gamma"),
        ("decoder.up_blocks.1.resnets.0.conv_shortcut.bias", "decoder.upsamples.4.shortcut.bias"),
        (
            "decoder.up_blocks.2.upsamplers.0.resample.1.bias",
            "decoder.upsamples.11.resample.1.bias",
        ),
        ("decoder.up_blocks.3.resnets.2.conv1.weight", "decoder.upsamples.14.residual.2.weight"),
        ("decoder.norm_out.gamma", "decoder.head.0.gamma"),
        ("decoder.conv_out.bias", "decoder.head.2.bias"),
        ("quant_conv.weight", "conv1.weight"),
        ("post_quant_conv.bias", "conv2.bias"),
    ],
)
def test_names_of_the_autoencoder(diffusers: str, original: str) -> None:
    assert renamed(diffusers, VAE_RULES) == original


def test_text_encoder_of_transformers_gives_the_same_states(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(4)
    config = transformers.UMT5Config(
        vocab_size=30, d_model=12, d_kv=4, d_ff=20, num_layers=2, num_heads=2
    )
    theirs = transformers.UMT5EncoderModel(config).eval()
    save_file(
        {name: tensor.clone() for name, tensor in theirs.state_dict().items()},
        tmp_path / "text.safetensors",
    )
    with torch.device("meta"):
        ours = TextEncoder(
            TextEncoderConfig(
                vocab_size=30, dim=12, attention_dim=8, ffn_dim=20, num_heads=2, num_layers=2
            )
        )
    load_into(ours, tmp_path / "text.safetensors", rename=TEXT_RULES, ignore=TEXT_IGNORED)
    ids = torch.randint(0, 30, (1, 150))
    mask = torch.ones_like(ids)
    mask[:, 140:] = 0
    with torch.no_grad():
        wanted = theirs(input_ids=ids, attention_mask=mask).last_hidden_state[0, :140]
    torch.testing.assert_close(ours.encode(ids, mask)[0], wanted, atol=1e-5, rtol=0)
