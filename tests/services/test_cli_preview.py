"""viva render --preview: a small video of the right length, or one line that says why not."""

from collections.abc import Callable
from pathlib import Path

import av
import pytest

from tests.support.viva import Outcome, run_viva

pytestmark = pytest.mark.cli

Preview = Callable[..., tuple[Outcome, Path]]


@pytest.fixture
def preview(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    tiny_model: Path,
    portrait: Path,
    speech: Path,
) -> Preview:
    """Preview with options; return the outcome and the output's path."""

    def run(*words: object) -> tuple[Outcome, Path]:
        out = tmp_path / "small.mp4"
        given = ["--portrait", portrait, "--audio", speech, "--out", out, "--model", tiny_model]
        return run_viva(["render", *map(str, [*given, *words])], monkeypatch, capfd), out

    return run


def test_a_model_of_pixels_is_shown_small_and_whole_in_length(preview: Preview) -> None:
    outcome, out = preview("--preview", "1", "--crop", "center", "--stats")
    assert outcome.status == 0, outcome.stderr
    assert "1-preview" in outcome.stdout
    with av.open(str(out)) as container:
        pictures = list(container.decode(video=0))
    assert {(frame.width, frame.height) for frame in pictures} == {(64, 64)}
    assert f"{len(pictures)} frames of 64x64" in outcome.stdout


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--preview", "4", "--crop", "center"), "plan pocket has steps 0 to 3"),
        (("--preview", "-1"), "write the number of a step"),
        (("--preview", "half"), "write the number of a step"),
        (("--preview", "0", "--chain", "ray"), "leave --chain, --stages out"),
        (("--preview", "0", "--stages", "2"), "leave --chain, --stages out"),
        (("--preview", "0", "--frame", "portrait"), "the face alone"),
    ],
)
def test_what_cannot_be_previewed_is_refused(
    preview: Preview, words: tuple[str, ...], complaint: str
) -> None:
    outcome, out = preview(*words)
    assert outcome.status == 2
    assert complaint in outcome.stderr
    assert outcome.stderr.count("\n") == 1
    assert not out.exists()
