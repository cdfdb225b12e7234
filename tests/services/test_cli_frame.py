"""viva render --frame: the face alone or the whole picture, as a user meets it."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tests.services.conftest import picture
from tests.support.viva import Outcome, run_viva

pytestmark = pytest.mark.cli

Render = Callable[..., Outcome]


@pytest.fixture
def render(
    tmp_path: Path,
    tiny_model: Path,
    speech: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Render:
    """Render a picture of 201x120 smooth pixels with options added."""
    still = picture(12, 8).resize((201, 120), Image.Resampling.BICUBIC)
    still.save(tmp_path / "still.png")

    def run(**options: object) -> Outcome:
        given = {
            "portrait": tmp_path / "still.png",
            "audio": speech,
            "out": tmp_path / "video.mp4",
            "model": tiny_model,
        } | options
        words = [str(w) for k, v in given.items() for w in (f"--{k}", v)]
        return run_viva(["render", *words], monkeypatch, capfd)

    return run


def frames(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def test_the_whole_picture_is_shown_and_stands_still_around_the_face(
    render: Render, tmp_path: Path
) -> None:
    outcome = render(frame="portrait", crop="120,20,64,64")
    assert outcome.status == 0, outcome.stderr
    assert "15 frames of 200x120" in outcome.stdout
    shown = frames(tmp_path / "video.mp4").astype(int)
    source = np.asarray(Image.open(tmp_path / "still.png"))[:, :200].astype(int)
    off = np.abs(shown - source).mean(axis=-1)
    assert off[:, :, :104].mean() < 4, "H.264 and its colours are all that changes"
    assert off[:, 40:64, 140:164].mean() > 8, "what the random model paints is there"


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"crop": "120,20,64,64"}, "64x64"),
        ({"crop": "120,20,64,64", "frame": "face"}, "64x64"),
        ({"crop": "120,20,64,64", "frame": "Portrait", "size": "100x100"}, "100x100"),
        ({"crop": "center", "frame": "portrait"}, "200x120"),
        ({"crop": "none", "frame": "portrait"}, "200x120"),
    ],
)
def test_frame_and_crop_together(render: Render, options: dict[str, str], size: str) -> None:
    outcome = render(**options)
    assert outcome.status == 0, outcome.stderr
    assert f"frames of {size} " in outcome.stdout


def test_unusable_words_and_faceless_pictures_are_one_line(render: Render, tmp_path: Path) -> None:
    for options, message in (
        ({"frame": "whole"}, "--frame 'whole' is not understood: use auto, face, portrait"),
        ({"frame": "portrait"}, "no face found: use --crop center"),
    ):
        outcome = render(**options)
        assert outcome.status == 2
        assert message in outcome.stderr
        assert len(outcome.stderr.splitlines()) == 1
        assert not (tmp_path / "video.mp4").exists()
