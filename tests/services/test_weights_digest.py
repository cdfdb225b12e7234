"""Weights are known by their content, large ones by header and edges."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from services.weights_digest import EDGE_BYTES, weights_digest

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    save_file({"weight": np.arange(EDGE_BYTES, dtype=np.float32)}, path)  # four edges long
    return path.read_bytes()


def digest(folder: Path, data: bytes, whole_bytes: int) -> str:
    path = folder / "w.safetensors"
    path.write_bytes(data)
    return weights_digest(path, whole_bytes=whole_bytes)


def changed(data: bytes, at: int) -> bytes:
    copy = bytearray(data)
    copy[at] ^= 1
    return bytes(copy)


def test_any_byte_of_a_file_read_whole_counts(tmp_path: Path, weights: bytes) -> None:
    first = digest(tmp_path, weights, len(weights))
    assert first == digest(tmp_path, weights, len(weights))
    for at in (0, 20, len(weights) // 2, len(weights) - 1):
        assert digest(tmp_path, changed(weights, at), len(weights)) != first


def test_of_a_large_file_size_header_and_edges_count(tmp_path: Path, weights: bytes) -> None:
    header = 8 + int.from_bytes(weights[:8], "little")
    first = digest(tmp_path, weights, 1000)
    for at in (0, 20, header, header + EDGE_BYTES - 1, len(weights) - EDGE_BYTES, -1):
        assert digest(tmp_path, changed(weights, at), 1000) != first, at
    assert digest(tmp_path, weights + b"\0", 1000) != first
    assert digest(tmp_path, changed(weights, len(weights) // 2), 1000) == first, "as it says"


def test_a_large_file_that_is_no_safetensors_has_a_digest(tmp_path: Path) -> None:
    assert digest(tmp_path, b"\xff" * 5000, 1000) != digest(tmp_path, b"\xff" * 5001, 1000)
