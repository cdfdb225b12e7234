"""Golden sets: tensors computed by the reference network, one set per random configuration."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

_DIT_PREFIX = "liveavatar_dit_"


@dataclass(frozen=True)
class GoldenSet:
    """The files of one set, read on demand; a missing file skips the test that asks for it."""

    folder: Path
    name: str

    def config(self, section: str) -> dict[str, Any]:
        """One section ("dit", "vae", ...) of the set's config file."""
        text = (self.folder / f"liveavatar_config_{self.name}.json").read_text()
        return dict(json.loads(text)[section])

    def tensors(self, kind: str) -> dict[str, torch.Tensor]:
        """All tensors of one file ("dit", "vae", "audio", "misc")."""
        path = self.folder / f"liveavatar_{kind}_{self.name}.safetensors"
        if not path.is_file():
            pytest.skip(f"golden file {path} is absent")
        return _load(path)

    def weights(self, kind: str, prefix: str = "w.") -> dict[str, torch.Tensor]:
        """The tensors whose key starts with `prefix`, under their published names."""
        tensors = self.tensors(kind)
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


@cache
def _load(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path)


def find_golden_sets(folder: Path) -> list[GoldenSet]:
    """Every set whose DiT file has its config file beside it, by name."""
    names = (
        path.stem.removeprefix(_DIT_PREFIX)
        for path in sorted(folder.glob(f"{_DIT_PREFIX}*.safetensors"))
    )
    return [
        GoldenSet(folder, name)
        for name in names
        if (folder / f"liveavatar_config_{name}.json").is_file()
    ]
