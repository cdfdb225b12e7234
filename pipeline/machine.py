"""The machine that this process runs on, as devices to plan for and to hold a placement against."""

import os

from pipeline.device import Cluster, Device, gib, standard_device
from pipeline.errors import PlanError
from pipeline.placement import Placement


def this_machine() -> Cluster:
    """The devices here: its cards, else its cores, which share its memory."""
    cards = tuple(
        standard_device("cuda", index, memory_bytes=memory)
        for index, memory in enumerate(card_memories())
    )
    if cards:
        return Cluster(devices=cards)
    count = len(cores())
    memory = machine_memory() // count
    return Cluster(
        devices=tuple(standard_device("cpu", index, memory_bytes=memory) for index in range(count))
    )


def cores() -> tuple[int, ...]:
    """The cores that this process may run on."""
    return tuple(sorted(os.sched_getaffinity(0)))


def card_memories() -> tuple[int, ...]:
    """Bytes of each card's memory, in the order in which torch names them."""
    import torch

    count = torch.cuda.device_count()
    return tuple(torch.cuda.get_device_properties(i).total_memory for i in range(count))


def all_card_memories() -> tuple[int, ...]:
    """The same in a process from which Ray hides the cards; for a process of its own only."""
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    return card_memories()


def machine_memory() -> int:
    """Bytes of the machine's own memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def require_here(placement: Placement, *, num_sessions: int = 1) -> None:
    """Refuse a placement on devices, or on more memory, than this machine has.

    Raises:
        PlanError: one line with what it takes and what there is.
    """
    nodes = sorted({device.node for device in placement.devices})
    if len(nodes) > 1:
        raise PlanError(
            f"--devices describes {len(nodes)} nodes, this machine is one: give the cluster's "
            "--ray-address, or write the devices without '/'"
        )
    have = {"cpu": len(cores()), "cuda": len(card_memories())}
    for kind, count in have.items():
        need = 1 + max((_index(d) for d in placement.devices if d.kind == kind), default=-1)
        if need > count:
            raise PlanError(
                f"the plan is placed on {kind}:{need - 1}, which is not there: it needs {need} "
                f"{kind} devices, this machine has {count}; describe what it has with --devices, "
                "or leave --devices out"
            )
    _require_memory(placement, num_sessions)


def _require_memory(placement: Placement, num_sessions: int) -> None:
    """Refuse stages that take more than the real memory, whatever was said of the devices."""
    cards = card_memories()
    on_cores = [d for d in placement.devices if d.kind == "cpu"]
    needs = [("its cores", _need(placement, on_cores, num_sessions), machine_memory())]
    for device in placement.devices:
        if device.kind == "cuda":
            need = _need(placement, [device], num_sessions)
            needs.append((device.name, need, cards[_index(device)]))
    for where, need, have in needs:
        if need > have:
            raise PlanError(
                f"the plan needs {gib(need)} on {where}, this machine has {gib(have)} there: use "
                "smaller pictures or another model"
            )


def _need(placement: Placement, devices: list[Device], num_sessions: int) -> int:
    return sum(placement.need(device).total(num_sessions) for device in devices)


def _index(device: Device) -> int:
    return int(device.name.rpartition(":")[2])
