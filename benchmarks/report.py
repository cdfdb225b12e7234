"""Dated result files: what was measured, on what, with which command."""

import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil
import torch

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
LIBRARIES = ("torch", "av", "numpy", "soxr")


def write_report(theme: str, title: str, body: str) -> Path:
    """Write `benchmarks/results/<theme>_<date>.md` and return its path."""
    now = datetime.now(UTC)
    text = f"# {title}\n\n{now:%Y-%m-%d %H:%M} UTC\n\n{_circumstances()}\n\n{body.strip()}\n"
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{theme}_{now:%Y-%m-%d}.md"
    path.write_text(text)
    return path


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _circumstances() -> str:
    """Hardware, versions, commit, load and command, as a table."""
    memory_gib = psutil.virtual_memory().total / 2**30
    load = psutil.getloadavg()[0]
    rows = [
        ["processor", f"{_processor()}, {psutil.cpu_count()} cores"],
        ["memory", f"{memory_gib:.0f} GiB"],
        ["system", f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"],
        ["libraries", ", ".join(f"{name} {version(name)}" for name in LIBRARIES)],
        ["threads", str(torch.get_num_threads())],
        ["load average after the run", f"{load:.1f}"],
        ["commit", _commit()],
        ["command", f"`{shlex.join(['python', *sys.argv])}`"],
    ]
    return table(["", ""], rows)


def _processor() -> str:
    """The processor's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _commit() -> str:
    """The commit measured, marked where the tree differs from it."""
    command = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603 - a fixed command
    return done.stdout.strip() or "unknown"
