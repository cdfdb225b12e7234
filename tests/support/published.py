"""The names and shapes of the published checkpoints, and networks compared with them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from video.weights import compare_shapes, module_shapes


def published_shapes(folder: Path, checkpoint: str) -> dict[str, list[int]]:
    """Name to shape of one published checkpoint; skips when the list is not there."""
    path = folder / "liveavatar_checkpoint_shapes.json"
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    shapes: dict[str, list[int]] = json.loads(path.read_text())[checkpoint]
    return shapes


def assert_takes_published_weights(
    build: Callable[[], nn.Module], wanted: dict[str, list[int]], num_tensors: int
) -> None:
    """Build the network without memory and require exactly the published names and shapes."""
    with torch.device("meta"):
        module = build()
    differences = compare_shapes(wanted, module_shapes(module))
    assert not differences, str(differences)
    assert len(wanted) == num_tensors
