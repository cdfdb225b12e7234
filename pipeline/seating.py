"""What each process of a chain may take of its cluster, and which node gives it. Pure decisions.

Every device that a placement uses becomes a bundle: one CPU, and one GPU where it is a card. The
stages of a device share its bundle in equal parts, so Ray cannot put them on different cards.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.device import MAX_DEVICES, Cluster, Device, standard_device
from pipeline.errors import ChainError
from pipeline.placement import Placement

Resources = Mapping[str, float]

# Ray counts in ten-thousandths.
_GRAIN = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What is reserved together; `node` is the planner's name of its node, "" for any node."""

    resources: Resources
    node: str = ""

    @property
    def on_card(self) -> bool:
        """Whether a card is reserved."""
        return bool(self.resources.get("GPU"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """A process's part of a bundle; `core` is the one that it is alone on, None where it is not."""

    bundle: int
    num_cpus: float
    num_gpus: float = 0.0
    core: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seating:
    """The bundles of a chain, a seat for each of its stages in order, and those of spares."""

    bundles: tuple[Bundle, ...]
    seats: tuple[Seat, ...]
    spares: tuple[Seat, ...] = ()

    @property
    def needs(self) -> dict[str, float]:
        """All that is reserved."""
        total: Counter[str] = Counter()
        for bundle in self.bundles:
            total.update(dict(bundle.resources))
        return dict(total)

    def with_spares(self, count: int) -> "Seating":
        """Seats for so many spares more, each able to take any role that is there.

        A spare on a card can do what one on a core can; without one it could not take a card's
        place.
        """
        on_card = any(bundle.on_card for bundle in self.bundles)
        resources = {"CPU": 1.0, "GPU": 1.0} if on_card else {"CPU": 1.0}
        first = len(self.bundles)
        return Seating(
            bundles=(*self.bundles, *[Bundle(resources=resources)] * count),
            seats=self.seats,
            spares=tuple(
                Seat(bundle=first + index, num_cpus=1.0, num_gpus=float(on_card))
                for index in range(count)
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRoom:
    """A live node of a cluster: all it has, and what of it is free."""

    node_id: str
    address: str
    total: Resources
    free: Resources


def even_seating(num_stages: int) -> Seating:
    """A CPU for each stage, wherever there is one."""
    return Seating(
        bundles=(Bundle(resources={"CPU": 1.0}),) * num_stages,
        seats=tuple(Seat(bundle=index, num_cpus=1.0) for index in range(num_stages)),
    )


def seat_placement(placement: Placement, *, num_cores: int | None = None) -> Seating:
    """A bundle for each device and a seat in it for each of its stages, the decoder's last.

    A process stays on its core if it is alone there and the chain uses all `num_cores` of the
    machine: with a core left over, keeping it from moving there could only make it wait.
    """
    devices = placement.devices
    stays = num_cores == sum(device.kind == "cpu" for device in devices)
    seats = []
    for stage in placement.stages:
        device, sharers = stage.device, len(placement.on(stage.device))
        seats.append(
            Seat(
                bundle=devices.index(device),
                num_cpus=_part(sharers),
                num_gpus=_part(sharers) if device.kind == "cuda" else 0.0,
                core=_core(device) if stays and sharers == 1 else None,
            )
        )
    bundles = tuple(Bundle(resources=_resources(d), node=d.node) for d in devices)
    return Seating(bundles=bundles, seats=tuple(seats))


def reseated(seating: Seating, rooms: Sequence[NodeRoom]) -> Seating:
    """The stages on what is left of a cluster: each as before if it goes, else closer together.

    Raises:
        ChainError: there is nothing left.
    """
    cards = sum(int(min(r.free.get("GPU", 0.0), r.free.get("CPU", 0.0))) for r in rooms)
    cores = sum(int(room.free.get("CPU", 0.0)) for room in rooms)
    on_card = [seat.num_gpus > 0.0 for seat in seating.seats]
    used = min(cards, len({s.bundle for s in seating.seats if s.num_gpus}))
    left = min(cores - used, len({s.bundle for s in seating.seats if not s.num_gpus}))
    if (any(on_card) and not used) or (not all(on_card) and left < 1):
        raise ChainError(
            f"machines of the cluster are gone, and what is left has {cores} CPU and {cards} GPU "
            f"free: too little for {len(on_card)} stages; add nodes"
        )
    numbers = _shared_out(on_card.count(True), used), _shared_out(on_card.count(False), left)
    takers = iter(numbers[0]), iter(numbers[1])
    bundles = [used + next(takers[1]) if not card else next(takers[0]) for card in on_card]
    sharers = Counter(bundles)
    seats = tuple(
        Seat(
            bundle=bundle,
            num_cpus=_part(sharers[bundle]),
            num_gpus=_part(sharers[bundle]) if card else 0.0,
        )
        for bundle, card in zip(bundles, on_card, strict=True)
    )
    card, core = Bundle(resources={"CPU": 1.0, "GPU": 1.0}), Bundle(resources={"CPU": 1.0})
    return Seating(bundles=(card,) * used + (core,) * left, seats=seats)


def _shared_out(num_stages: int, num_bundles: int) -> list[int]:
    """The bundle of each stage, neighbours together."""
    return [index * num_bundles // num_stages for index in range(num_stages)]


def _part(sharers: int) -> float:
    """What each of several gets of one; Ray counts in ten-thousandths."""
    return _GRAIN // sharers / _GRAIN


def _resources(device: Device) -> Resources:
    return {"CPU": 1.0, "GPU": 1.0} if device.kind == "cuda" else {"CPU": 1.0}


def _core(device: Device) -> int | None:
    """The number of a core, None for a card."""
    return int(device.name.rpartition(":")[2]) if device.kind == "cpu" else None


def choose_nodes(
    seating: Seating, rooms: Sequence[NodeRoom], known: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The id of the cluster's node for each of the planner's, the one that needs most first.

    `known` says which node is which where the planner was told of the cluster's own. Of nodes
    with enough free the fullest is taken, so that larger ones stay whole.

    Raises:
        ChainError: one line with what is needed, what there is and what of it is free.
    """
    needs: dict[str, Counter[str]] = {}
    for bundle in seating.bundles:
        needs.setdefault(bundle.node, Counter()).update(dict(bundle.resources))
    anywhere = needs.pop("", Counter[str]())
    left = {room.node_id: room for room in rooms}
    chosen: dict[str, str] = {}
    for node, need in sorted(needs.items(), key=lambda item: -sum(item[1].values())):
        wanted = None if known is None else known.get(node)
        fitting = [
            room
            for room in left.values()
            if _holds(room.free, need) and wanted in (None, room.node_id)
        ]
        if not fitting:
            where = f" in one node ({node} of {len(needs)})" if len(needs) > 1 else " in one node"
            raise ChainError(_too_small(need, where, rooms))
        best = min(fitting, key=lambda room: sum(room.free.get(k, 0.0) for k in ("CPU", "GPU")))
        chosen[node] = best.node_id
        del left[best.node_id]
    free: Counter[str] = Counter()
    for room in rooms:
        free.update({kind: room.free.get(kind, 0.0) for kind in seating.needs})
    if anywhere and not _holds(free, seating.needs):
        raise ChainError(_too_small(seating.needs, "", rooms))
    return chosen


def _holds(free: Resources, need: Resources) -> bool:
    return all(free.get(kind, 0.0) + 1.0 / _GRAIN > count for kind, count in need.items())


def _too_small(need: Resources, where: str, rooms: Sequence[NodeRoom]) -> str:
    have = "; ".join(
        f"node {room.address} has {_words(room.total, need)}, {_words(room.free, need)} free"
        for room in rooms
    )
    return (
        f"the chain needs {_words(need, need)}{where}, and the Ray cluster cannot give that "
        f"({have or 'no live node'}): use fewer stages, --devices that are there, or add nodes"
    )


def _words(resources: Resources, kinds: Resources) -> str:
    """Counts of these kinds for people."""
    return " and ".join(f"{resources.get(kind, 0.0):g} {kind}" for kind in sorted(kinds))


def cluster_of(rooms: Sequence[NodeRoom], cards: Mapping[str, Sequence[int]]) -> Cluster:
    """The free devices of a cluster's nodes, which are named in their order.

    `cards` has the memory of each free card of nodes that have any; there, cores are left out.

    Raises:
        ChainError: nothing is free.
    """
    devices: list[Device] = []
    for index, room in enumerate(rooms):
        node = f"node{index}"
        memories = cards.get(room.node_id, ())
        devices += [
            standard_device("cuda", card, node=node, memory_bytes=memory)
            for card, memory in enumerate(memories)
        ]
        if not memories:
            count = int(room.free.get("CPU", 0.0))
            memory = int(room.total.get("memory", 0.0)) // max(count, 1) or None
            devices += [
                standard_device("cpu", core, node=node, memory_bytes=memory)
                for core in range(count)
            ]
    if not devices:
        raise ChainError("the Ray cluster has no device free: wait for one, or add nodes")
    return Cluster(devices=tuple(devices[:MAX_DEVICES]))
