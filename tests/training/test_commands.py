"""Every training command answers --help at once and refuses rubbish in one line."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.support.viva import run_viva
from training.commands import COMMANDS

pytestmark = pytest.mark.cli

ALL = [(group, name) for group, commands in COMMANDS.items() for name in commands]


def _refuse(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> str:
    outcome = run_viva(arguments, monkeypatch, capfd)
    assert outcome.status == 2, outcome
    assert outcome.stdout == ""
    lines = outcome.stderr.splitlines()
    assert len(lines) == 1, outcome.stderr
    assert lines[0].startswith("viva: ")
    return lines[0]


def test_the_set_of_options_changes_only_on_purpose(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    vocabulary: set[str] = set()
    for group, name in ALL:
        outcome = run_viva([group, name, "--help"], monkeypatch, capfd)
        vocabulary.update(re.findall(r"(?<![\w-])--[a-z-]+", outcome.stdout))
    assert vocabulary == {
        *("--help", "--out", "--count", "--clips", "--seed", "--split", "--per-shard", "--minutes"),
        *("--flite-share", "--domain", "--facekit", "--first", "--rows", "--audio", "--skip-bad"),
        *("--ict", "--hair", "--corpus", "--held-out", "--run", "--steps", "--batch", "--rate"),
        *("--core-shards", "--codec", "--speech", "--latents", "--parts", "--prior", "--painter"),
        *("--sheet", "--batches", "--recipe", "--workspace", "--list", "--init", "--core"),
        *("--begin-from", "--only", "--region", "--passes", "--expression"),
        *("--model", "--plan", "--chunks", "--fineness"),
    }


@pytest.mark.parametrize(("group", "name"), ALL)
def test_every_command_explains_itself(
    group: str, name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    outcome = run_viva([group, name, "--help"], monkeypatch, capfd)
    assert outcome.status == 0
    assert f"usage: viva {group} {name}" in outcome.stdout


def test_help_loads_neither_torch_nor_the_programs() -> None:
    program = (
        "import sys; from training.commands import build_parser; build_parser('train');"
        "heavy = {'torch', 'numpy', 'PIL', 'yaml', 'training.codec'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ("train fly", "fly"),
        ("train codec", "--clips"),
        ("train codec --clips /nowhere --run r", "/nowhere"),
        ("train codec --clips . --run r --batch 0", "--batch"),
        ("train codec --clips . --run r --steps -1", "--steps"),
        ("train codec --clips . --run r --steps 1e3", "--steps"),
        ("train codec --clips . --run r --rate nan", "--rate"),
        ("train codec --clips . --run r --minutes inf", "--minutes"),
        ("train codec --clips . --run r --seed 9223372036854775808", "--seed"),
        ("train codec --clips . --run r --colour red", "--colour"),
        ("train codec --clip . --run r", "--clip"),
        ("train codec --clips . --run pyproject.toml", "pyproject.toml"),
        ("train latents --clips . --codec . --speech x --out y", "--codec"),
        ("train all --recipe nothing --workspace w", "nothing"),
        ("data make --out x --count 0", "--count"),
        ("data make --out x --count 3 --domain clay", "clay"),
        ("data make --out pyproject.toml --count 3", "pyproject.toml"),
        ("data speech --out x --flite-share 2", "--flite-share"),
    ],
)
def test_words_that_make_no_sense(
    arguments: str, names: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert names in _refuse(arguments.split(), monkeypatch, capfd)


@pytest.mark.parametrize("option", ["--clips", "--run"])
@pytest.mark.parametrize("name", ["n" * 5000, "a\x1b[31mb", "a\0b", ""])
def test_paths_that_are_none(
    option: str, name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    options = {"--clips": ".", "--run": "r"} | {option: name}
    words = [word for pair in options.items() for word in pair]
    line = _refuse(["train", "codec", *words], monkeypatch, capfd)
    assert line.isprintable()


def test_commands_run_with_nothing_to_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for words in (
        ["train", "speech", "--corpus", str(tmp_path), "--run", str(tmp_path / "r")],
        ["train", "codec", "--clips", str(tmp_path), "--run", str(tmp_path / "r")],
        ["data", "show", str(tmp_path), "--out", str(tmp_path / "sheet.png")],
        ["train", "report", str(tmp_path)],
    ):
        assert str(tmp_path) in _refuse(words, monkeypatch, capfd)


def _rubbish(folder: Path) -> list[Path]:
    """Files that are no weights and no latents, each in its own way."""
    kinds = {"empty": b"", "text": b"Once upon a time", "zeros": bytes(64), "ones": b"\xff" * 64}
    paths = [folder / f"{name}.safetensors" for name in kinds]
    for path, content in zip(paths, kinds.values(), strict=True):
        path.write_bytes(content)
    save_file({"other": torch.zeros(3)}, folder / "foreign.safetensors")
    return [*paths, folder / "foreign.safetensors"]


def test_weights_and_latents_that_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "clips").mkdir()
    for path in _rubbish(tmp_path):
        file, run = str(path), str(tmp_path / "run")
        clips, out = str(tmp_path / "clips"), str(tmp_path / "o.safetensors")
        for words in (
            ["train", "prior", "--latents", file, "--codec", file, "--run", run],
            ["train", "latents", "--clips", clips, "--codec", file, "--speech", file, "--out", out],
            ["train", "measure", "--clips", clips, "--codec", file],
        ):
            assert path.name in _refuse(words, monkeypatch, capfd)


def test_a_run_of_another_network_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    save_file({"model.x": torch.zeros(3), "step": torch.tensor(4)}, tmp_path / "state.safetensors")
    words = ["train", "codec", "--clips", str(tmp_path), "--run", str(tmp_path)]
    assert "another network" in _refuse(words, monkeypatch, capfd)


@pytest.mark.parametrize("kind", ["cut", "text", "empty", "pickle", "foreign", "shape", "nan"])
def test_shards_of_speech_that_are_none(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "0000.npz"
    samples: np.ndarray = np.zeros(64000, np.int16)
    visemes = np.zeros((6, 400), np.float32)
    if kind == "pickle":
        samples = np.array([{}], dtype=object)
    elif kind == "shape":
        visemes = visemes[:5]
    elif kind == "nan":
        visemes = visemes * np.nan
    if kind == "foreign":
        np.savez(path, other=samples)
    else:
        np.savez(path, samples=samples, visemes=visemes, frame_ends=np.array([400]))
    damage = {"cut": path.read_bytes()[:2000], "text": b"Once upon", "empty": b""}
    path.write_bytes(damage.get(kind, path.read_bytes()))
    words = ["train", "speech", "--corpus", str(tmp_path), "--run", str(tmp_path / "run")]
    assert "0000.npz" in _refuse(words, monkeypatch, capfd)


@pytest.mark.parametrize("kind", ["cut", "foreign", "shape", "count"])
def test_shards_of_clips_that_are_none(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "clips_00000.npz"
    flow, hidden = np.zeros((2, 48, 2, 64, 64), np.float16), np.zeros((2, 48, 64, 64), np.uint8)
    if kind == "shape":
        flow = flow[:, :40]
    elif kind == "count":
        flow = flow[:1]
    if kind == "foreign":
        np.savez(path, flow64=flow)
    else:
        np.savez(path, flow64=flow, occl64=hidden)
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:-4000])
    words = ["train", "codec", "--clips", str(tmp_path), "--run", str(tmp_path / "run")]
    assert path.name in _refuse(words, monkeypatch, capfd)


def test_an_install_without_training_says_so(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert "`training`" in _refuse(["train", "codec"], monkeypatch, capfd)
