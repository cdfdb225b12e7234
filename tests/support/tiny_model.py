"""A model folder small enough to build and run in a test: random weights, real parts."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from pipeline.model import ModelConfig, build_parts

SIZE_PX = 64


def tiny_config(**changes: Any) -> dict[str, Any]:
    """The config.json of a Wan-coded network with two layers; `changes` replace whole sections."""
    config: dict[str, Any] = {
        "name": "tiny",
        "fps": 25,
        "native_size": [SIZE_PX, SIZE_PX],
        "prediction": "velocity",
        "plan": "pocket",
        "dit": {
            "dim": 24,
            "ffn_dim": 32,
            "num_heads": 2,
            "num_layers": 2,
            "in_dim": 4,
            "out_dim": 4,
            "cond_dim": 4,
            "freq_dim": 16,
            "audio_dim": 14,
            "num_audio_layers": 1,
            "num_audio_token": 2,
            "audio_inject_layers": [0, 1],
            "audio_context": "carry",
        },
        "codec": {
            "kind": "wan",
            "dim": 4,
            "z_dim": 4,
            "dim_mult": [1, 1, 1, 1],
            "num_res_blocks": 1,
            "latent_mean": [0.0] * 4,
            "latent_std": [1.0] * 4,
            "num_prime_latents": 2,
        },
        "speech": {
            "kind": "mel",
            "channels": 8,
            "out_channels": 8,
            "num_visemes": 6,
            "dilations": [1, 2],
        },
    }
    return config | changes


def build_tiny_model(folder: Path, **changes: Any) -> Path:
    """Write the folder of a tiny model with weights from a fixed seed."""
    folder.mkdir(parents=True, exist_ok=True)
    config = tiny_config(**changes)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "CARD.md").write_text("A model for tests: random weights.\n")
    with torch.random.fork_rng():
        torch.manual_seed(7)
        parts = build_parts(ModelConfig.model_validate(config), folder)
        for stem, part in parts.named().items():
            for tensor in part.parameters():
                # Fresh layers may start at zero; a test must see every one of them act.
                if not tensor.any():
                    torch.nn.init.normal_(tensor, std=0.1)
            state = {name: value.contiguous() for name, value in part.state_dict().items()}
            save_file(state, folder / f"{stem}.safetensors")
    return folder
