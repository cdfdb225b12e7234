"""Every bad input gets one line that names it and the remedy, exit 2, and leaves no file."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.bad_files import AUDIO, IMAGES, a_loop, a_pipe, endless, ten_hours
from tests.support.viva import run_viva

pytestmark = pytest.mark.cli

Refuse = Callable[..., str]


@pytest.fixture
def refuse(
    tmp_path: Path,
    tiny_model: Path,
    portrait: Path,
    speech: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Refuse:
    """Render with one thing wrong; return the line that says so."""

    def run(*flags: str, **wrong: object) -> str:
        out_folder = tmp_path / "out"
        out_folder.mkdir(exist_ok=True)
        options = {
            "portrait": portrait,
            "audio": speech,
            "out": out_folder / "video.mp4",
            "model": tiny_model,
            "crop": "center",
        } | wrong
        arguments = ["render", *flags]
        for name, value in options.items():
            if value is not None:
                arguments += [f"--{name.replace('_', '-')}", str(value)]
        outcome = run_viva(arguments, monkeypatch, capfd)
        assert outcome.status == 2, outcome
        assert outcome.stdout == ""
        lines = outcome.stderr.splitlines()
        assert len(lines) == 1, outcome.stderr
        assert lines[0].startswith("viva: ")
        assert "Traceback" not in outcome.stderr
        assert list(out_folder.iterdir()) == []
        return lines[0]

    return run


@pytest.mark.parametrize("make", AUDIO)
def test_audio(refuse: Refuse, tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path = make(tmp_path)
    line = refuse(audio=path)
    assert path.name in line
    assert ":" in line.split(path.name, 1)[1], "no remedy"


@pytest.mark.parametrize("make", IMAGES)
def test_image(refuse: Refuse, tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path = make(tmp_path)
    line = refuse(portrait=path)
    assert path.name in line
    assert ":" in line.split(path.name, 1)[1], "no remedy"


def test_ten_hours_names_the_option_that_helps(refuse: Refuse, tmp_path: Path) -> None:
    assert "--max-seconds" in refuse(audio=ten_hours(tmp_path))


@pytest.mark.parametrize("wanted", ["portrait", "audio", "out"])
def test_missing_option(refuse: Refuse, wanted: str) -> None:
    assert f"--{wanted} is missing" in refuse(**{wanted: None})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("size", "63x64"),
        ("size", "large"),
        ("size", "100x100"),  # even, but no whole number of this model's patches
        ("fps", "0"),
        ("fps", "a lot"),
        ("crop", "left"),
        ("crop", "0,0,500,500"),
        ("seed", "-1"),
        ("max_seconds", "0"),
        ("model", "no-such-model"),
        ("model", "/nowhere/at/all"),
        ("plan", "no-such-plan"),
        ("mode", "rehearsal"),
        ("plan", "/nowhere/plan.yaml"),
    ],
)
def test_option(refuse: Refuse, option: str, value: str) -> None:
    line = refuse(**{option: value})
    assert value in line


def test_unknown_names_list_what_there_is(refuse: Refuse) -> None:
    line = refuse(plan="no-such-plan")
    assert "bottleneck, live, live-avatar" in line
    assert "pocket-2step, render, render-fast" in line


@pytest.mark.parametrize(
    ("mode", "plan", "reason"),
    [
        ("live", "render", "its windows wait for sound"),
        ("live", "bottleneck", "its 12 steps are for a file that nobody waits for"),
        ("render", "live-short", "few steps, chunk by chunk"),
    ],
)
def test_plan_of_another_mode(refuse: Refuse, mode: str, plan: str, reason: str) -> None:
    line = refuse(mode=mode, plan=plan)
    assert f"--mode {mode} and plan {plan} do not go together" in line
    assert reason in line
    assert f"choose a plan of mode {mode}" in line


def test_plan_that_is_no_plan(refuse: Refuse, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("name: bad\nstages: []\n")
    assert "bad.yaml" in refuse(plan=path)


@pytest.mark.parametrize("suffix", [".mov", "", ".wav"])
def test_output_of_another_kind(refuse: Refuse, tmp_path: Path, suffix: str) -> None:
    assert ".mp4" in refuse(out=tmp_path / "out" / f"video{suffix}")


def test_output_folder_that_does_not_exist(refuse: Refuse, tmp_path: Path) -> None:
    line = refuse(out=tmp_path / "out" / "deeper" / "video.mp4")
    assert "deeper" in line
    assert "create it" in line


def test_output_below_a_file(refuse: Refuse, tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    assert "plain" in refuse(out=tmp_path / "plain" / "video.mp4")


def test_output_that_is_a_folder(refuse: Refuse, tmp_path: Path) -> None:
    (tmp_path / "video.mp4").mkdir()
    assert "is a folder" in refuse(out=tmp_path / "video.mp4")


def test_output_where_nobody_may_write(refuse: Refuse) -> None:
    assert "/proc/video.mp4" in refuse(out="/proc/video.mp4")


def test_output_that_exists_is_left_as_it_is(refuse: Refuse, tmp_path: Path) -> None:
    path = tmp_path / "kept.mp4"
    path.write_bytes(b"precious")
    assert "--overwrite" in refuse(out=path)
    assert path.read_bytes() == b"precious"


@pytest.mark.parametrize("target", ["nowhere.mp4", "link.mp4"], ids=["dangling", "loop"])
def test_output_that_is_a_link_is_left_as_it_is(
    refuse: Refuse, tmp_path: Path, target: str
) -> None:
    link = tmp_path / "link.mp4"
    link.symlink_to(tmp_path / target)
    assert "link.mp4" in refuse(out=link)
    assert link.readlink() == tmp_path / target


@pytest.mark.parametrize("how", ["itself", "symbolic link", "hard link", "the partial file"])
@pytest.mark.parametrize("option", ["audio", "portrait"])
def test_an_input_is_never_the_output(
    refuse: Refuse, tmp_path: Path, speech: Path, portrait: Path, option: str, how: str
) -> None:
    out, source = tmp_path / "film.mp4", tmp_path / "source.mp4"
    if how == "itself":
        source = out
    elif how == "the partial file":
        source = tmp_path / ".film.mp4.part.mp4"
    shutil.copyfile(speech if option == "audio" else portrait, source)
    if how == "symbolic link":
        out.symlink_to(source)
    elif how == "hard link":
        out.hardlink_to(source)
    content = source.read_bytes()
    line = refuse("--overwrite", out=out, **{option: source})
    assert f"would replace {source}" in line
    assert source.read_bytes() == content


def test_portrait_and_sound_in_each_others_place(
    refuse: Refuse, portrait: Path, speech: Path
) -> None:
    assert "has no sound in it" in refuse(portrait=speech, audio=portrait)


@pytest.mark.parametrize("option", ["portrait", "audio", "model", "plan", "out"])
@pytest.mark.parametrize(
    "name", ["n" * 300, "d" * 200 + "/" + "n" * 5000, "a\x1b[31mb\nc", "\udcff"]
)
def test_names_that_no_file_has(refuse: Refuse, option: str, name: str) -> None:
    """Too long for any file system, or able to steer the terminal, or no text at all."""
    line = refuse(**{option: name})
    assert line.isprintable()


@pytest.mark.parametrize("option", ["portrait", "audio", "model", "plan", "out"])
def test_a_nul_in_a_name(refuse: Refuse, option: str) -> None:
    assert "x00" in refuse(**{option: "a\0b"})


@pytest.mark.parametrize("kind", [a_pipe, endless, a_loop])
@pytest.mark.parametrize("option", ["model", "plan", "out"])
def test_what_is_neither_file_nor_folder(
    refuse: Refuse, tmp_path: Path, option: str, kind: Callable[[Path], Path]
) -> None:
    path = kind(tmp_path).rename(tmp_path / "odd.mp4")
    flags = ["--overwrite"] if kind is not a_loop else []
    assert "odd.mp4" in refuse(*flags, **{option: path})


@pytest.fixture
def copied_model(tmp_path: Path, tiny_model: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def test_weights_of_another_shape(refuse: Refuse, copied_model: Path) -> None:
    path = copied_model / "dit.safetensors"
    weights = load_file(path)
    weights["head.head.weight"] = torch.zeros(3, 3)
    save_file(weights, path)
    line = refuse(model=copied_model)
    assert "dit.safetensors" in line
    assert "head.head.weight" in line


def test_weights_that_lack_a_tensor_or_bring_one_too_many(
    refuse: Refuse, copied_model: Path
) -> None:
    path = copied_model / "speech.safetensors"
    weights = load_file(path)
    weights["surplus"] = weights.pop("stem.bias")
    save_file(weights, path)
    line = refuse(model=copied_model)
    assert "stem.bias" in line
    assert "surplus" in line


def test_weights_that_are_not_finite(refuse: Refuse, copied_model: Path) -> None:
    path = copied_model / "dit.safetensors"
    weights = load_file(path)
    weights["head.head.weight"].fill_(float("nan"))
    save_file(weights, path)
    assert "no finite numbers in chunk 0" in refuse(model=copied_model)


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"text", b"\xff" * 64])
def test_weights_that_are_no_weights(refuse: Refuse, copied_model: Path, content: bytes) -> None:
    (copied_model / "codec.safetensors").write_bytes(content)
    assert "codec.safetensors" in refuse(model=copied_model)


def test_weights_that_are_missing(refuse: Refuse, copied_model: Path) -> None:
    (copied_model / "codec.safetensors").unlink()
    assert "codec.safetensors" in refuse(model=copied_model)


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"colour": 1}, "colour"),
        ({"fps": 25.5}, "fps"),
        ({"fps": 0}, "fps"),
        ({"native_size": [64]}, "native_size"),
        ({"prediction": "noise"}, "prediction"),
        ({"dit": {"dim": 8}}, "ffn_dim"),
        ({"codec": {"kind": "jpeg"}}, "jpeg"),
        ({"speech": {"kind": "mel", "ears": 2}}, "ears"),
        ({"speech": {"kind": "mel", "mel_std": float("nan")}}, "mel_std"),
        ({"speech": {"kind": "mel", "lookahead_frames": 10**7}}, "lookahead_frames"),
        ({"speech": {"kind": "mel", "dilations": [10**9]}}, "dilations"),
        ({"speech": {"kind": "mel", "channels": 10**12}}, "config.json"),
        ({"dit": {"dim": float("nan"), "ffn_dim": 8, "num_heads": 1, "num_layers": 1}}, "dim nan"),
        ({"name": "../up"}, "name"),
        ({"dit": None}, "dit"),
    ],
)
def test_config_with_a_wrong_field(
    refuse: Refuse, copied_model: Path, change: dict[str, Any], names: str
) -> None:
    path = copied_model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    line = refuse(model=copied_model)
    assert "config.json" in line
    assert names in line


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00"])
def test_config_that_is_none(refuse: Refuse, copied_model: Path, text: str) -> None:
    (copied_model / "config.json").write_text(text)
    assert "config.json" in refuse(model=copied_model)


@pytest.mark.parametrize("arguments", [["render", "--frames", "3"], ["fly"], ["render", "--seed"]])
def test_words_that_are_no_options(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    outcome = run_viva(arguments, monkeypatch, capfd)
    assert outcome.status == 2
    assert len(outcome.stderr.splitlines()) == 1
    assert "--help" in outcome.stderr


def test_model_info_of_what_is_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    outcome = run_viva(["model", "info", str(tmp_path)], monkeypatch, capfd)
    assert outcome.status == 2
    assert len(outcome.stderr.splitlines()) == 1
