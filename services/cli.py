"""The command line `viva`.

Nothing heavy is imported before a command runs, so that `--help` answers at once.
"""

import json
import os
import signal
import sys
from dataclasses import asdict
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from audio.errors import AudioError
from pipeline.errors import ChainDown, ChainError, ModelError, PlanError
from services.calibrate import calibrate
from services.chain_commands import chain_app
from services.evaluate import eval_app
from services.job_commands import jobs_app
from services.job_queue import JobError
from services.options import (
    PORTRAIT_HELP,
    OptionError,
    RenderRequest,
    parse_chain,
    parse_crop_option,
    parse_fps,
    parse_frame,
    parse_mode,
    parse_portrait,
    parse_preview,
    parse_seconds,
    parse_seed,
    parse_size,
    require_path,
)
from services.plan_commands import plan_app
from services.serve_command import serve
from services.terminal import drawn, printable
from services.training_commands import run_training
from video.errors import ImageError, MovieError, RecordError, WeightsError

if TYPE_CHECKING:
    from services.render import RenderSummary

BAD_INPUT = (
    AudioError,
    ChainError,
    ImageError,
    JobError,
    ModelError,
    MovieError,
    OptionError,
    PlanError,
    RecordError,
    WeightsError,
)
EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

# Typer carries click under different names in different versions; its usage errors do not change.
UsageError: type[Exception] = typer.BadParameter.__bases__[0]

app = typer.Typer(
    name="viva",
    help="Make a portrait talk: speech in, video out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
model_app = typer.Typer(help="Look at models.", no_args_is_help=True)
app.add_typer(model_app, name="model")
app.add_typer(eval_app, name="eval")
app.add_typer(plan_app, name="plan")
app.add_typer(chain_app, name="chain")
app.add_typer(jobs_app, name="jobs", no_args_is_help=True)


def main() -> NoReturn:
    """Run the command line and exit with its status; bad input is one line on stderr."""
    # OpenMP reads this once, when torch is imported. Threads that wait for work otherwise spin, and
    # on a shared machine that wastes whole cores: a render under load took twice the CPU time.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    signal.signal(signal.SIGTERM, _terminate)
    try:
        sys.exit(app(standalone_mode=False))
    except UsageError as error:
        fail(_usage(error))
    except BAD_INPUT as error:
        fail(str(error))
    except ChainDown as error:
        fail(str(error), status=EXIT_FAILED)
    except (KeyboardInterrupt, typer.Abort) as error:
        message = str(error) or "interrupted: what was unfinished is removed"
        fail(message, status=EXIT_INTERRUPTED)


def fail(message: str, *, status: int = EXIT_BAD_INPUT) -> NoReturn:
    """Say in one line on stderr what is wrong, and exit."""
    line = printable(" ".join(message.split()))
    if line:  # a bare `viva` has shown its help already
        sys.stderr.write(f"viva: {line}\n")
    sys.exit(status)


def _usage(error: Exception) -> str:
    """What is wrong with the words on the command line, and where help is."""
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    return message and f"{message} Try viva --help."


def _terminate(signum: int, frame: object) -> NoReturn:
    """Leave as an exception, so that whoever holds unfinished files removes them."""
    del signum, frame
    raise SystemExit(EXIT_TERMINATED)


def _text(name: str, metavar: str, text: str) -> object:
    """An option whose value is parsed by us, so that errors are ours."""
    return typer.Option(f"--{name}", metavar=metavar, help=text, show_default=False)


JsonFlag = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout, show no progress.")
]
QuietFlag = Annotated[bool, typer.Option("--quiet", help="Show no progress, print no summary.")]
StatsFlag = Annotated[
    bool, typer.Option("--stats", help="At the end, show how long each stage worked and waited.")
]
OverwriteFlag = Annotated[
    bool, typer.Option("--overwrite", help="Replace the output if it exists.")
]


@app.command()
def render(  # noqa: PLR0913 - one parameter per option
    portrait: Annotated[str, _text("portrait", "FILE|NAME", PORTRAIT_HELP)] = "",
    audio: Annotated[str, _text("audio", "FILE", "Speech: any sound or video file.")] = "",
    out: Annotated[str, _text("out", "FILE", "The MP4 to write.")] = "",
    model: Annotated[str, _text("model", "NAME|DIR", "Model. (default: pocket)")] = "pocket",
    plan: Annotated[str, _text("plan", "NAME|FILE", "Plan. (default: the mode's)")] = "",
    mode: Annotated[
        str, _text("mode", "live|render", "Few steps, or many over windows. (default: the plan's)")
    ] = "",
    seed: Annotated[str, _text("seed", "N", "Same seed, same bytes. (default: 0)")] = "0",
    size: Annotated[
        str, _text("size", "WxH", "Size. (default: the picture's, or of a face the model's)")
    ] = "",
    fps: Annotated[
        str, _text("fps", "N", "Pictures per second, also 30000/1001. (default: the model's)")
    ] = "",
    crop: Annotated[
        str, _text("crop", "auto|center|none|x,y,w,h", "Where the face is. (default: auto)")
    ] = "auto",
    frame: Annotated[
        str,
        _text(
            "frame", "auto|face|portrait", "Show the face, or the whole picture. (default: auto)"
        ),
    ] = "auto",
    max_seconds: Annotated[str, _text("max-seconds", "S", "Stop after this much sound.")] = "",
    chain: Annotated[
        str, _text("chain", "local|ray", "Run stages here or as Ray actors. (default: local)")
    ] = "local",
    stages: Annotated[
        str, _text("stages", "N", "Cut the steps so. (default: what is fastest)")
    ] = "",
    devices: Annotated[
        str,
        _text("devices", "LIST", "For --chain ray, such as cpu:2. (default: what is there)"),
    ] = "",
    strategy: Annotated[
        str, _text("strategy", "pack|spread", "Few nodes, or all. (default: pack)")
    ] = "",
    ray_address: Annotated[
        str,
        _text("ray-address", "HOST:PORT", "A Ray cluster's. (default: a Ray of its own)"),
    ] = "",
    spares: Annotated[
        str, _text("spares", "N", "Workers that wait for a stage to die. (default: 1 if it fits)")
    ] = "",
    preview: Annotated[
        str, _text("preview", "STEP", "Small pictures of what this step makes, and no more.")
    ] = "",
    trace: Annotated[str, _text("trace", "FILE", "Write what each stage did, for Perfetto.")] = "",
    stats: StatsFlag = False,
    overwrite: OverwriteFlag = False,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Render a portrait and speech to an MP4 with sound."""
    request = RenderRequest(
        portrait=parse_portrait(portrait, model),
        audio=require_path("--audio", audio, "speech.wav"),
        out=require_path("--out", out, "talking.mp4"),
        model=model,
        plan=plan or None,
        mode=parse_mode(mode) if mode else None,
        seed=parse_seed(seed),
        size=parse_size(size) if size else None,
        fps=parse_fps(fps) if fps else None,
        crop=parse_crop_option(crop),
        frame=parse_frame(frame),
        max_seconds=parse_seconds(max_seconds) if max_seconds else None,
        overwrite=overwrite,
        chain=parse_chain(
            chain,
            stages=stages,
            devices=devices,
            strategy=strategy,
            address=ray_address,
            spares=spares,
        ),
        trace=require_path("--trace", trace, "trace.json") if trace else None,
        stats=stats,
        preview=parse_preview(preview) if preview else None,
    )
    summary = _render(request, show_bar=not (as_json or quiet) and sys.stderr.isatty())
    if as_json:
        _print(json.dumps(summary.as_record()))
    elif not quiet:
        _print(_describe(summary))
    if summary.stats is not None and not as_json:
        from services.chain_view import stats_table

        _print(drawn(stats_table(summary.stats)).rstrip("\n"))


def _render(request: RenderRequest, *, show_bar: bool) -> "RenderSummary":
    """Run the job, with a progress bar on a terminal."""
    from services.render import render as render_video

    if not show_bar:
        return render_video(request, _ignore)
    from services.progress import progress_bar

    with progress_bar(request.out.name) as show:
        return render_video(request, show)


def _ignore(done: int, total: int | None, fps: Fraction) -> None:
    """Progress that nobody looks at."""


def _describe(summary: "RenderSummary") -> str:
    """The summary as one line."""
    return (
        f"{printable(summary.out)}: {summary.num_frames} frames of "
        f"{summary.width}x{summary.height} at {summary.fps} fps, {summary.video_s:.2f} s, "
        f"seed {summary.seed}, in {summary.wall_s:.1f} s "
        f"(x{summary.real_time_factor:.2f} real time)"
    )


def _print(line: str) -> None:
    """A result on stdout, which may be a full disk or a pipe that nobody reads any more."""
    try:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    except OSError as error:
        # What Python could not write it would try again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        fail(f"the result cannot be printed: {error.strerror}", status=EXIT_FAILED)


@model_app.command("info")
def model_info(
    model: Annotated[str, typer.Argument(metavar="NAME|DIR", help="A model, or its folder.")],
    as_json: JsonFlag = False,
) -> None:
    """Show what a model folder holds and whether its weights fit its config."""
    from services.model_info import describe_model, inspect_model

    info = inspect_model(model)
    _print(json.dumps(asdict(info)) if as_json else describe_model(info))


model_app.command("calibrate")(calibrate)
app.command("serve")(serve)


# The training programs parse their own options, `--help` too.
PASS_ON = {
    "allow_extra_args": True,
    "allow_interspersed_args": False,
    "ignore_unknown_options": True,
    "help_option_names": [],
}


@app.command("data", context_settings=PASS_ON)
def data(context: typer.Context) -> None:
    """Make and look at training data."""
    run_training("data", context.args)


@app.command("train", context_settings=PASS_ON)
def train(context: typer.Context) -> None:
    """Train a model, part by part or all of it."""
    run_training("train", context.args)


if __name__ == "__main__":
    main()
