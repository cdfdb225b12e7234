"""viva render as a user meets it: files, lengths, seeds, words, interruptions."""

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import typer
from PIL import Image

from services import cli
from tests.services.conftest import RATE, noise, picture, write_wav
from tests.support import long_render
from tests.support.viva import ROOT, Outcome, run_viva

pytestmark = pytest.mark.cli

Viva = Callable[..., Outcome]
Render = Callable[..., tuple[Outcome, Path]]


@pytest.fixture
def viva(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Viva:
    return lambda *arguments: run_viva([str(a) for a in arguments], monkeypatch, capfd)


@pytest.fixture
def render(viva: Viva, tmp_path: Path, tiny_model: Path, portrait: Path, speech: Path) -> Render:
    """Render with some options changed; return the outcome and the output's path."""

    def run(*flags: object, **changes: object) -> tuple[Outcome, Path]:
        options = {
            "portrait": portrait,
            "audio": speech,
            "out": tmp_path / "video.mp4",
            "model": tiny_model,
            "crop": "center",
        } | changes
        words = [w for k, v in options.items() for w in (f"--{k.replace('_', '-')}", v)]
        return viva("render", *words, *flags), Path(str(options["out"]))

    return run


def lengths(path: Path) -> tuple[int, int, Fraction]:
    """Frames and audible samples as decoded, and the stated frame rate."""
    with av.open(str(path)) as container:
        num_frames = sum(1 for _ in container.decode(video=0))
        rate = container.streams.video[0].average_rate
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        assert stream.duration is not None
        assert stream.time_base is not None
        num_samples = round(stream.duration * stream.time_base * stream.rate)
    assert rate is not None
    return num_frames, num_samples, rate


def test_a_render_is_as_long_as_its_sound_and_says_so_in_one_line(render: Render) -> None:
    outcome, path = render()
    assert outcome.status == 0
    assert outcome.stderr == ""
    assert len(outcome.stdout.splitlines()) == 1
    assert str(path) in outcome.stdout
    assert "15 frames of 64x64 at 25 fps" in outcome.stdout
    assert lengths(path) == (15, int(0.6 * RATE), Fraction(25))
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("changes", "frames", "fps"),
    [
        ({"fps": "30000/1001"}, 18, Fraction(30000, 1001)),
        ({"fps": "12.5"}, 8, Fraction(25, 2)),
        ({"max_seconds": "0.2"}, 5, Fraction(25)),
        ({"max_seconds": "0.21"}, 6, Fraction(25)),
        ({"max_seconds": "100"}, 15, Fraction(25)),
        ({"size": "96x64"}, 15, Fraction(25)),
        ({"plan": "pocket-2step"}, 15, Fraction(25)),
        ({"plan": "live-avatar"}, 15, Fraction(25)),
    ],
)
def test_rates_limits_sizes_and_plans(
    render: Render, changes: dict[str, str], frames: int, fps: Fraction
) -> None:
    outcome, path = render("--json", **changes)
    assert outcome.status == 0, outcome.stderr
    summary = json.loads(outcome.stdout)
    num_frames, num_samples, rate = lengths(path)
    assert (num_frames, rate) == (frames, fps)
    assert abs(Fraction(num_samples, RATE) - num_frames / fps) < 1 / fps
    assert (summary["num_frames"], summary["num_samples"]) == (frames, num_samples)
    assert Fraction(summary["fps"]) == fps


def test_json_is_one_object_with_these_fields(render: Render) -> None:
    outcome, path = render("--json", seed=7)
    assert outcome.stderr == ""
    summary = json.loads(outcome.stdout)
    assert list(summary) == [
        "out",
        "model",
        "plan",
        "seed",
        "width",
        "height",
        "fps",
        "num_frames",
        "num_samples",
        "sample_rate",
        "video_s",
        "load_s",
        "wall_s",
        "real_time_factor",
    ]
    assert (summary["out"], summary["model"], summary["seed"]) == (str(path), "tiny", 7)


def test_quiet_says_nothing(render: Render) -> None:
    outcome, path = render("--quiet")
    assert (outcome.status, outcome.stdout, outcome.stderr) == (0, "", "")
    assert path.is_file()


def test_the_same_seed_gives_the_same_file_and_another_seed_another(
    render: Render, tmp_path: Path
) -> None:
    contents = [
        render(out=tmp_path / name, seed=seed)[1].read_bytes()
        for name, seed in (("a.mp4", 1), ("b.mp4", 1), ("c.mp4", 2))
    ]
    assert contents[0] == contents[1]
    assert contents[0] != contents[2]


def test_overwrite_replaces_only_when_told(render: Render) -> None:
    first, path = render(seed=1)
    kept = path.read_bytes()
    assert first.status == 0
    assert render(seed=2)[0].status == 2
    assert path.read_bytes() == kept
    assert render("--overwrite", seed=2)[0].status == 0
    assert path.read_bytes() != kept


def test_a_render_that_fails_keeps_what_it_was_to_overwrite(render: Render, tmp_path: Path) -> None:
    _, path = render()
    kept = path.read_bytes()
    broken = write_wav(tmp_path / "cut.wav", noise(2.0))
    os.truncate(broken, broken.stat().st_size // 2)
    assert render("--overwrite", audio=broken)[0].status == 2
    assert path.read_bytes() == kept


def test_silence_is_sound_like_any_other(render: Render, tmp_path: Path) -> None:
    silent = write_wav(tmp_path / "silent.wav", np.zeros(RATE // 2))
    outcome, path = render(audio=silent)
    assert outcome.status == 0
    assert lengths(path)[:2] == (13, RATE // 2)


def test_a_cmyk_portrait_is_a_portrait(render: Render, tmp_path: Path) -> None:
    picture().convert("CMYK").save(tmp_path / "print.jpg")
    assert render(portrait=tmp_path / "print.jpg")[0].status == 0


def test_a_turned_transparent_portrait_is_a_portrait(render: Render, tmp_path: Path) -> None:
    image = picture(96, 128).convert("RGBA")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    assert render(portrait=tmp_path / "turned.png")[0].status == 0


def test_sound_at_a_rate_that_mp4_lacks_is_resampled(render: Render, tmp_path: Path) -> None:
    odd = write_wav(tmp_path / "odd.wav", noise(0.5), rate=10000)
    outcome, path = render("--json", audio=odd)
    assert outcome.status == 0, outcome.stderr
    seconds = len(noise(0.5)) / 10000
    num_frames, num_samples, _ = lengths(path)
    assert num_samples == round(seconds * 48000)
    assert num_frames == -(-seconds * 25 // 1)


def test_the_sound_is_the_sound_that_went_in(render: Render, tmp_path: Path) -> None:
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    _, path = render(audio=write_wav(tmp_path / "tone.wav", tone))
    with av.open(str(path)) as container:
        decoded = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])
    spectrum = np.abs(np.fft.rfft(decoded[:RATE] * np.hanning(RATE)))
    assert abs(int(spectrum.argmax()) - 440) <= 1


def test_the_progress_bar_speaks_of_frames_rate_and_time(capfd: pytest.CaptureFixture[str]) -> None:
    from services.progress import describe_rates, progress_bar

    ticks = iter([0.0, 0.0, 2.0])
    with progress_bar("video.mp4", clock=lambda: next(ticks)) as show:
        show(0, 100, Fraction(25))
        show(60, 100, Fraction(25))
    said = capfd.readouterr()
    assert said.out == ""
    assert describe_rates(60, 2.0, Fraction(25)) == "30.0 fps  x1.20 real time"
    assert describe_rates(0, 2.0, Fraction(25)) == "starting"


def start_long_render(
    tmp_path: Path, tiny_model: Path, portrait: Path, preexec_fn: Callable[[], None] | None = None
) -> tuple["subprocess.Popen[str]", Path]:
    sound, out = write_wav(tmp_path / "long.wav", noise(120.0)), tmp_path / "out" / "video.mp4"
    started = long_render.start_long_render(out, tiny_model, portrait, sound, preexec_fn=preexec_fn)
    return started, out


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "term"]
)
def test_an_interrupted_render_leaves_nothing(
    tmp_path: Path, tiny_model: Path, portrait: Path, number: signal.Signals, status: int
) -> None:
    process, out = start_long_render(tmp_path, tiny_model, portrait)
    long_render.wait_for_partial(process, out.parent)
    process.send_signal(number)
    said, complained = process.communicate(timeout=60)
    assert process.returncode == status
    assert said == ""
    assert "Traceback" not in complained
    assert len(complained.splitlines()) <= 1
    assert list(out.parent.iterdir()) == []


def test_a_full_disk_is_one_line_and_leaves_nothing(
    tmp_path: Path, tiny_model: Path, portrait: Path
) -> None:
    def limit_file_size() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    process, out = start_long_render(tmp_path, tiny_model, portrait, preexec_fn=limit_file_size)
    said, complained = process.communicate(timeout=200)
    assert process.returncode == 2, complained
    assert said == ""
    assert len(complained.splitlines()) == 1, complained
    assert "video.mp4" in complained
    assert "free space" in complained
    assert list(out.parent.iterdir()) == []


def test_help_answers_without_loading_the_heavy_parts() -> None:
    program = (
        "import sys; sys.argv = ['viva', '--help']\n"
        "import services.cli\n"
        "try: services.cli.main()\n"
        "except SystemExit as left: assert not left.code\n"
        "heavy = {'torch', 'av', 'numpy', 'librosa', 'pydantic', 'PIL', 'cv2'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], check=False, cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(("given", "used"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_openmp_does_not_spin_unless_told(
    viva: Viva, monkeypatch: pytest.MonkeyPatch, given: str | None, used: str
) -> None:
    """The test above shows that torch, which reads the variable, is imported later."""
    monkeypatch.setenv("OMP_WAIT_POLICY", given or "")
    if given is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    viva("--help")
    assert os.environ["OMP_WAIT_POLICY"] == used


def test_a_result_that_cannot_be_printed_is_one_line(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        outcome = run_viva(["model", "info", str(tiny_model)], monkeypatch, capfd)
    assert outcome.status == 1
    assert outcome.stderr == "viva: the result cannot be printed: No space left on device\n"


def test_names_are_printed_so_that_they_cannot_steer_the_terminal(
    render: Render, tmp_path: Path
) -> None:
    outcome, path = render(out=tmp_path / "a\x1b[31m\udcff.mp4")
    assert outcome.status == 0, outcome.stderr
    assert path.is_file()
    assert r"a\x1b[31m\udcff.mp4" in outcome.stdout


@pytest.mark.parametrize(
    "words", [[], ["render"], ["model"], ["model", "info"], ["eval"], ["eval", "long"]]
)
def test_every_command_has_help(viva: Viva, words: list[str]) -> None:
    outcome = viva(*words, "--help")
    assert outcome.status == 0
    assert "Usage" in outcome.stdout


def test_the_set_of_options_is_frozen() -> None:
    command = typer.main.get_command(cli.app)
    found = {
        name: sorted(opt for p in sub.params for opt in p.opts if opt.startswith("--"))
        for name, sub in command.commands.items()  # type: ignore[attr-defined]  # a group
    }
    assert found["render"] == [
        "--audio",
        "--chain",
        "--crop",
        "--devices",
        "--fps",
        "--frame",
        "--json",
        "--max-seconds",
        "--mode",
        "--model",
        "--out",
        "--overwrite",
        "--plan",
        "--portrait",
        "--preview",
        "--quiet",
        "--ray-address",
        "--seed",
        "--size",
        "--spares",
        "--stages",
        "--stats",
        "--strategy",
        "--trace",
    ]
    assert sorted(found) == [
        "chain",
        "data",
        "eval",
        "jobs",
        "model",
        "plan",
        "render",
        "serve",
        "train",
    ]


def test_model_info_counts_what_is_there(viva: Viva, tiny_model: Path) -> None:
    outcome = viva("model", "info", tiny_model, "--json")
    assert outcome.status == 0
    info = json.loads(outcome.stdout)
    assert (info["name"], info["fps"], info["codec"], info["has_card"]) == (
        "tiny",
        "25",
        "wan",
        True,
    )
    files = {p.stem: p.stat().st_size for p in tiny_model.glob("*.safetensors")}
    assert {part["name"]: part["num_bytes"] for part in info["parts"]} == files
    assert info["num_parameters"] == sum(part["num_parameters"] for part in info["parts"])
    spoken = viva("model", "info", tiny_model).stdout
    assert "64x64 at 25 fps" in spoken
