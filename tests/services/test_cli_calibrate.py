"""`viva model calibrate` as a user runs it, and what it refuses."""

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.calibration import Calibration, LevelLikeness
from services.calibrate import describe
from services.calibration_plot import calibration_plot
from tests.support.viva import run_viva

pytestmark = pytest.mark.cli

LEVELS = tuple(
    LevelLikeness(sigma=s / 4, motion=1 - s / 10, flow=0.9, detail=1 - s / 5, face=0.9)
    for s in range(1, 5)
)


def arguments(model: Path, portrait: Path, speech: Path, changes: dict[str, object]) -> list[str]:
    options: dict[str, object] = {
        "portrait": portrait, "audio": speech, "crop": "center", "levels": 2, "seeds": 1,
        "max-seconds": "0.5", "model": model,
    } | changes  # fmt: skip
    words = ["model", "calibrate", str(options.pop("model"))]
    for name, value in options.items():
        words += [f"--{name}", str(value)] if value is not None else []
    return words


def test_a_curve_is_written_drawn_and_told(
    tiny_model: Path,
    portrait: Path,
    speech: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "curve.json"
    words = arguments(tiny_model, portrait, speech, {"out": out})
    outcome = run_viva(words, monkeypatch, capfd)
    assert outcome.status == 0, outcome
    record = json.loads(out.read_text())
    assert [level["sigma"] for level in record["levels"]] == [0.5, 1.0]
    assert all(-1 <= level["motion"] <= 1 for level in record["levels"])
    assert outcome.stdout.startswith("t_mid: ")
    assert str(tmp_path) not in out.read_text()
    ElementTree.parse(out.with_suffix(".svg"))  # noqa: S314 - our own file
    assert sorted(file.name for file in tmp_path.iterdir()) == ["curve.json", "curve.svg"]
    again = run_viva(words, monkeypatch, capfd)
    assert again.status == 2
    assert "curve.json exists: choose another name, or pass --overwrite" in again.stderr


BAD: dict[str, tuple[dict[str, object], str]] = {
    "seeds": ({"seeds": "0"}, "--seeds '0' is not understood: write an integer 1..64"),
    "levels": ({"levels": "many"}, "--levels 'many' is not understood"),
    "kind": ({"out": "curve.png"}, "is of no known kind: use .json, .html, .svg"),
    "folder": ({"out": "nowhere/curve.json"}, "its folder does not exist"),
    "portrait": ({"portrait": "nobody.png"}, "nobody.png"),
    "audio": ({"audio": "silence.wav"}, "silence.wav"),
    "seconds": ({"max-seconds": "-1"}, "--max-seconds '-1' is not understood"),
    "plan": ({"plan": "none-such"}, "unknown plan 'none-such'"),
    "model": ({"model": "none-such"}, "unknown model 'none-such'"),
    "crop": ({"crop": "left"}, "--crop"),
    "no portrait": ({"portrait": None}, "--portrait is missing and the model has no cast"),
    "no audio": ({"audio": None}, "--audio is missing"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_one_line(
    case: str,
    tiny_model: Path,
    portrait: Path,
    speech: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    changes, message = BAD[case]
    if "out" in changes:
        changes = {"out": tmp_path / str(changes["out"])}
    outcome = run_viva(arguments(tiny_model, portrait, speech, changes), monkeypatch, capfd)
    assert outcome.status == 2, outcome
    assert outcome.stdout == ""
    assert message in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_an_input_is_not_replaced(
    tiny_model: Path,
    portrait: Path,
    speech: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    sound = tmp_path / "speech.svg"
    sound.write_bytes(speech.read_bytes())
    words = [*arguments(tiny_model, portrait, sound, {"out": sound}), "--overwrite"]
    outcome = run_viva(words, monkeypatch, capfd)
    assert outcome.status == 2
    assert "would replace an input" in outcome.stderr
    assert sound.read_bytes() == speech.read_bytes()


def test_the_drawing_shows_every_curve_and_the_level() -> None:
    drawn = calibration_plot(Calibration(levels=LEVELS, t_mid=0.25, num_clips=1))
    root = ElementTree.fromstring(drawn)  # noqa: S314 - our own text
    words = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"motion", "detail", "flow", "face", "t_mid 0.25"} <= set(words)
    assert len(list(root.iter("{http://www.w3.org/2000/svg}circle"))) == 4 * len(LEVELS)
    bare = tuple(replace(each, face=None) for each in LEVELS)
    text = calibration_plot(Calibration(levels=bare, t_mid=None, num_clips=1))
    assert "face" not in text
    assert "t_mid" not in text


def test_a_model_whose_motion_is_never_settled_says_so() -> None:
    record = Calibration(levels=LEVELS[2:], t_mid=None, num_clips=1).as_record()
    assert describe(record, ()) == "t_mid: none, motion changes already from level 0.75"
