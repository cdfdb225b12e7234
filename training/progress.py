"""How a training run goes: a bar on a terminal, a line a minute elsewhere, always on stderr."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINE_EVERY_S = 60.0


@contextmanager
def step_progress(
    name: str, start: int, total: int, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[int], None]]:
    """Give a function that takes the number of steps done; `start` of them were done before."""
    began_s = clock()
    if not sys.stderr.isatty():
        said_s = began_s

        def say(done: int) -> None:
            nonlocal said_s
            if clock() - said_s >= LINE_EVERY_S:
                said_s = clock()
                sys.stderr.write(f"{describe(name, start, done, total, said_s - began_s)}\n")

        yield say
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}  ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=total, completed=start, rate="starting")

        def show(done: int) -> None:
            rate = describe_rate(done - start, clock() - began_s)
            bar.update(task, completed=done, rate=rate)

        yield show


def describe(name: str, start: int, done: int, total: int, elapsed_s: float) -> str:
    """One line: what is done, how fast this slice goes, how long the rest takes at that rate."""
    line = f"{name}: {done} of {total}, {describe_rate(done - start, elapsed_s)}"
    if done > start:
        line += f", {(total - done) * elapsed_s / (done - start) / 60:.1f} min left"
    return line


def describe_rate(done: int, elapsed_s: float) -> str:
    """Steps a second, or seconds a step when slower."""
    if done <= 0 or elapsed_s <= 0:
        return "starting"
    rate = done / elapsed_s
    return f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each"
