"""Shows how a render goes: a bar on a terminal, nothing elsewhere.

Everything goes to stderr, so that stdout stays for results.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from fractions import Fraction
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from services.job_queue import Job


@contextmanager
def progress_bar(
    name: str, *, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[int, int | None, Fraction], None]]:
    """Give a function that takes pictures done, pictures in all (or None) and their rate."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("frames  {task.fields[rates]}  ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=None, rates="loading")
        began_s: float | None = None

        def show(done: int, total: int | None, fps: Fraction) -> None:
            nonlocal began_s
            began_s = clock() if began_s is None else began_s
            rates = describe_rates(done, clock() - began_s, fps)
            bar.update(task, completed=done, total=total, rates=rates)

        yield show


@contextmanager
def job_bar(name: str) -> "Iterator[Callable[[Job], None]]":
    """Give a function that takes a job as often as it changes."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("frames  {task.fields[rates]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=None, rates="queued")

        def show(job: "Job") -> None:
            total = job.num_frames_total or None
            rates = describe_job(job)
            bar.update(task, completed=job.num_frames_done, total=total, rates=rates)

        yield show


def describe_job(job: "Job") -> str:
    """How fast a job goes and when it will be done, as a person reads it."""
    if not job.fps:
        return job.state.value
    eta = "" if job.eta_s < 0 else f"  ETA {timedelta(seconds=round(job.eta_s))}"
    return f"{job.state.value}  {job.fps:.1f} fps{eta}"


def describe_rates(done: int, elapsed_s: float, fps: Fraction) -> str:
    """Pictures per second of work and the real-time factor, as a person reads them."""
    if done == 0 or elapsed_s <= 0:
        return "starting"
    rate = done / elapsed_s
    return f"{rate:.1f} fps  x{rate / float(fps):.2f} real time"
