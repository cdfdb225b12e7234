"""The cast on the command line: names instead of files, and the list that tells them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.catalog import model_path
from tests.support.viva import Outcome, run_viva

pytestmark = pytest.mark.cli

Viva = Callable[..., Outcome]
POCKET = model_path("pocket")


@pytest.fixture
def viva(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Viva:
    return lambda *arguments: run_viva([str(a) for a in arguments], monkeypatch, capfd)


@pytest.fixture
def model(tmp_path: Path, tiny_model: Path) -> Path:
    """The tiny model with the shipped cast."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    shutil.copytree(POCKET / "portraits", folder / "portraits")
    return folder


@pytest.mark.parametrize("name", ["ada", "leo"])
def test_a_name_of_the_model_s_cast_is_a_portrait(
    viva: Viva, model: Path, speech: Path, tmp_path: Path, name: str
) -> None:
    """Leo's face is one that the finder misses: nothing has to be said about the crop."""
    words = ["--audio", speech, "--model", model]
    outcome = viva("render", "--portrait", name, "--out", tmp_path / "name.mp4", *words)
    assert outcome.status == 0, outcome.stderr
    assert "frames of 64x64 at 25 fps" in outcome.stdout
    path = model / "portraits" / f"{name}.png"
    assert viva("render", "--portrait", path, "--out", tmp_path / "path.mp4", *words).status == 0
    assert (tmp_path / "name.mp4").read_bytes() == (tmp_path / "path.mp4").read_bytes()


def test_ada_talks_with_nothing_but_her_name(viva: Viva, speech: Path, tmp_path: Path) -> None:
    out = tmp_path / "ada.mp4"
    words = ["--audio", speech, "--out", out, "--max-seconds", "0.2", "--json"]
    outcome = viva("render", "--portrait", "ada", *words)
    assert outcome.status == 0, outcome.stderr
    summary = json.loads(outcome.stdout)
    assert (summary["model"], summary["num_frames"], summary["width"]) == ("pocket", 5, 256)
    assert out.is_file()


@pytest.mark.parametrize("command", [["render", "--out", "out.mp4"], ["eval", "recording"]])
def test_an_unknown_name_is_one_line_with_the_names(
    viva: Viva, model: Path, speech: Path, command: list[str]
) -> None:
    outcome = viva(*command, "--portrait", "adda", "--audio", speech, "--model", model)
    assert outcome.status == 2
    (line,) = outcome.stderr.splitlines()
    assert "unknown portrait 'adda': use one of ada, bruno," in line
    assert "zoe, or the path of a picture" in line


def test_model_info_lists_the_cast(viva: Viva, model: Path, tiny_model: Path) -> None:
    cast = json.loads(viva("model", "info", model, "--json").stdout)["cast"]
    assert cast[:2] == ["ada", "bruno"]
    assert len(cast) == 11
    assert f"cast    {', '.join(cast)}" in viva("model", "info", model).stdout
    assert "cast  " not in viva("model", "info", tiny_model).stdout


def test_the_help_says_that_names_are_portraits(viva: Viva) -> None:
    said = " ".join(viva("render", "--help").stdout.replace("│", " ").split())
    assert "FILE|NAME" in said
    assert "viva model info" in said
