"""`viva eval`: measures what a model must reach, on held-out clips, recordings and long streams.

Every command prints JSON: one object with the figures and, under `missed`, those outside their
gates (`pipeline/gates.py`); exit status 0 whatever they are, so that a run always leaves figures.
"""

import importlib
import importlib.util
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.options import (
    PORTRAIT_HELP,
    OptionError,
    parse_crop_option,
    parse_portrait,
    parse_seconds,
    parse_seed,
    require_path,
)
from services.terminal import printable

if TYPE_CHECKING:
    from services.eval_recording import EvalRequest
    from services.render import Progress

MAX_MINUTES = 24 * 60
PASS_ON = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "help_option_names": [],
}

eval_app = typer.Typer(help="Measure a model.", no_args_is_help=True)


def _option(name: str, metavar: str, text: str) -> object:
    """An option whose value is parsed by us, so that errors are ours."""
    return typer.Option(f"--{name}", metavar=metavar, help=text, show_default=False)


Portrait = Annotated[str, _option("portrait", "FILE|NAME", PORTRAIT_HELP)]
Model = Annotated[str, _option("model", "NAME|DIR", "Model. (default: pocket)")]
Plan = Annotated[str, _option("plan", "NAME|FILE", "Plan. (default: the model's)")]
Seed = Annotated[str, _option("seed", "N", "Seed of noise and behaviour. (default: 0)")]
CropBox = Annotated[
    str, _option("crop", "auto|center|none|x,y,w,h", "Where the face is. (default: auto)")
]
Report = Annotated[str, _option("report", "FILE.html", "Write tables, plots and pictures.")]


def _unseen(done: int, total: int | None, fps: Fraction) -> None:
    """Progress that nobody looks at."""


@contextmanager
def _progress(name: str, quiet: bool) -> "Iterator[Progress]":
    """A progress bar where somebody looks at a terminal."""
    if quiet or not sys.stderr.isatty():
        yield _unseen
        return
    from services.progress import progress_bar

    with progress_bar(printable(name)) as show:
        yield show


@eval_app.command("codec", context_settings=PASS_ON)
def codec(context: typer.Context) -> None:
    """Decode exact motion of held-out clips: opening, lids, paint, sharpness."""
    _run_training_program("codec", context.args)


@eval_app.command("speech", context_settings=PASS_ON)
def speech(context: typer.Context) -> None:
    """Generate held-out clips from sound alone: sync, lag, amplitude, closures."""
    _run_training_program("speech", context.args)


@eval_app.command("recording")
def recording(
    portrait: Portrait = "",
    audio: Annotated[str, _option("audio", "FILE", "Recorded speech.")] = "",
    model: Model = "pocket",
    plan: Plan = "",
    seed: Seed = "0",
    crop: CropBox = "auto",
    max_seconds: Annotated[str, _option("max-seconds", "S", "Of sound. (default: 120)")] = "120",
) -> None:
    """Hold a generated mouth against the loudness of a recorded voice."""
    from pipeline.gates import missed
    from services.eval_recording import measure_recording

    request = _request(portrait, audio, model, plan, seed, crop, parse_seconds(max_seconds))
    figures = measure_recording(request)
    _print_json(_header("recording", request) | figures | {"missed": missed("recording", figures)})


@eval_app.command("video")
def video(  # noqa: PLR0913 - one parameter per option
    file: Annotated[str, typer.Argument(metavar="FILE", help="Any video of a face.")],
    audio: Annotated[str, _option("audio", "FILE", "Its sound. (default: its own)")] = "",
    reference: Annotated[
        str, _option("reference", "FILE", "The same without what is judged: PSNR, SSIM.")
    ] = "",
    truth: Annotated[
        str, _option("truth", "FILE", "True opening at each frame, JSON or NPZ.")
    ] = "",
    portrait: Annotated[str, _option("portrait", "FILE|NAME", "Whose face it should be.")] = "",
    model: Model = "pocket",
    crop: CropBox = "auto",
    report: Report = "",
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress.")] = False,
) -> None:
    """Measure any video: lip sync, identity, colour, flicker, sharpness; JSON and a report."""
    from services.eval_video import VideoRequest, measure_video
    from services.report_page import report_path, write_report
    from services.video_report import video_report

    request = VideoRequest(
        video=require_path("FILE", file, "talking.mp4"),
        audio=require_path("--audio", audio, "speech.wav") if audio else None,
        reference=require_path("--reference", reference, "full.mp4") if reference else None,
        truth=require_path("--truth", truth, "truth.json") if truth else None,
        portrait=parse_portrait(portrait, model) if portrait else None,
        crop=parse_crop_option(crop),
    )
    page = report_path(report, request.video, request.audio, request.reference, request.truth)
    with _progress(request.video.name, quiet) as show:
        result = measure_video(request, show)
    if page is not None:
        write_report(page, video_report(result))
    header = {"eval": "video", "video": request.video.name, "face": result.face}
    sizes = {"frames": result.watch.num_frames, "fps": float(result.movie.fps)}
    _print_json(header | sizes | result.figures | {"missed": result.missed})


@eval_app.command("clips", context_settings=PASS_ON)
def clips(context: typer.Context) -> None:
    """Render held-out clips by several plans: sync with the truth, likeness, cost; a report."""
    _run_training_program("clips", context.args)


@eval_app.command("long")
def long(  # noqa: PLR0913 - one parameter per option
    portrait: Portrait = "",
    audio: Annotated[str, _option("audio", "FILE", "Speech. (default: the model's)")] = "",
    minutes: Annotated[int, typer.Option("--minutes", metavar="N", min=1, max=MAX_MINUTES)] = 10,
    every: Annotated[
        int,
        typer.Option(
            "--every",
            metavar="N",
            min=1,
            max=MAX_MINUTES,
            help="Decode pictures only in minutes 1 and 2, every N-th and the last.",
        ),
    ] = 1,
    no_sink: Annotated[
        bool, typer.Option("--no-sink", help="Hide the reference from the network.")
    ] = False,
    sheet: Annotated[str, _option("sheet", "FILE", "Write a contact sheet (PNG).")] = "",
    report: Report = "",
    model: Model = "pocket",
    plan: Plan = "",
    seed: Seed = "0",
    crop: CropBox = "auto",
) -> None:
    """Stream minutes or hours of speech: drift, blinks, pops, memory, speed; a line a minute."""
    from pipeline.catalog import model_path
    from pipeline.gates import missed
    from services.eval_long import LongRequest, measure_long
    from services.long_report import long_report
    from services.report_page import report_path, write_report

    audio = audio or str(model_path(model) / "speech.flac")
    source = _request(portrait, audio, model, plan, seed, crop, Fraction(60 * minutes))
    request = LongRequest(source=source, minutes=minutes, every=every, sink=not no_sink)
    page = report_path(report, source.portrait, source.audio)
    figures, rows = measure_long(request, Path(sheet) if sheet else None, _print_json)
    if page is not None:
        write_report(page, long_report(request, figures, rows))
    kinds = ("long", "hours") if minutes > 2 else ("long",)
    header = _header("long", source) | {"every": every, "sink": not no_sink}
    failed = [name for kind in kinds for name in missed(kind, figures)]
    _print_json(header | figures | {"missed": failed})


def _request(
    portrait: str, audio: str, model: str, plan: str, seed: str, crop: str, limit: Fraction
) -> "EvalRequest":
    """What was written on the command line."""
    from services.eval_recording import EvalRequest

    return EvalRequest(
        portrait=parse_portrait(portrait, model),
        audio=require_path("--audio", audio, "speech.wav"),
        model=model,
        plan=plan or None,
        seed=parse_seed(seed),
        crop=parse_crop_option(crop),
        max_seconds=limit,
    )


def _header(kind: str, request: "EvalRequest") -> dict[str, object]:
    """What was measured, without the folders it lies in."""
    names = {"portrait": request.portrait.name, "audio": request.audio.name}
    return {"eval": kind, "model": request.model, "seed": request.seed, **names}


def _print_json(record: object) -> None:
    """One object on a line of its own, at once."""
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()


def _run_training_program(name: str, arguments: list[str]) -> None:
    """Run `training.eval_<name>` by name: the packages never import `training`.

    Raises:
        OptionError: there is no training code here, or the clips cannot be used.
    """
    if importlib.util.find_spec("training") is None:
        raise OptionError(
            f"viva eval {name} needs the folder `training`, which this install lacks: "
            "use a clone of the repository"
        )
    sys.argv = [f"viva eval {name}", *arguments]
    importlib.import_module(f"training.eval_{name}").main()
