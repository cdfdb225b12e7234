"""A process that does not outlive the one that started it, however that one ends."""

import ctypes
import os
import signal
import sys
import threading
import time

_PR_SET_PDEATHSIG = 1
POLL_S = 0.5


def tie_to_parent(parent_pid: int) -> None:
    """End this process as soon as `parent_pid` is no longer its parent.

    On Linux the kernel does it, at once, when the thread ends that started this process; elsewhere,
    and where a parent died before this was called, a daemon thread notices it within a second.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(1)
    threading.Thread(target=_watch, args=(parent_pid,), name="tether", daemon=True).start()


def _watch(parent_pid: int) -> None:
    """Look now and then who the parent is."""
    while os.getppid() == parent_pid:
        time.sleep(POLL_S)
    os._exit(1)
