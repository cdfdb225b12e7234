"""`viva jobs`: a queue of renders on this machine or a shared database, without a server."""

import asyncio
import json
from contextlib import aclosing, contextmanager
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.options import OptionError, parse_fps, parse_seed, parse_size
from services.terminal import drawn, printable, write

if TYPE_CHECKING:
    from collections.abc import Iterator

    from services.job_queue import Job
    from services.jobs import StoredJobQueue

jobs_app = typer.Typer(help="Render in the background: a queue that survives anything.")
EXIT_FAILED = 1

DataOption = Annotated[
    str,
    typer.Option(
        "--data",
        envvar="VIVA_JOBS_DATA",
        metavar="DIR",
        help="Where jobs lie. (default: ~/.local/share/viva/jobs)",
        show_default=False,
    ),
]
StoreOption = Annotated[
    str,
    typer.Option(
        "--store",
        envvar="VIVA_JOBS_STORE",
        metavar="URL",
        help="The database, such as postgresql+psycopg://... (default: SQLite in --data)",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="A job, from viva jobs list.")]


def _text(name: str, metavar: str, text: str) -> Any:
    return typer.Option(f"--{name}", metavar=metavar, help=text, show_default=False)


@contextmanager
def _queue(data: str, store: str) -> "Iterator[StoredJobQueue]":
    """The queue; whoever holds the machine may read all files, S3 and the web."""
    from services.job_files import FileRules
    from services.job_worker import default_folder
    from services.jobs import open_queue

    folder = Path(data) if data else default_folder()
    rules = FileRules(schemes=frozenset({"s3", "gs", "https"}), roots=(Path("/"),))
    queue = open_queue(folder, store, files=rules)
    try:
        yield queue
    finally:
        queue.close()


@jobs_app.command("submit")
def submit(  # noqa: PLR0913 - one parameter per option
    portrait: Annotated[str, _text("portrait", "FILE|URL|NAME", "A face.")] = "",
    audio: Annotated[str, _text("audio", "FILE|URL", "Speech.")] = "",
    out: Annotated[str, _text("out", "FILE|URL", "Where the film goes. (default: --data)")] = "",
    captions: Annotated[str, _text("captions", "FILE|URL", "WebVTT: captions or chapters.")] = "",
    model: Annotated[str, _text("model", "NAME|DIR", "Model. (default: pocket)")] = "",
    plan: Annotated[str, _text("plan", "NAME|FILE", "Plan. (default: the mode's)")] = "",
    mode: Annotated[str, _text("mode", "live|render", "Few steps, or many over windows.")] = "",
    seed: Annotated[str, _text("seed", "N", "Same seed, same pictures.")] = "0",
    size: Annotated[str, _text("size", "WxH", "Size of the film.")] = "",
    fps: Annotated[str, _text("fps", "N", "Pictures per second.")] = "",
    frame: Annotated[str, _text("frame", "auto|face|portrait", "What is shown.")] = "",
    loudness: Annotated[float, _text("loudness", "LUFS", "Bring the sound there, as -16.")] = 0.0,
    guard_colour: Annotated[
        bool, typer.Option("--guard-colour", help="Hold colours where they began.")
    ] = False,
    label: Annotated[str, _text("label", "TEXT", "Text shown in the picture.")] = "",
    sign: Annotated[bool, typer.Option("--sign", help="Sign the film with C2PA.")] = False,
    consent: Annotated[str, _text("consent", "TEXT", "Where the consent is on record.")] = "",
    key: Annotated[str, _text("key", "TEXT", "Submitting again under it adds no job.")] = "",
    data: DataOption = "",
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """Put a render into the queue; prints the job's name."""
    from services.job_queue import JobRequest

    width, height = parse_size(size) if size else (0, 0)
    request = JobRequest(
        portrait=_word(portrait, "--portrait"),
        audio=_word(audio, "--audio"),
        captions=captions and _located(captions),
        model=model,
        plan=plan,
        mode=mode,
        seed=parse_seed(seed),
        width=width,
        height=height,
        fps=parse_fps(fps) if fps else Fraction(0),
        frame=frame,
        loudness_lufs=loudness,
        guard_colour=guard_colour,
        label=label,
        sign=sign,
        consent=consent,
        output_url=out and _located(out),
    )
    with _queue(data, store) as queue:
        job = asyncio.run(queue.submit(request, key))
    write(f"{json.dumps(_plain(job)) if as_json else job.id}\n")


def _word(text: str, option: str) -> str:
    """A path made whole; names of the cast and URLs stay as they are.

    Raises:
        OptionError: there is none.
    """
    if not text:
        raise OptionError(f"{option} is missing: give a file, for instance {option} face.png")
    return _located(text) if Path(text).exists() else text


def _located(text: str) -> str:
    return text if "://" in text else str(Path(text).absolute())


@jobs_app.command("list")
def list_jobs(
    limit: Annotated[int, typer.Option("--limit", min=1, max=500)] = 50,
    data: DataOption = "",
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show the jobs, newest first."""
    with _queue(data, store) as queue:
        jobs = asyncio.run(queue.list(page_size=limit)).jobs
    if as_json:
        write(json.dumps([_plain(job) for job in jobs]) + "\n")
        return
    from rich.table import Table

    table = Table("job", "state", "frames", "fps", "ETA s", "what")
    for job in jobs:
        eta = f"{job.eta_s:.0f}" if job.eta_s >= 0 else ""
        frames = f"{job.num_frames_done}/{job.num_frames_total}"
        what = printable(job.error_detail or job.result_url or "")
        table.add_row(job.id, job.state.value, frames, f"{job.fps:.1f}", eta, what)
    write(drawn(table))


@jobs_app.command("show")
def show(job: JobArgument, data: DataOption = "", store: StoreOption = "") -> None:
    """Print all that is known of a job, as JSON."""
    with _queue(data, store) as queue:
        write(json.dumps(_plain(asyncio.run(queue.get(job))), indent=2) + "\n")


@jobs_app.command("cancel")
def cancel(job: JobArgument, data: DataOption = "", store: StoreOption = "") -> None:
    """Stop a job; one that has ended stays what it is."""
    with _queue(data, store) as queue:
        write(f"{asyncio.run(queue.cancel(job)).state.value}\n")


@jobs_app.command("watch")
def watch(
    job: JobArgument, data: DataOption = "", store: StoreOption = "", as_json: JsonOption = False
) -> None:
    """Follow a job to its end; exit status 1 if there is no film then."""
    from services.job_queue import JobState

    with _queue(data, store) as queue:
        ended = asyncio.run(_watched(queue, job, as_json))
    if not as_json:
        write(f"{_described(ended)}\n")
    if ended.state is not JobState.SUCCEEDED:
        raise typer.Exit(EXIT_FAILED)


async def _watched(queue: "StoredJobQueue", job_id: str, as_json: bool) -> "Job":
    """Show each change; returns the job at its end."""
    job = await queue.get(job_id)
    async with aclosing(queue.watch(job_id)) as changes:
        if as_json:
            async for job in changes:
                write(json.dumps(_plain(job)) + "\n")
            return job
        from services.progress import job_bar

        with job_bar(job_id[:8]) as show_job:
            async for job in changes:
                show_job(job)
    return job


@jobs_app.command("work")
def work(  # noqa: PLR0913 - one parameter per option
    workers: Annotated[int, typer.Option("--workers", min=1, max=64, help="Jobs at once.")] = 1,
    threads: Annotated[int, typer.Option("--threads", min=1, max=256, help="Each job's.")] = 1,
    segment_s: Annotated[
        float, typer.Option("--segment-s", min=0.5, max=600.0, help="What a crash costs at most.")
    ] = 20.0,
    until_idle: Annotated[
        bool, typer.Option("--until-idle", help="Leave when no job is left.")
    ] = False,
    sign_chain: Annotated[str, _text("sign-chain", "PEM", "Certificates to sign with.")] = "",
    sign_key: Annotated[str, _text("sign-key", "PEM", "Their private key.")] = "",
    ttl_days: Annotated[float, typer.Option("--ttl-days", min=0.0)] = 7.0,
    data: DataOption = "",
    store: StoreOption = "",
) -> None:
    """Do the jobs. SIGTERM ends it after the segments in work; a second one at once."""
    from services import job_crew
    from services.job_worker import WorkerSettings
    from services.provenance import Signing

    if bool(sign_chain) != bool(sign_key):
        raise OptionError("--sign-chain and --sign-key go together: give both")
    settings = WorkerSettings(
        segment_s=Fraction(segment_s).limit_denominator(1000),
        signing=Signing(chain=Path(sign_chain), key=Path(sign_key)) if sign_chain else None,
        ttl_s=ttl_days * 86_400.0,
        threads=threads,
    )
    with _queue(data, store) as queue:
        job_crew.work(queue, settings, workers, until_idle=until_idle)


def _plain(job: "Job") -> dict[str, Any]:
    """A job as JSON has it."""
    plain = asdict(job)
    plain["request"]["fps"] = str(job.request.fps)
    return plain


def _described(job: "Job") -> str:
    """A job's end as one line."""
    if job.error_detail and not job.result_url:
        return printable(f"{job.id} {job.state.value}: {job.error_detail}")
    return printable(f"{job.id} {job.state.value} {job.result_url}")
