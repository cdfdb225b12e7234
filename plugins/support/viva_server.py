"""A server with a fake model, in a process of the main environment, for tests of both plug-ins."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
START_S = 60.0


@contextmanager
def viva_server(*, capacity: int = 4) -> Iterator[str]:
    """The address of a server's gRPC side, for as long as the block lasts."""
    python = os.environ.get("VIVA_PYTHON") or ROOT / ".venv" / "bin" / "python"
    process = subprocess.Popen(  # noqa: S603 - our own program
        [str(python), "-m", "plugins.support.serve_fake", str(capacity)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}", "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    killer = threading.Timer(START_S, process.kill)
    killer.start()
    try:
        line = process.stdout.readline().strip()
        killer.cancel()
        if not line:
            raise RuntimeError(f"the server did not start with {python}; on {sys.platform}")
        yield line
    finally:
        killer.cancel()
        process.stdin.close()  # which ends it
        process.wait(timeout=20)
        process.stdout.close()
