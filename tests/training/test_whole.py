"""Recipes are parsed or refused; the miniature goes from nothing to a model, twice alike."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.model import load_model
from training.errors import InputError
from training.figures import judge
from training.recipe import RECIPES, load_recipe, parse_recipe, shipped_recipes
from training.renderer import RendererError
from training.steps import plan_steps

pytestmark = pytest.mark.train

ROOT = Path(__file__).resolve().parents[2]
TEXT = (RECIPES / "miniature.yaml").read_text()


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_load_and_are_named_like_their_files(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    words = [step.command[:2] for step in plan_steps(recipe, Path("w"), Path("kit"))]
    assert words[0] == ("data", "speech")
    assert words[-1] == ("train", "assemble")


@pytest.mark.parametrize(
    ("old", "new", "names"),
    [
        ("name: miniature", "name: ../up", "name"),
        ("utterances: 3", "utterances: 0", "speech.utterances"),
        ("utterances: 3", "utterances: three", "speech.utterances"),
        ("drawn: 2, held", "drawn: 0, held", "clips"),
        ("held_out_drawn: 2", "held_out_drawn: 0", "clips"),
        ("batch: 2}\ncodec", "batch: 99999}\ncodec", "encoder.batch"),
        ("core_shards: 1", "rate: .nan", "codec.rate"),
        ("core_shards: 1", "colour: red", "codec.colour"),
        ("encoder:", "decoder:", "encoder"),
        ("[10, 60]", "[10]", "bounds"),
        ("name: miniature", "name: &a miniature\nx: *a", "aliases"),
        ("name: miniature", "name: [", "YAML"),
    ],
)
def test_other_recipes_are_refused_by_field(old: str, new: str, names: str) -> None:
    assert old in TEXT
    with pytest.raises(InputError, match=names) as refused:
        parse_recipe(TEXT.replace(old, new), source="bad.yaml")
    assert "\n" not in str(refused.value)
    assert "bad.yaml" in str(refused.value)


@pytest.mark.parametrize("text", ["", "[]", "null", "7", "\x00", "a: " + "[" * 5000])
def test_texts_that_are_no_recipe(text: str) -> None:
    with pytest.raises(InputError, match=r"bad\.yaml"):
        parse_recipe(text, source="bad.yaml")


def test_bounds_are_judged_and_unknown_figures_refused() -> None:
    good, bad = judge({"a": 1.0, "b": 9.0}, {"a": (0.0, 2.0), "b": (0.0, 2.0)})
    assert good.holds
    assert not bad.holds
    with pytest.raises(InputError, match="'c' is no figure"):
        judge({"a": 1.0}, {"c": (0.0, 1.0)})


def _viva(*arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}"}
    return subprocess.run(
        [sys.executable, "-m", "training", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.timeout(1800)
def test_the_miniature_makes_the_same_model_twice(tmp_path: Path) -> None:
    pytest.importorskip("moderngl")
    _need_drawing_and_speech()
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        words = ("train", "all", "--recipe", "miniature", "--workspace", str(folder))
        if folder.name == "two":  # a slice without time does nothing, and the next goes on
            assert "time is up" in _viva(*words, "--minutes", "0").stderr
        done = _viva(*words)
        assert done.returncode == 0, done.stderr
        assert "codec.psnr_db" in done.stdout
    one, two = (sorted(folder.glob("model/*.safetensors")) for folder in folders)
    assert [path.name for path in one] == [path.name for path in two] != []
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(one, two, strict=True))
    assert load_model(str(folders[0] / "model")).name == "pocket"
    again = _viva("train", "all", "--recipe", "reduced", "--workspace", str(folders[0]))
    assert again.returncode == 2


def _need_drawing_and_speech() -> None:
    from training.drawn_renderer import DrawnRenderer
    from training.espeak import is_available

    if not is_available():
        pytest.skip("libespeak-ng is not installed")
    try:
        DrawnRenderer()
    except RendererError as error:
        pytest.skip(str(error))
