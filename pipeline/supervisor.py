"""Stage nodes as Ray actors: the only module that imports Ray.

Ray makes processes, places them and tells of their deaths; no chunk ever goes through it.
"""

import contextlib
import logging
import math
import os
import secrets
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray._private import worker as ray_worker
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from pipeline.errors import ChainError, NodeDown
from pipeline.host import NodeHandle, NodeSpec
from pipeline.janitor import Janitor
from pipeline.plan import Plan
from pipeline.recipe import DecodeRecipe, DenoiseRecipe, Recipe
from pipeline.staged_chain import ChainSettings, StagedChain
from pipeline.worker import Worker

# Control calls run beside the one that never returns.
ACTOR_THREADS = 8
# Ray's own store holds session openings only, a few portraits.
OBJECT_STORE_BYTES = 100 << 20
PLACEMENT_TIMEOUT_S = 60.0
# A worker that was built has told its process number long before; the answer is only fetched.
_PID_S = 2.0
# Between two signs of life asked of a worker: each costs both sides a millisecond.
_BEAT_S = 1.0
# Ray runs workers at nice +15 unless told otherwise, and reports usage unless told not to.
ENVIRONMENT = {"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}
# Ray would write a token of its own into the home folder. It reads this one once per process.
TOKEN = {"RAY_AUTH_TOKEN": secrets.token_hex(32)}


class RayReply:
    """The answer to an actor call."""

    def __init__(self, ref: Any, built: Any, name: str) -> None:
        """Wait for `built` first: before it there is no node to answer."""
        self._ref, self._built, self._name = ref, built, name

    def result(self, timeout_s: float) -> Any:
        """What the method returned."""
        try:
            ray.get(self._built, timeout=timeout_s)
            return ray.get(self._ref, timeout=timeout_s)
        except RayTaskError as error:
            cause = error.cause
            raise (cause if isinstance(cause, Exception) else error) from None
        except GetTimeoutError as error:
            raise NodeDown(f"stage {self._name} gave no answer in {timeout_s:g} s") from error
        except RayActorError as error:
            raise NodeDown(f"stage {self._name} died") from error


class RayHandle:
    """A node in an actor."""

    def __init__(self, seat: "Seat", spec: NodeSpec, janitor: Janitor) -> None:
        """Give a worker without a role this one."""
        self.seat, self._name, self._janitor = seat, spec.name, janitor
        actor = self._actor = seat.actor
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
            if where.host == socket.gethostname():
                self._pid = where.pid
                self._janitor.end_later(where.pid)

    def call(self, method: str, *arguments: Any) -> RayReply:
        """Begin to call a method of the node."""
        ref = self._actor.call.remote(method, *arguments)
        return RayReply(ref, self._built, self._name)

    def silent_s(self) -> float:
        """How long no sign of life has come since the node was built."""
        now_s = time.monotonic()
        if not self._is_built:
            self._is_built, self._answered_s = _is_ready(self._built), now_s
            if self._is_built:
                self._learn_pid()
            return 0.0
        if self._beat is None:
            if now_s - self._asked_s >= _BEAT_S:
                self._beat, self._asked_s = self._actor.beat.remote(), now_s
        elif _is_ready(self._beat):
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


@dataclass(frozen=True, slots=True)
class Seat:
    """A worker process and the bundle of the placement group that it occupies."""

    actor: Any
    bundle: int


class RayHost:
    """Makes nodes as actors, each in a bundle of one placement group.

    `num_spares` workers wait without a role, with everything imported: starting a process and
    importing torch takes seconds, taking a role does not.
    """

    def __init__(self, num_nodes: int, janitor: Janitor, *, num_spares: int = 0) -> None:
        """Reserve a bundle per node and spare.

        Raises:
            ChainError: the cluster does not have that much.
        """
        self._janitor = janitor
        self._handles: list[RayHandle] = []
        self._group = _reserve([{"CPU": 1.0}] * (num_nodes + num_spares))
        self._free = list(range(num_nodes + num_spares))
        self._spares: list[Seat] = []
        self._num_spares = num_spares

    def spawn(self, spec: NodeSpec) -> RayHandle:
        """Give a spare worker the role, or begin to make one."""
        for handle in [h for h in self._handles if h.is_killed]:
            self._handles.remove(handle)
            self._free.append(handle.seat.bundle)
        seat = self._spares.pop(0) if self._spares else self._seated()
        handle = RayHandle(seat, spec, self._janitor)
        self._handles.append(handle)
        return handle

    def replenish(self) -> None:
        """Have spares wait again; called when everybody else is at work."""
        while self._free and len(self._spares) < self._num_spares:
            seat = self._seated()
            seat.actor.warm.remote()
            self._spares.append(seat)

    def _seated(self) -> Seat:
        """A new worker in a bundle that is free."""
        bundle = self._free.pop(0)
        actor = (
            ray.remote(Worker)
            .options(
                num_cpus=1,
                max_restarts=0,
                max_task_retries=0,
                max_concurrency=ACTOR_THREADS,
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    placement_group=self._group, placement_group_bundle_index=bundle
                ),
            )
            .remote()
        )
        return Seat(actor, bundle)

    def wait_dead(self, handles: Sequence[NodeHandle], timeout_s: float) -> list[NodeHandle]:
        """Those whose `park` ended, which only death does."""
        parked = {h.park: h for h in handles if isinstance(h, RayHandle)}
        if not parked:
            threading.Event().wait(timeout_s)
            return []
        ended, _ = ray.wait(list(parked), num_returns=1, timeout=timeout_s)
        if ended:
            ended, _ = ray.wait(list(parked), num_returns=len(parked), timeout=0)
        return [parked[ref] for ref in ended]

    def close(self) -> None:
        """End all actors and give the bundles back."""
        for handle in self._handles:
            handle.kill()
        for seat in self._spares:
            with contextlib.suppress(RayError):
                ray.kill(seat.actor, no_restart=True)
        with contextlib.suppress(RayError):
            remove_placement_group(self._group)


def _reserve(bundles: list[dict[str, float]]) -> PlacementGroup:
    """A placement group, as close together as the nodes' room allows."""
    group: PlacementGroup = placement_group(bundles, strategy="PACK")
    if not group.wait(PLACEMENT_TIMEOUT_S):
        have, free = _num_cpus(ray.cluster_resources), _num_cpus(ray.available_resources)
        remove_placement_group(group)
        raise ChainError(
            f"the chain needs {len(bundles)} CPUs for its stages, the Ray cluster has {have:g} and "
            f"{free:g} of them free: use fewer stages or add nodes"
        )
    return group


def _num_cpus(resources: Callable[[], dict[str, float]]) -> float:
    """CPUs among resources that Ray counts."""
    return resources().get("CPU", 0.0)


def _is_ready(ref: Any) -> bool:
    """Whether a call has ended, well or not."""
    ready, _ = ray.wait([ref], timeout=0)
    return bool(ready)


@contextlib.contextmanager
def ray_cluster(address: str | None, num_cpus: int, janitor: Janitor) -> Iterator[None]:
    """A connection to the cluster at `address`, or to a Ray of one's own that ends with this.

    Call it in a thread that lives as long as Ray shall: the kernel ends Ray with that thread.

    Raises:
        ChainError: no cluster answers there, or Ray does not start.
    """
    logging.getLogger("ray").setLevel(logging.ERROR)
    # Else it would print each death of a node on stdout, where results go.
    ray_worker._worker_logs_enabled = False
    with _environment(ENVIRONMENT | ({} if address else TOKEN)):
        try:
            with _signal_handlers_kept():
                if address:
                    ray.init(address=address, log_to_driver=False, configure_logging=False)
                else:
                    _start_own(num_cpus, janitor)
        except (RayError, ConnectionError, RuntimeError, ValueError, OSError) as error:
            reason = " ".join(str(error).split())[:300]
            where = (
                f"the cluster at {address} cannot be reached" if address else "it does not start"
            )
            raise ChainError(f"Ray: {where} ({reason})") from error
        try:
            yield
        finally:
            ray.shutdown()


def _start_own(num_cpus: int, janitor: Janitor) -> None:
    """A Ray on this machine in a folder of its own; sockets need the folder's path to be short."""
    folder = Path(tempfile.mkdtemp(prefix="viva-ray-", dir="/tmp"))
    janitor.remove_later(folder)
    ray.init(
        address="local",
        num_cpus=num_cpus,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        object_store_memory=OBJECT_STORE_BYTES,
        _temp_dir=str(folder),
    )


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """These environment variables, until the end; Ray sets its mode of authentication, too."""
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
def _signal_handlers_kept() -> Iterator[None]:
    """The handler of SIGTERM from before: Ray puts its own in its place when it starts."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def chain_recipes(model: str, plan: Plan) -> list[Recipe]:
    """The nodes of a plan: one per stage, and the decoder."""
    stages: list[Recipe] = [
        DenoiseRecipe(model=model, plan=plan, index=index) for index in range(len(plan.stages))
    ]
    return [*stages, DecodeRecipe(model=model)]


@contextlib.contextmanager
def open_ray_chain(
    recipes: Sequence[Recipe],
    settings: ChainSettings,
    *,
    address: str | None = None,
    num_spares: int = 0,
) -> Iterator[StagedChain]:
    """A chain of actors, and nothing left of it afterwards.

    `address` is that of a Ray cluster, None for a Ray of its own; `num_spares` workers wait to
    take the place of stages that die.

    Raises:
        ModelError, PlanError, ChainError: the chain cannot be set up.
        ChainDown: nodes die as soon as they are made.
    """
    with Janitor() as janitor:
        folder = Path(tempfile.mkdtemp(prefix="viva-", dir=_memory_folder()))
        janitor.remove_later(folder)
        with ray_cluster(address, len(recipes) + num_spares + 1, janitor):
            host = RayHost(len(recipes), janitor, num_spares=num_spares)
            chain = StagedChain(host, recipes, folder, settings)
            try:
                yield chain
            finally:
                chain.close()


def _memory_folder() -> str | None:
    """Where files are memory, None where no such place is known."""
    shared = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it
    return str(shared) if os.access(shared, os.W_OK) else None
