"""A stage node in a process of its own, as an actor of Ray's, and the driver's handle of it."""

import contextlib
import ctypes
import gc
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from pipeline.channel import listen
from pipeline.errors import NodeDown
from pipeline.host import NodeSpec
from pipeline.janitor import Janitor
from pipeline.stage_node import StageNode

_PR_SET_PDEATHSIG = 1
# A worker that was built has told its process number long before; the answer is only fetched.
_PID_S = 2.0
# Between two signs of life asked of a worker: each costs both sides a millisecond.
_BEAT_S = 1.0
# How often a caller looks whether the process it waits for is stopped.
_LOOK_S = 0.25
# Loading the largest weights from a slow disk; a call that overtook it waits no longer.
_BUILD_S = 1800.0
# A thread that has a chunk to take in waits no longer than this for one that computes; Python's own
# 5 ms are more than a hop takes.
_SWITCH_S = 0.0005


@dataclass(frozen=True, slots=True, kw_only=True)
class Whereabouts:
    """Where a worker lives."""

    host: str
    pid: int


class Worker:
    """Holds one node; control calls come from several threads, `park` occupies one of them."""

    def __init__(self) -> None:
        """Without a role yet; dies with the process that started it, even if it is stopped."""
        _die_with_parent()
        self._node: StageNode | None = None
        self._is_built = threading.Event()

    def whereabouts(self) -> Whereabouts:
        """Host and process."""
        return Whereabouts(host=_host(), pid=os.getpid())

    def warm(self) -> None:
        """Import what any role needs, so that taking one later is quick."""
        import pipeline.model  # noqa: F401 - for the sake of the import

    def build(self, spec: NodeSpec) -> None:
        """Take a role: load what the recipe needs and listen.

        Raises:
            ModelError, PlanError, WeightsError: the stage cannot be built.
        """
        try:
            self._node = self._make(spec)
        finally:
            self._is_built.set()

    def _make(self, spec: NodeSpec) -> StageNode:
        torch.set_num_threads(spec.threads)
        if spec.core is not None:
            _stay_on(spec.core)
        stage = spec.recipe.build()
        _settle()
        listener = listen(spec.address, timeout_s=spec.settings.edge.timeout_s)
        return StageNode(
            stage,
            listener,
            name=spec.name,
            settings=spec.settings,
            store=spec.open_checkpoints(),
            on_crash=lambda _: os._exit(1),
        )

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the node; the call may overtake `build` and then waits for it."""
        self._is_built.wait(_BUILD_S)
        if self._node is None:
            raise RuntimeError("this worker could not be built")
        return getattr(self._node, method)(*arguments)

    def beat(self) -> float:
        """A sign of life: how long the node has been busy with one thing, in seconds."""
        return 0.0 if self._node is None else self._node.busy_s()

    def park(self) -> None:
        """Never return: whoever waits for this learns of the process's death."""
        threading.Event().wait()


def _host() -> str:
    """Where process numbers mean the same: a machine, or a container of it."""
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        namespace = ""
    return f"{socket.gethostname()} {namespace}"


def _die_with_parent() -> None:
    """Have the kernel end this process when its parent ends (Linux; elsewhere nothing)."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    except (OSError, AttributeError):
        return


def _settle() -> None:
    """Have threads take turns quickly, and no collection look at what was made by now again."""
    sys.setswitchinterval(_SWITCH_S)
    gc.collect()
    gc.freeze()


def _stay_on(index: int) -> None:
    """Keep this thread, and those that it will start, on one of the process's cores (Linux)."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[index % len(cores)]})


class WorkerReply:
    """The answer to a call of a worker."""

    def __init__(self, ref: Any, built: Any, name: str, is_stopped: Callable[[], bool]) -> None:
        """Wait for `built` first: before it there is no node to answer."""
        self._ref, self._built, self._name, self._is_stopped = ref, built, name, is_stopped

    def result(self, timeout_s: float) -> Any:
        """What the method returned."""
        until_s = time.monotonic() + timeout_s
        try:
            self._await(self._built, until_s)
            return self._await(self._ref, until_s)
        except RayTaskError as error:
            cause = error.cause
            raise (cause if isinstance(cause, Exception) else error) from None
        except GetTimeoutError as error:
            raise NodeDown(f"stage {self._name} gave no answer in {timeout_s:g} s") from error
        except RayActorError as error:
            raise NodeDown(f"stage {self._name} died") from error

    def _await(self, ref: Any, until_s: float) -> Any:
        """The value; a process that is stopped is not waited for, it would cost the whole time."""
        while True:
            left_s = max(0.0, until_s - time.monotonic())
            ready, _ = ray.wait([ref], timeout=min(_LOOK_S, left_s))
            if ready or left_s == 0.0:
                return ray.get(ref, timeout=0 if ready else _LOOK_S)
            if self._is_stopped():
                raise NodeDown(f"stage {self._name} is stopped")


class RayHandle:
    """A node in an actor."""

    def __init__(self, actor: Any, spec: NodeSpec, janitor: Janitor) -> None:
        """Give a worker without a role this one."""
        self._actor, self._name, self._janitor = actor, spec.name, janitor
        self.park = actor.park.remote()
        self._where = actor.whereabouts.remote()
        self._built = actor.build.remote(spec)
        self._is_built = self.is_killed = False
        self._pid: int | None = None
        self._beat: Any = None
        self._asked_s = self._answered_s = time.monotonic()
        self._busy_s = 0.0

    @property
    def pid(self) -> int | None:
        """The process on this machine; None if it is on another, or not known yet."""
        return self._pid

    def _learn_pid(self) -> None:
        """Note the process while it answers: once it hangs, its number is all that is left."""
        with contextlib.suppress(RayError):
            where = ray.get(self._where, timeout=_PID_S)
            if where.host == _host():
                self._pid = where.pid
                self._janitor.end_later(where.pid)

    def call(self, method: str, *arguments: Any) -> WorkerReply:
        """Begin to call a method of the node."""
        ref = self._actor.call.remote(method, *arguments)
        return WorkerReply(ref, self._built, self._name, lambda: _is_stopped(self._pid))

    def silent_s(self) -> float:
        """How long no sign of life has come since the node was built."""
        now_s = time.monotonic()
        if not self._is_built:
            self._is_built, self._answered_s = is_ready(self._built), now_s
            if self._is_built:
                self._learn_pid()
            return 0.0
        if self._beat is None:
            if now_s - self._asked_s >= _BEAT_S:
                self._beat, self._asked_s = self._actor.beat.remote(), now_s
        elif is_ready(self._beat):
            with contextlib.suppress(RayError):
                self._busy_s = ray.get(self._beat)
            self._answered_s, self._beat = now_s, None
        return math.inf if _is_stopped(self._pid) else now_s - self._answered_s

    def busy_s(self) -> float:
        """How long the node had been busy with one thing at its last sign of life."""
        return self._busy_s

    def kill(self) -> None:
        """End the process; a stopped one cannot hear Ray, the kernel ends it all the same."""
        self.is_killed = True
        if self._pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
        with contextlib.suppress(RayError):
            ray.kill(self._actor, no_restart=True)


def _is_stopped(pid: int | None) -> bool:
    """Whether a process of this machine is stopped, as by SIGSTOP (Linux)."""
    try:
        stat = "" if pid is None else Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[:1] == ["T"]


def is_ready(ref: Any) -> bool:
    """Whether a call has ended, well or not."""
    ready, _ = ray.wait([ref], timeout=0)
    return bool(ready)
