"""The public checkpoints load unchanged: same names, same shapes, nothing more or less."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.support.published import assert_takes_published_weights, published_shapes
from video.text import TextEncoder
from video.vae import WanVAE
from video.weights import compare_shapes, module_shapes

pytestmark = pytest.mark.golden


@pytest.mark.parametrize(
    ("checkpoint", "build", "num_tensors"),
    [
        pytest.param("wan2.1_vae", WanVAE, 194, id="vae"),
        pytest.param("umt5_xxl_encoder", TextEncoder, 242, id="text"),
    ],
)
def test_default_network_has_the_published_tensors(
    goldens_dir: Path, checkpoint: str, build: Callable[[], nn.Module], num_tensors: int
) -> None:
    assert_takes_published_weights(build, published_shapes(goldens_dir, checkpoint), num_tensors)


def test_number_of_parameters_of_the_vae() -> None:
    with torch.device("meta"):
        vae = WanVAE()
    assert round(sum(p.numel() for p in vae.parameters()) / 1e6, 1) == 126.9
    assert round(sum(p.numel() for p in vae.decoder.parameters()) / 1e6, 1) == 73.3


def test_comparison_sees_every_kind_of_difference() -> None:
    wanted = {"a": [1], "b": [2, 3], "c": [4]}
    differences = compare_shapes(wanted, {"b": [3, 2], "c": [4], "d": [5]})
    assert differences.missing == ("a",)
    assert differences.unexpected == ("d",)
    assert differences.misshaped == ("b: file [3, 2], network [2, 3]",)
    assert not compare_shapes(wanted, dict(wanted))


def test_published_list_is_not_fitted_by_a_smaller_network(goldens_dir: Path) -> None:
    wanted = published_shapes(goldens_dir, "wan2.1_vae")
    smaller = dict(list(wanted.items())[1:])
    with torch.device("meta"):
        found = module_shapes(WanVAE())
    assert compare_shapes(smaller, found).unexpected == (next(iter(wanted)),)
