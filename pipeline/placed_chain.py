"""Chains that were planned: from a plan and devices to a chain of actors that runs there."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

from pipeline.chain_settings import ChainSettings
from pipeline.device import Cluster
from pipeline.doorman import ChainCapacity
from pipeline.errors import ChainError
from pipeline.janitor import Janitor
from pipeline.machine import card_memories, cores, require_here, this_machine
from pipeline.node_choice import Strategy
from pipeline.placement import PlacedStage, Placement
from pipeline.plan import Plan
from pipeline.recipe import DecodeRecipe, DenoiseRecipe, Recipe
from pipeline.seating import Seating, choose_nodes, seat_placement
from pipeline.staged_chain import StagedChain
from pipeline.supervisor import RayHost, chain_on, cluster_devices, node_rooms, ray_cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainOrder:
    """A chain to be: its model, by a name or path that all machines know, and what it takes.

    `place` decides where stages run. `devices` None stands for those of this machine, or of the
    cluster at `address`; `num_spares` None for one spare if there is room for it.
    """

    model: str
    place: Callable[[Cluster], Placement]
    settings: ChainSettings
    devices: Cluster | None = None
    strategy: Strategy = "pack"
    address: str | None = None
    num_spares: int | None = None


@contextlib.contextmanager
def open_placed_chain(order: ChainOrder) -> Iterator[StagedChain]:
    """The chain that was ordered, and nothing left of it afterwards.

    Raises:
        ModelError, PlanError, ChainError: it cannot be set up; one line with the arithmetic.
        ChainDown: nodes die as soon as they are made.
    """
    with contextlib.ExitStack() as stack:
        if order.address is None:
            placement, known = order.place(order.devices or this_machine()), None
            require_here(placement)
            seating = _with_spares_here(seat_placement(placement, num_cores=len(cores())), order)
            janitor = stack.enter_context(Janitor())
            stack.enter_context(ray_cluster(None, seating.needs, janitor))
        else:
            janitor = stack.enter_context(Janitor())
            stack.enter_context(ray_cluster(order.address, {}, janitor))
            placement, known = _place_on_cluster(order)
            seating = _with_spares_there(seat_placement(placement), order, known)
        settings = replace(order.settings, capacity=ChainCapacity.of(placement))
        host = RayHost(seating, janitor, strategy=order.strategy, known=known)
        recipes, is_own = placed_recipes(order.model, placement), order.address is None
        yield stack.enter_context(chain_on(host, recipes, settings, janitor, is_own=is_own))


def placed_recipes(model: str, placement: Placement) -> list[Recipe]:
    """What each stage of a placement runs, in numbers of the size that was planned with.

    Ray shows a process only the card that it was given, which is the first there.
    """
    plan, stages = placement.cut_plan(), placement.stages
    return [_recipe(model, plan, index, stage) for index, stage in enumerate(stages)]


def _recipe(model: str, plan: Plan, index: int, stage: PlacedStage) -> Recipe:
    device = "cpu" if stage.device.kind == "cpu" else "cuda:0"
    dtype = torch.bfloat16 if stage.device.value_bytes == 2 else torch.float32
    if stage.decodes:
        return DecodeRecipe(model=model, device=device, dtype=dtype)
    return DenoiseRecipe(model=model, plan=plan, index=index, device=device, dtype=dtype)


def _place_on_cluster(order: ChainOrder) -> tuple[Placement, dict[str, str] | None]:
    """The placement, and which node of the cluster is which of the planner's, if that is known."""
    if order.devices is not None:
        return order.place(order.devices), None
    devices, known = cluster_devices()
    return order.place(devices), known


def _with_spares_here(seating: Seating, order: ChainOrder) -> Seating:
    """Spares on this machine: a second core is enough for one, but a card must be free for it."""
    num_cards = len({seat.bundle for seat in seating.seats if seat.num_gpus})
    free = len(card_memories()) - num_cards if num_cards else len(cores()) - 1
    if order.num_spares is None:
        return seating.with_spares(min(1, free))
    if num_cards and order.num_spares > free:
        raise ChainError(
            f"--spares {order.num_spares} needs as many free cards, and of {num_cards + free} here "
            f"{free} are free: use --spares {free}"
        )
    return seating.with_spares(order.num_spares)


def _with_spares_there(
    seating: Seating, order: ChainOrder, known: dict[str, str] | None
) -> Seating:
    """Spares on a cluster: those asked for, else one if there is room."""
    if order.num_spares is not None:
        return seating.with_spares(order.num_spares)
    with contextlib.suppress(ChainError):
        choose_nodes(seating.with_spares(1), node_rooms(), known)
        return seating.with_spares(1)
    return seating
