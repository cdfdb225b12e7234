"""What Ray would otherwise do to the process that uses it: its environment, signals and memory."""

import contextlib
import os
import secrets
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

# Ray runs workers at nice +15 unless told otherwise, and reports usage unless told not to.
ENVIRONMENT = {"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}
# Ray would write a token of its own into the home folder. It reads this one once per process.
TOKEN = {"RAY_AUTH_TOKEN": secrets.token_hex(32)}


@contextlib.contextmanager
def ray_environment(*, is_own: bool) -> Iterator[None]:
    """The environment for Ray, until the end; Ray sets its mode of authentication, too."""
    values = ENVIRONMENT | (TOKEN if is_own else {})
    before = {name: os.environ.get(name) for name in (*values, "RAY_AUTH_MODE")}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def signal_handlers_kept() -> Iterator[None]:
    """The handler of SIGTERM from before: Ray puts its own in its place when it starts.

    A SIGTERM that reached Ray's handler is handed to the one from before.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:
        if callable(before):
            before(signal.SIGTERM, None)
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def memory_folder() -> str | None:
    """Where files are memory, None where no such place is known."""
    shared = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it
    return str(shared) if os.access(shared, os.W_OK) else None
