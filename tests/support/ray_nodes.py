"""Nodes of a Ray chain as processes of this machine."""

import time

from pipeline.staged_chain import StagedChain
from pipeline.supervisor import RayHandle


def pid_of(chain: StagedChain, position: int) -> int:
    """The process at a position, once it has one."""
    until_s = time.monotonic() + 120
    while time.monotonic() < until_s:
        handle = chain.controller.handles()[position]
        if isinstance(handle, RayHandle) and handle.pid is not None:
            return handle.pid
        time.sleep(0.02)
    raise AssertionError(f"no process at position {position}")
