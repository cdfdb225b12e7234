"""The command line as a user runs it: in this process for speed, or in one of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from services import cli

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended and what it said."""

    status: int
    stdout: str
    stderr: str


def run_viva(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Outcome:
    """Run `viva` in this process."""
    monkeypatch.setattr(sys, "argv", ["viva", *arguments])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    capfd.readouterr()
    with pytest.raises(SystemExit) as left:
        cli.main()
    said = capfd.readouterr()
    return Outcome(_status(left.value.code), said.out, said.err)


def _status(code: object) -> int:
    return 0 if code is None else int(str(code))


def start_viva(
    arguments: list[str], *, preexec_fn: Callable[[], None] | None = None
) -> "subprocess.Popen[str]":
    """Start `viva` in a process of its own, with Ctrl-C working as in a terminal.

    A test run in the background ignores SIGINT, and its children would inherit that.
    """

    def as_in_a_terminal() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if preexec_fn is not None:
            preexec_fn()

    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "services.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=as_in_a_terminal,
    )
