"""A render in a process of its own that would take minutes, to be interrupted."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.viva import start_viva

PATIENCE_S = 600.0


def start_long_render(
    out: Path,
    model: Path,
    portrait: Path,
    sound: Path,
    *words: str,
    preexec_fn: Callable[[], None] | None = None,
) -> "subprocess.Popen[str]":
    """Start it; the folder of `out` is made, for nothing else to be in it."""
    out.parent.mkdir()
    options = ["--portrait", portrait, "--audio", sound, "--out", out, "--model", model]
    arguments = ["render", *map(str, options), "--crop", "center", *words]
    return start_viva(arguments, preexec_fn=preexec_fn)


def wait_for_partial(process: "subprocess.Popen[str]", folder: Path) -> None:
    """Until the recording has bytes in it."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not any(p.stat().st_size for p in folder.iterdir()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
