"""`viva render --chain`: where the stages run does not change a byte, and nothing stays behind."""

import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import av
import numpy as np
import pytest
import torch

from tests.support.viva import Outcome, run_viva

pytestmark = pytest.mark.cli

RAY = ("--chain", "ray")


def render(
    tmp_path: Path,
    inputs: tuple[Path, Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    *words: str,
) -> tuple[Outcome, Path]:
    model, portrait, speech = inputs
    out = tmp_path / f"{''.join(filter(str.isalnum, ''.join(words))) or 'plain'}.mp4"
    arguments = ["render", "--model", str(model), "--portrait", str(portrait)]
    arguments += ["--audio", str(speech), "--out", str(out), "--quiet", "--crop", "center", *words]
    return run_viva(arguments, monkeypatch, capfd), out


def decoded(path: Path) -> np.ndarray:
    with av.open(str(path)) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])


@pytest.fixture
def inputs(tiny_model: Path, portrait: Path, speech: Path) -> tuple[Path, Path, Path]:
    return tiny_model, portrait, speech


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As many as an actor has here: sums over more threads round otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.ray
@pytest.mark.usefixtures("one_thread")
def test_stages_in_ray_actors_give_the_frames_of_one_process(
    tmp_path: Path,
    inputs: tuple[Path, Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("ray")
    local, here = render(tmp_path, inputs, monkeypatch, capfd)
    assert local.status == 0, local.stderr
    spread, there = render(tmp_path, inputs, monkeypatch, capfd, "--chain", "ray", "--stages", "2")
    assert (spread.status, spread.stdout, spread.stderr) == (0, "", "")
    assert len(decoded(here)) == 15
    assert np.array_equal(decoded(here), decoded(there))


@pytest.mark.ray
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("plan", ["live-hinge", "render-fast"])
def test_a_hinge_and_windows_with_forecasts_are_the_same_in_ray_actors(
    tmp_path: Path,
    inputs: tuple[Path, Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    plan: str,
) -> None:
    pytest.importorskip("ray")
    words = ("--plan", plan, "--stages", "2")
    local, here = render(tmp_path, inputs, monkeypatch, capfd, *words)
    assert local.status == 0, local.stderr
    spread, there = render(tmp_path, inputs, monkeypatch, capfd, *words, "--chain", "ray")
    assert (spread.status, spread.stdout, spread.stderr) == (0, "", "")
    assert len(decoded(here)) == 15
    assert np.array_equal(decoded(here), decoded(there))


def test_cutting_the_steps_in_one_process_changes_nothing(
    tmp_path: Path,
    inputs: tuple[Path, Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (_, whole), (cut, parts) = (
        render(tmp_path, inputs, monkeypatch, capfd, *words) for words in ((), ("--stages", "3"))
    )
    assert cut.status == 0, cut.stderr
    assert np.array_equal(decoded(whole), decoded(parts))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--stages", "5"), "plan pocket has 4 steps, which cannot be cut into 5 stages"),
        (("--stages", "0"), "--stages '0'"),
        (("--stages", "two"), "--stages 'two'"),
        (("--chain", "spark"), "--chain 'spark' is not understood: use local, ray"),
        (("--spares", "1"), "--spares is for stages in processes of their own: add --chain ray"),
        (("--devices", "cpu:2"), "--devices is for stages in processes of their own"),
        ((*RAY, "--spares", "17"), "--spares '17' is not understood: write an integer 0..16"),
        ((*RAY, "--strategy", "wide"), "--strategy 'wide' is not understood: use pack, spread"),
        ((*RAY, "--devices", "tpu:2"), "--devices 'tpu:2' is not understood"),
        ((*RAY, "--devices", "cpu:9999"), "--devices 'cpu:9999' is out of range"),
        ((*RAY, "--devices", "cpu:1 / cpu:1"), "describes 2 nodes, this machine is one"),
        ((*RAY, "--devices", "cpu:1:1MiB"), "0.9 MiB usable"),
        ((*RAY, "--stages", "5"), "plan pocket has 4 steps, which cannot be cut into 5 stages"),
        ((*RAY, "--ray-address", "nowhere"), "--ray-address 'nowhere' is not understood"),
        ((*RAY, "--ray-address", "127.0.0.1:1"), "127.0.0.1:1 cannot be reached (Connection ref"),
    ],
)
def test_chains_that_cannot_be_are_refused_in_one_line(
    tmp_path: Path,
    inputs: tuple[Path, Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    says: str,
) -> None:
    if "ray" in words:
        pytest.importorskip("ray")
    outcome, out = render(tmp_path, inputs, monkeypatch, capfd, *words)
    assert outcome.status == 2
    assert says in outcome.stderr
    assert outcome.stderr.count("\n") == 1
    assert not out.exists()


def test_without_ray_one_line_says_how_to_get_it(
    tmp_path: Path,
    inputs: tuple[Path, Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with mock.patch.dict(sys.modules, {"ray": None}):
        sys.modules.pop("pipeline.supervisor", None)
        outcome, _ = render(tmp_path, inputs, monkeypatch, capfd, "--chain", "ray")
    assert outcome.status == 2
    assert outcome.stderr == (
        "viva: --chain ray needs the package ray, which is not installed: pip install "
        "'viva-voce[ray]', or use --chain local\n"
    )
