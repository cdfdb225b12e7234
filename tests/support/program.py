"""Programs of ours as a user runs them, in processes that end with the test."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}",
    "OMP_NUM_THREADS": "1",
}


@contextmanager
def running(*words: str) -> Iterator[subprocess.Popen[str]]:
    """`python -m WORDS`, killed in any case; what it prints can be read, its log is dropped."""
    process = subprocess.Popen(
        [sys.executable, "-m", *words],
        env=ENVIRONMENT,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
