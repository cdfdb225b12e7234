"""Stage nodes as Ray actors on a cluster, or on a Ray of their own.

Ray makes processes, places them and tells of their deaths; no chunk ever goes through it. Only this
module and `worker.py` import it.
"""

import contextlib
import logging
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray._private import worker as ray_worker
from ray._private.state import available_resources_per_node
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.placement_group import placement_group_table as group_table
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as OnNode
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy as InGroup

from pipeline.cluster_address import require_reachable
from pipeline.device import Cluster
from pipeline.errors import ChainError
from pipeline.host import NodeHandle, NodeSpec
from pipeline.janitor import Janitor
from pipeline.machine import all_card_memories
from pipeline.node_choice import Strategy
from pipeline.ray_process import memory_folder, ray_environment, signal_handlers_kept
from pipeline.reach import moved
from pipeline.recipe import Recipe
from pipeline.seating import (
    NodeRoom,
    Seat,
    Seating,
    choose_nodes,
    cluster_of,
    even_seating,
    reseated,
)
from pipeline.staged_chain import ChainSettings, StagedChain
from pipeline.worker import RayHandle as RayHandle
from pipeline.worker import Worker

# Control calls run beside the one that never returns.
ACTOR_THREADS = 8
# Ray's own store holds session openings only, a few portraits.
OBJECT_STORE_BYTES = 100 << 20
# A group that was just given back blocks its room for about a second.
ROOM_WAIT_S = 5.0
PLACEMENT_TIMEOUT_S = 20.0
PROBE_TIMEOUT_S = 60.0
_NODE_LABEL = "ray.io/node-id"


@dataclass(frozen=True, slots=True)
class Place:
    """A seat in a node: where Ray puts the worker that has it."""

    seat: Seat
    node_id: str
    address: str


class RayHost:
    """Makes nodes as actors, each in its seat of one placement group.

    Spare workers wait without a role, with everything imported: starting a process and importing
    torch takes seconds, taking a role does not.
    """

    def __init__(
        self,
        seating: Seating,
        janitor: Janitor,
        *,
        strategy: Strategy = "pack",
        known: dict[str, str] | None = None,
    ) -> None:
        """Reserve all bundles; `known` gives the cluster's node for names of the planner's.

        Raises:
            ChainError: the cluster does not have that much.
        """
        self.seating, self._janitor = seating, janitor
        self._group = _reserve(seating, strategy, known)
        places = _places(self._group, (*seating.seats, *seating.spares))
        self._own, self._num_spares = places[: len(seating.seats)], len(seating.spares)
        self._free = list(places)
        self._taken: list[tuple[RayHandle, Place]] = []
        self._spares: list[tuple[Any, Place]] = []

    def spawn(self, spec: NodeSpec) -> RayHandle:
        """Give a spare worker the role, or begin to make one.

        Raises:
            ChainError: no place is left of those that were reserved.
        """
        self._reclaim()
        own = self._own[min(spec.position, len(self._own) - 1)]
        actor, place = self._spare_for(own) or self._seated(self._place_for(own))
        spec = replace(spec, address=moved(spec.address, place.address), core=place.seat.core)
        handle = RayHandle(actor, spec, self._janitor)
        self._taken.append((handle, place))
        return handle

    def _reclaim(self) -> None:
        """Have the places of dead nodes again, but for those on machines that are gone."""
        dead = [(handle, place) for handle, place in self._taken if handle.is_killed]
        if not dead:
            return
        self._taken = [entry for entry in self._taken if not entry[0].is_killed]
        alive = {room.node_id for room in node_rooms()}
        places = [*self._free, *(place for _, place in dead)]
        self._free = [place for place in places if place.node_id in alive]
        self._spares = [entry for entry in self._spares if entry[1].node_id in alive]

    def _spare_for(self, own: Place) -> tuple[Any, Place] | None:
        """A spare that has what the role needs."""
        for entry in self._spares:
            if bool(entry[1].seat.num_gpus) >= bool(own.seat.num_gpus):
                self._spares.remove(entry)
                return entry
        return None

    def _place_for(self, own: Place) -> Place:
        """A free place with what the role needs, its own if that is free."""
        fitting = [p for p in self._free if bool(p.seat.num_gpus) >= bool(own.seat.num_gpus)]
        if not fitting:
            raise ChainError("the machine of a stage is gone, and no reserved place is left for it")
        place = own if own in fitting else fitting[0]
        self._free.remove(place)
        return place

    def replenish(self) -> None:
        """Have spares wait again; called when everybody else is at work."""
        self._reclaim()
        while self._free and len(self._spares) < self._num_spares:
            entry = self._seated(self._free.pop(0))
            entry[0].warm.remote()
            self._spares.append(entry)

    def _seated(self, place: Place) -> tuple[Any, Place]:
        """A new worker in a place."""
        actor = (
            ray.remote(Worker)
            .options(
                num_cpus=place.seat.num_cpus,
                num_gpus=place.seat.num_gpus,
                max_restarts=0,
                max_task_retries=0,
                max_concurrency=ACTOR_THREADS,
                scheduling_strategy=InGroup(
                    placement_group=self._group, placement_group_bundle_index=place.seat.bundle
                ),
            )
            .remote()
        )
        return actor, place

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
        for handle, _ in self._taken:
            handle.kill()
        for actor, _ in self._spares:
            with contextlib.suppress(RayError):
                ray.kill(actor, no_restart=True)
        with contextlib.suppress(RayError):
            remove_placement_group(self._group)


def _reserve(
    seating: Seating, strategy: Strategy, known: dict[str, str] | None = None
) -> PlacementGroup:
    """A placement group with every bundle in the node that was chosen for it."""
    chosen = _choose_nodes(seating, known)
    labels = [{_NODE_LABEL: chosen[b.node]} if b.node in chosen else {} for b in seating.bundles]
    group: PlacementGroup = placement_group(
        [dict(bundle.resources) for bundle in seating.bundles],
        strategy=strategy.upper(),
        bundle_label_selector=labels,
    )
    if not group.wait(PLACEMENT_TIMEOUT_S):
        remove_placement_group(group)
        choose_nodes(seating, node_rooms(), known)
        raise ChainError("the Ray cluster has room for the chain but did not give it: try again")
    return group


def _choose_nodes(seating: Seating, known: dict[str, str] | None) -> dict[str, str]:
    """The node for each of the planner's; waits a little for room that is being given back."""
    for _ in range(int(ROOM_WAIT_S / 0.25)):
        with contextlib.suppress(ChainError):
            return choose_nodes(seating, node_rooms(), known)
        threading.Event().wait(0.25)
    return choose_nodes(seating, node_rooms(), known)


def _places(group: PlacementGroup, seats: Sequence[Seat]) -> list[Place]:
    """Where the seats turned out to be."""
    nodes: dict[int, str] = group_table(group)["bundles_to_node_id"]
    addresses = {room.node_id: room.address for room in node_rooms()}
    return [
        Place(seat, nodes[seat.bundle], addresses.get(nodes[seat.bundle], "127.0.0.1"))
        for seat in seats
    ]


def node_rooms() -> list[NodeRoom]:
    """The cluster's live nodes, this one's first."""
    free = available_resources_per_node()  # type: ignore[no-untyped-call]  # Ray has no hints here
    here = ray.get_runtime_context().get_node_id()
    rooms = [
        NodeRoom(
            node_id=node["NodeID"],
            address=node["NodeManagerAddress"],
            total=node["Resources"],
            free=free.get(node["NodeID"], {}),
        )
        for node in ray.nodes()  # type: ignore[no-untyped-call]  # Ray has no hints here
        if node["Alive"]
    ]
    return sorted(rooms, key=lambda room: (room.node_id != here, room.node_id))


def _own_address() -> str:
    """This node's address as the others of the cluster reach it."""
    here = ray.get_runtime_context().get_node_id()
    return next(room.address for room in node_rooms() if room.node_id == here)


def _settled_rooms() -> list[NodeRoom]:
    """The live nodes once nothing more is being given back, as far as can be seen."""
    rooms, before = node_rooms(), None
    for _ in range(int(ROOM_WAIT_S)):
        if rooms == before:
            break
        threading.Event().wait(1.0)
        rooms, before = node_rooms(), rooms
    return rooms


def cluster_devices() -> tuple[Cluster, dict[str, str]]:
    """The cluster's free devices for the planner, and the id of each node by its name there.

    Raises:
        ChainError: no device is free, or a node does not tell about its cards.
    """
    rooms = [room for room in node_rooms() if room.free.get("CPU", 0.0) >= 1.0]
    cards = {room.node_id: _cards_of(room) for room in rooms if room.free.get("GPU", 0.0) >= 1.0}
    return cluster_of(rooms, cards), {f"node{i}": room.node_id for i, room in enumerate(rooms)}


def _cards_of(room: NodeRoom) -> list[int]:
    """Bytes of each free card of a node; a worker there looks, for Ray does not know."""
    look = ray.remote(all_card_memories).options(
        num_cpus=0, max_calls=1, scheduling_strategy=OnNode(node_id=room.node_id, soft=False)
    )
    try:
        memories: tuple[int, ...] = ray.get(look.remote(), timeout=PROBE_TIMEOUT_S)
    except (RayError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ChainError(f"node {room.address} does not tell about its cards ({reason})") from error
    return list(memories[: int(room.free["GPU"])])


@contextlib.contextmanager
def ray_cluster(address: str | None, needs: dict[str, float], janitor: Janitor) -> Iterator[None]:
    """A connection to the cluster at `address`, or to a Ray of one's own that ends with this.

    `needs` are the CPUs and GPUs that one's own shall count. Call it in a thread that lives as
    long as Ray shall: the kernel ends Ray with that thread.

    Raises:
        ChainError: no cluster answers there, or Ray does not start.
    """
    logging.getLogger("ray").setLevel(logging.ERROR)
    # Else it would print each death of a node on stdout, where results go.
    ray_worker._worker_logs_enabled = False
    with ray_environment(is_own=address is None):
        try:
            with signal_handlers_kept():
                if address:
                    require_reachable(address)
                    ray.init(address=address, log_to_driver=False, configure_logging=False)
                else:
                    _start_own(needs, janitor)
        except ChainError:
            raise
        except (RayError, ConnectionError, RuntimeError, ValueError, OSError) as error:
            reason = " ".join(str(error).split())[:300]
            where = f"the cluster at {address} let nobody in" if address else "it does not start"
            raise ChainError(f"Ray: {where} ({reason})") from error
        try:
            yield
        finally:
            ray.shutdown()


def _start_own(needs: dict[str, float], janitor: Janitor) -> None:
    """A Ray on this machine in a folder of its own; sockets need the folder's path to be short."""
    folder = Path(tempfile.mkdtemp(prefix="viva-ray-", dir="/tmp"))
    janitor.remove_later(folder)
    ray.init(
        address="local",
        num_cpus=int(needs["CPU"]) + 1,
        num_gpus=int(needs.get("GPU", 0)),
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        object_store_memory=OBJECT_STORE_BYTES,
        _temp_dir=str(folder),
    )


@contextlib.contextmanager
def open_ray_chain(
    recipes: Sequence[Recipe],
    settings: ChainSettings,
    *,
    address: str | None = None,
    num_spares: int = 0,
) -> Iterator[StagedChain]:
    """A chain of actors with a CPU each, wherever there is one, and nothing left of it afterwards.

    `address` is that of a Ray cluster, None for a Ray of its own; `num_spares` workers wait to
    take the place of stages that die. `placed_chain.py` opens chains that were planned.

    Raises:
        ModelError, PlanError, ChainError: the chain cannot be set up.
        ChainDown: nodes die as soon as they are made.
    """
    seating = even_seating(len(recipes)).with_spares(num_spares)
    with Janitor() as janitor, ray_cluster(address, seating.needs, janitor):
        host = RayHost(seating, janitor)
        with chain_on(host, recipes, settings, janitor, is_own=address is None) as chain:
            yield chain


@contextlib.contextmanager
def chain_on(
    host: RayHost,
    recipes: Sequence[Recipe],
    settings: ChainSettings,
    janitor: Janitor,
    *,
    is_own: bool,
) -> Iterator[StagedChain]:
    """A chain on a host, closed at the end.

    On a cluster that is not our own its stages may be on other machines: they listen for those,
    too, and checkpoints are copied to the driver. If machines are lost, and with them the places
    that were reserved, what is left of the cluster is asked for others.
    """
    folder = Path(tempfile.mkdtemp(prefix="viva-", dir=memory_folder()))
    janitor.remove_later(folder)
    if not is_own:
        settings = replace(settings, keep="driver", host=_own_address())

    hosts = [host]

    def another_host() -> RayHost:
        hosts[-1].close()
        hosts.append(RayHost(reseated(host.seating, _settled_rooms()), janitor))
        return hosts[-1]

    chain = StagedChain(
        host, recipes, folder, settings, another_host=None if is_own else another_host
    )
    try:
        yield chain
    finally:
        chain.close()
