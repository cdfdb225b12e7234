"""Loading weights: what fits loads, everything else is one clear line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file
from torch import nn

from video.errors import WeightsError
from video.weights import load_into, read_checkpoint, read_config_metadata

pytestmark = pytest.mark.unit


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.second = nn.Linear(4, 2)
        self.register_buffer("count", torch.tensor([7]))


def state(seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {name: tensor.clone() for name, tensor in Network().state_dict().items()}


def without(name: str) -> dict[str, torch.Tensor]:
    return {key: tensor for key, tensor in state().items() if key != name}


def save_shards(folder: Path) -> Path:
    """Two shards and their index, as published checkpoints have them."""
    tensors = state()
    parts = {
        "model-00001-of-00002.safetensors": ["first.weight", "first.bias"],
        "model-00002-of-00002.safetensors": ["second.weight", "second.bias", "count"],
    }
    for file, names in parts.items():
        save_file({name: tensors[name] for name in names}, folder / file)
    weight_map = {name: file for file, names in parts.items() for name in names}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return index


def edit_index(folder: Path, name: str, shard: object) -> Path:
    index = save_shards(folder)
    content = json.loads(index.read_text())
    content["weight_map"][name] = shard
    index.write_text(json.dumps(content))
    return index


def assert_loaded(network: Network, wanted: dict[str, torch.Tensor]) -> None:
    found = network.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_single_file_loads(tmp_path: Path) -> None:
    save_file(state(1), tmp_path / "w.safetensors")
    network = Network()
    load_into(network, tmp_path / "w.safetensors")
    assert_loaded(network, state(1))
    assert network.first.weight.requires_grad


@pytest.mark.parametrize("by", ["index", "folder"])
def test_shards_load(tmp_path: Path, by: str) -> None:
    index = save_shards(tmp_path)
    network = Network()
    load_into(network, index if by == "index" else tmp_path)
    assert_loaded(network, state())


def test_network_on_the_meta_device_becomes_real(tmp_path: Path) -> None:
    save_file(state(2), tmp_path / "w.safetensors")
    with torch.device("meta"):
        network = Network()
    load_into(network, tmp_path / "w.safetensors")
    assert_loaded(network, state(2))


def test_dtype_is_cast_for_floating_point_only(tmp_path: Path) -> None:
    save_file(state(), tmp_path / "w.safetensors")
    network = Network()
    load_into(network, tmp_path / "w.safetensors", dtype=torch.bfloat16)
    assert network.first.weight.dtype == torch.bfloat16
    assert network.get_buffer("count").dtype == torch.int64


def test_names_are_mapped_and_ignored(tmp_path: Path) -> None:
    published = {f"model.{name.replace('first', 'in')}": t for name, t in state().items()}
    save_file({**published, "model.extra.bias": torch.zeros(1)}, tmp_path / "w.safetensors")
    network = Network()
    rules = [(r"^model\.", ""), (r"^in\.", "first.")]
    load_into(network, tmp_path / "w.safetensors", rename=rules, ignore=[r"^extra\."])
    assert_loaded(network, state())


def test_names_mapped_onto_each_other_are_refused(tmp_path: Path) -> None:
    save_file(state(), tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"first\.bias and second\.bias both become x\.bias"):
        load_into(Network(), tmp_path / "w.safetensors", rename=[("first|second", "x")])


def _file(tensors: dict[str, torch.Tensor]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        save_file(tensors, folder / "w.safetensors")
        return folder / "w.safetensors"

    return write


def _bytes(content: bytes, name: str = "w.safetensors") -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


def _header(header: object, data: bytes = b"") -> Callable[[Path], Path]:
    text = json.dumps(header).encode()
    return _bytes(len(text).to_bytes(8, "little") + text + data)


def _index(content: str) -> Callable[[Path], Path]:
    return _bytes(content.encode(), "model.safetensors.index.json")


def _missing_shard(folder: Path) -> Path:
    index = save_shards(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    return index


def _two_checkpoints(folder: Path) -> Path:
    for name in ("a", "b"):
        save_file(state(), folder / f"{name}.safetensors")
    return folder


def _pickle_folder(folder: Path) -> Path:
    (folder / "pytorch_model.bin").write_bytes(b"")
    return folder


def _index_of_pickle(folder: Path) -> Path:
    (folder / "pytorch_model.bin").write_bytes(b"")
    return edit_index(folder, "count", "pytorch_model.bin")


_WHOLE = save(state())

REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (_file(without("first.bias")), r"1 missing \(first\.bias\)"),
    "unexpected": (
        _file({**state(), "third.weight": torch.ones(2)}),
        r"1 unexpected \(third\.weight\)",
    ),
    "mis-shaped": (
        _file({**state(), "first.weight": torch.ones(4, 5)}),
        r"1 mis-shaped \(first\.weight: file \[4, 5\], network \[4, 3\]\)",
    ),
    "all at once": (
        _file({**without("first.bias"), "second.bias": torch.ones(3), "x": torch.ones(1)}),
        r"1 missing \(first\.bias\); 1 unexpected \(x\); 1 mis-shaped \(second\.bias",
    ),
    "many": (
        _file({f"x{i}": torch.ones(1) for i in range(9)}),
        r"5 missing \(.*, \.\.\.\); 9 unexpected",
    ),
    "integers for floats": (
        _file({**state(), "first.bias": torch.ones(4, dtype=torch.int64)}),
        r"first\.bias holds I64",
    ),
    "absent": (lambda folder: folder / "none.safetensors", "does not exist"),
    "empty": (_bytes(b""), "cannot be read"),
    "truncated data": (_bytes(_WHOLE[:-1]), "cannot be read"),
    "data after the end": (_bytes(_WHOLE + b"\0"), "cannot be read"),
    "header longer than the file": (_bytes(b"\xff" * 7 + b"\x7f{}"), "cannot be read"),
    "header that is not JSON": (_bytes((4).to_bytes(8, "little") + b"abcd"), "cannot be read"),
    "shape larger than the data": (
        _header({"first.bias": {"dtype": "F32", "shape": [4], "data_offsets": [0, 4]}}, b"\0" * 4),
        "cannot be read",
    ),
    "offsets past the end": (
        _header({"first.bias": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}),
        "cannot be read",
    ),
    "shape that overflows": (
        _header({"a": {"dtype": "F32", "shape": [2**62, 8], "data_offsets": [0, 0]}}),
        "cannot be read",
    ),
    "pickle by suffix": (_bytes(b"", "w.pth"), r"is a pickle.*\.safetensors release or convert"),
    "pickle in disguise": (_bytes(b"PK\x03\x04zip"), "is a pickle"),
    "old pickle in disguise": (_bytes(b"\x80\x02}q\0."), "is a pickle"),
    "folder with a pickle only": (_pickle_folder, r"pytorch_model\.bin is a pickle"),
    "folder without weights": (lambda folder: folder, r"holds no \.safetensors file"),
    "folder with two checkpoints": (_two_checkpoints, r"several checkpoints \(a.*, b"),
    "missing shard": (_missing_shard, r"names model-00002-of-00002\.safetensors, which is not"),
    "index without a map": (_index("{}"), "has no 'weight_map'"),
    "index that is a list": (_index("[1]"), "has no 'weight_map'"),
    "index that is not JSON": (_index("{"), "cannot be read"),
    "index nested too deeply": (_index("[" * 100_000), "cannot be read"),
    "index that is not text": (
        _bytes(b"\xff\xfe", "model.safetensors.index.json"),
        "cannot be read",
    ),
    "index naming a tensor no shard has": (
        lambda folder: edit_index(folder, "third", "model-00001-of-00002.safetensors"),
        r"disagree about 1 tensors \(third\)",
    ),
    "index naming the wrong shard": (
        lambda folder: edit_index(folder, "count", "model-00001-of-00002.safetensors"),
        r"disagree about 1 tensors \(count\)",
    ),
    "index reaching out of its folder": (
        lambda folder: edit_index(folder, "count", "../w.safetensors"),
        "which is not a file name",
    ),
    "index with a number for a shard": (
        lambda folder: edit_index(folder, "count", 3),
        "which is not a file name",
    ),
    "index naming a pickle": (_index_of_pickle, r"pytorch_model\.bin is a pickle"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_unusable_weights_are_one_line_and_change_nothing(tmp_path: Path, case: str) -> None:
    write, message = REFUSED[case]
    network = Network()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    path = write(tmp_path)
    with pytest.raises(WeightsError, match=message) as caught:
        load_into(network, path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert_loaded(network, before)


def test_weights_that_may_not_be_read_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object, **_kwargs: object) -> NoReturn:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "w.safetensors").touch()
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(WeightsError, match=r"w\.safetensors cannot be read.*Permission denied"):
        load_into(Network(), tmp_path / "w.safetensors")


@settings(deadline=None, max_examples=200)
@given(position=st.integers(0, len(_WHOLE) - 1), value=st.integers(0, 255))
def test_damaged_byte_loads_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    path.write_bytes(_WHOLE[:position] + bytes([value]) + _WHOLE[position + 1 :])
    try:
        load_into(Network(), path)
    except WeightsError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either outcome is right


def test_file_cut_at_every_byte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    for length in range(len(_WHOLE)):
        path.write_bytes(_WHOLE[:length])
        with pytest.raises(WeightsError):
            read_checkpoint(path)


def test_configuration_in_the_metadata(tmp_path: Path) -> None:
    save_file(state(), tmp_path / "w.safetensors", metadata={"config": '{"dim": 6}'})
    assert read_config_metadata(tmp_path / "w.safetensors") == {"dim": 6}
    save_file(state(), tmp_path / "none.safetensors")
    assert read_config_metadata(tmp_path / "none.safetensors") == {}


@pytest.mark.parametrize(
    ("config", "message"), [("{", "cannot be read"), ("[]", "is not a JSON object")]
)
def test_damaged_configuration_is_refused(tmp_path: Path, config: str, message: str) -> None:
    save_file(state(), tmp_path / "w.safetensors", metadata={"config": config})
    with pytest.raises(WeightsError, match=message):
        read_config_metadata(tmp_path / "w.safetensors")
