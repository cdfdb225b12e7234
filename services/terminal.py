"""What goes to the terminal, whatever is at its other end."""

import os
import sys
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType

# As wide as tables get where no terminal says how wide it is.
WIDTH = 120


def printable(text: str) -> str:
    """The text with escapes for what could steer a terminal: names of files may hold anything."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def drawn(table: "RenderableType") -> str:
    """A table as text, as wide as the terminal, or as it needs where there is none."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def write(text: str) -> None:
    """A result on stdout, which may be a pipe that nobody reads any more."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError:
        # What Python could not write it would try again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None
