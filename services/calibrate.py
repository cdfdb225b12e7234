"""`viva model calibrate`: at which noise level a model's motion is settled, as a curve."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.options import (
    PORTRAIT_HELP,
    OptionError,
    parse_crop_option,
    parse_portrait,
    parse_seconds,
    require_path,
)
from services.terminal import printable, write
from video.crop import Crop

if TYPE_CHECKING:
    from audio.chunk import AudioChunk
    from pipeline.calibration import Calibration

MAX_SEEDS, MAX_LEVELS = 64, 200
SUFFIXES = (".json", ".html", ".svg")
OnDone = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationRequest:
    """What to calibrate on; `plan` None is the model's own, `num_seeds` clips are made."""

    model: str
    portrait: Path
    audio: Path
    plan: str | None = None
    num_seeds: int = 2
    num_levels: int = 20
    crop: Crop
    max_seconds: Fraction = Fraction(4)


def _option(name: str, metavar: str, text: str) -> object:
    """An option whose value is parsed by us, so that errors are ours."""
    return typer.Option(f"--{name}", metavar=metavar, help=text, show_default=False)


def calibrate(  # noqa: PLR0913 - one parameter per option
    model: Annotated[str, typer.Argument(metavar="NAME|DIR", help="A model, or its folder.")],
    portrait: Annotated[
        str, _option("portrait", "FILE|NAME", f"{PORTRAIT_HELP} (default: the first of the cast)")
    ] = "",
    audio: Annotated[str, _option("audio", "FILE", "Speech. (default: the model's)")] = "",
    plan: Annotated[str, _option("plan", "NAME|FILE", "Plan. (default: the model's)")] = "",
    seeds: Annotated[str, _option("seeds", "N", "Clips to make. (default: 2)")] = "2",
    levels: Annotated[str, _option("levels", "N", "Levels from 0 to 1. (default: 20)")] = "20",
    crop: Annotated[
        str, _option("crop", "auto|center|none|x,y,w,h", "Where the face is. (default: auto)")
    ] = "auto",
    max_seconds: Annotated[str, _option("max-seconds", "S", "Of sound. (default: 4)")] = "4",
    out: Annotated[
        str, _option("out", "FILE", "Write the curve: .json (and .svg beside), .html or .svg.")
    ] = "",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the output if it exists.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Find the noise level at which motion is settled: where segment adapters change."""
    request = CalibrationRequest(
        model=model,
        portrait=parse_portrait(portrait or first_of_cast(model), model),
        audio=require_path("--audio", audio or own_speech(model), "speech.wav"),
        plan=plan or None,
        num_seeds=parse_count("--seeds", seeds, MAX_SEEDS),
        num_levels=parse_count("--levels", levels, MAX_LEVELS),
        crop=parse_crop_option(crop),
        max_seconds=parse_seconds(max_seconds),
    )
    outputs = output_paths(out, request, overwrite=overwrite) if out else ()
    with _progress() as on_done:
        calibration = run_calibration(request, on_done)
    record = _header(request) | calibration.as_record()
    for path in outputs:
        write_output(path, record, calibration)
    write((json.dumps(record) if as_json else describe(record, outputs)) + "\n")


def run_calibration(request: CalibrationRequest, on_done: OnDone) -> "Calibration":
    """Measure the curve; `on_done` is told of clips finished, and of how many.

    Raises:
        AudioError, ImageError, ModelError, PlanError, WeightsError: an input cannot be used.
    """
    from audio.source import FileSource
    from pipeline.calibration import (
        Calibration,
        Calibrator,
        level_grid,
        mean_likeness,
        settled_level,
    )
    from pipeline.model import load_model
    from pipeline.plan_parse import load_plan
    from video.reference import load_portrait

    source = FileSource(request.audio)
    model = load_model(request.model)
    calibrator = Calibrator(model, load_plan(request.plan or model.config.plan))
    picture = load_portrait(request.portrait, size=model.config.native_size, crop=request.crop)
    sound, grid = heard(source, request.max_seconds), level_grid(request.num_levels)
    measured: dict[float, list[Any]] = {sigma: [] for sigma in grid}
    total = request.num_seeds * (1 + len(grid))
    for seed in range(request.num_seeds):
        clip = calibrator.make(picture.image_CHW[None], sound, rate=source.sample_rate, seed=seed)
        for place, sigma in enumerate(grid):
            on_done(seed * (1 + len(grid)) + 1 + place, total)
            other = calibrator.remake(clip, sigma)
            measured[sigma].append(calibrator.compare(clip, other, sigma))
    means = tuple(mean_likeness(measured[sigma]) for sigma in grid)
    return Calibration(levels=means, t_mid=settled_level(means), num_clips=request.num_seeds)


def heard(source: Any, max_seconds: Fraction) -> "list[AudioChunk]":
    """The sound up to the limit.

    Raises:
        AudioError: it cannot be read.
    """
    from audio.chunk import AudioChunk
    from audio.errors import AudioError

    end = max(1, int(max_seconds * source.sample_rate))
    kept = []
    for chunk in source.chunks():
        if chunk.pts >= end:
            break
        samples_T = chunk.samples_T[: end - chunk.pts]
        kept.append(AudioChunk(samples_T=samples_T, sample_rate=chunk.sample_rate, pts=chunk.pts))
    if not kept:
        raise AudioError("there is no sound in it: give a file with speech")
    return kept


def first_of_cast(model: str) -> str:
    """The name of the first portrait that comes with a model.

    Raises:
        ModelError: the cast cannot be read.
        OptionError: there is none.
    """
    from pipeline.cast import read_cast
    from pipeline.catalog import model_path

    for member in read_cast(model_path(model)):
        return member.name
    raise OptionError("--portrait is missing and the model has no cast: name a file")


def own_speech(model: str) -> str:
    """The speech that comes with a model, empty if none does."""
    from pipeline.catalog import model_path

    path = model_path(model) / "speech.flac"
    return str(path) if path.is_file() else ""


def parse_count(option: str, text: str, most: int) -> int:
    """A number from 1 up."""
    word = text.strip()
    if not (word.isascii() and word.isdigit() and len(word) <= 4 and 1 <= int(word) <= most):
        raise OptionError(f"{option} {text[:40]!r} is not understood: write an integer 1..{most}")
    return int(word)


def output_paths(out: str, request: CalibrationRequest, *, overwrite: bool) -> tuple[Path, ...]:
    """The files to write, refused before anything is measured.

    Raises:
        OptionError: one line naming the path and the remedy.
    """
    path = require_path("--out", out, "curve.json")
    if path.suffix.lower() not in SUFFIXES:
        raise OptionError(f"--out {out[:80]} is of no known kind: use {', '.join(SUFFIXES)}")
    beside = (path.with_suffix(".svg"),) if path.suffix.lower() == ".json" else ()
    for each in (path, *beside):
        if not each.parent.is_dir():
            raise OptionError(f"--out {out[:80]}: its folder does not exist: create it")
        if each.resolve() in (request.portrait.resolve(), request.audio.resolve()):
            raise OptionError(f"--out {each} would replace an input: choose another")
        if each.exists() and not (overwrite and each.is_file()):
            raise OptionError(f"--out {each} exists: choose another name, or pass --overwrite")
    return (path, *beside)


def write_output(path: Path, record: dict[str, Any], calibration: "Calibration") -> None:
    """Write one file by its kind, whole or not at all.

    Raises:
        OptionError: the disk refuses it.
    """
    from services.calibration_plot import calibration_plot
    from services.report_page import Section, page

    if path.suffix.lower() == ".json":
        text = json.dumps(record, indent=1) + "\n"
    else:
        text = calibration_plot(calibration)
    if path.suffix.lower() == ".html":
        text = page("Calibration", describe(record, ()), [Section("Likeness by level", text)])
    partial = path.with_name(f".{path.name}.part")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise OptionError(f"--out {path} cannot be written ({error.strerror})") from error
    finally:
        partial.unlink(missing_ok=True)


def describe(record: dict[str, Any], outputs: tuple[Path, ...]) -> str:
    """The result in a line or two."""
    names = ", ".join(printable(str(path)) for path in outputs)
    written = f"\nwritten: {names}" if outputs else ""
    if record["t_mid"] is None:
        lowest = record["levels"][0]["sigma"]
        return f"t_mid: none, motion changes already from level {lowest:g}{written}"
    at = next(level for level in record["levels"] if level["sigma"] == record["t_mid"])
    return (
        f"t_mid: {record['t_mid']:g} (motion {at['motion']:.2f}, detail {at['detail']:.2f}; "
        f"{record['model']}, {record['portrait']}, {record['num_clips']} clips){written}"
    )


def _header(request: CalibrationRequest) -> dict[str, Any]:
    """What was measured on, without the folders it lies in."""
    return {
        "model": Path(request.model).name,
        "plan": None if request.plan is None else Path(request.plan).name,
        "portrait": request.portrait.name,
        "audio": request.audio.name,
        "seconds": float(request.max_seconds),
    }


@contextmanager
def _progress() -> Iterator[OnDone]:
    """A bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("clips", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
