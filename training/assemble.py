"""Put trained parts together as a model folder: `viva train assemble`.

Writes `config.json` from the training code's own configurations, so that the folder describes
exactly the networks that were trained, and copies the weights beside it.
"""

import argparse
import json
import shutil
from dataclasses import asdict

import torch
from safetensors.torch import save_file

from audio.mel_encoder import MelEncoderConfig
from training.base import POCKET_DIT
from training.errors import InputError
from training.expression import express_dit, express_prior
from training.prior import POCKET_PRIOR
from training.stored import load_tensors
from video.motion_codec import MotionCodecConfig

PARTS = ("codec", "dit", "prior", "speech")


def pocket_config() -> dict[str, object]:
    """Return the pocket model's config.json as a dictionary."""
    return {
        "name": "pocket",
        "fps": 25,
        "native_size": [256, 256],
        "prediction": "residual",
        "plan": "pocket",
        "dit": asdict(POCKET_DIT),
        "codec": {"kind": "motion"} | asdict(MotionCodecConfig()),
        "speech": {"kind": "mel"} | asdict(MelEncoderConfig()),
        "prior": asdict(POCKET_PRIOR),
    }


def join_codec(
    painter: dict[str, torch.Tensor], latent_side: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return the codec whose decoder comes from `painter` and whose identity encoder does not.

    Both were trained side by side from one linear core; another core raises InputError.
    """
    for name, tensor in painter.items():
        if name.startswith("motion.") and not _same(tensor, latent_side.get(name)):
            raise InputError(f"{name} differs: both parts must come from the same linear core")
    identity = {n: t for n, t in latent_side.items() if n.startswith("identity.")}
    return painter | identity


def _same(a: torch.Tensor, b: torch.Tensor | None) -> bool:
    return b is not None and a.shape == b.shape and torch.equal(a, b)


def run(args: argparse.Namespace) -> None:
    """Write the folder.

    Raises:
        InputError: a part is missing, damaged, or from another linear core.
        WeightsError: a part is of another network.
    """
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "config.json").write_text(json.dumps(pocket_config(), indent=2) + "\n")
    for part in PARTS:
        shutil.copyfile(args.parts / f"{part}.safetensors", args.out / f"{part}.safetensors")
    if args.expression != 1.0:
        for part, express in (("prior", express_prior), ("dit", express_dit)):
            path = args.out / f"{part}.safetensors"
            save_file(express(load_tensors(path), args.expression), path)
            path.chmod(0o644)
    if args.painter is not None:
        save_file(
            join_codec(load_tensors(args.painter), load_tensors(args.parts / "codec.safetensors")),
            args.out / "codec.safetensors",
        )
        (args.out / "codec.safetensors").chmod(0o644)


if __name__ == "__main__":
    from training.commands import main

    main("train", "assemble")
