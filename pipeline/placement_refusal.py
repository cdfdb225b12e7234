"""Says in one line why a plan cannot be placed, with the arithmetic and the remedy."""

from pipeline.chain_work import ChainWork, MemoryNeed, decode_need, need_of, usable_bytes
from pipeline.device import Cluster, Device, gib
from pipeline.errors import PlanError
from pipeline.plan import Plan

MAX_SESSIONS = 10_000


def require_sessions(num_sessions: int) -> None:
    """Refuse a number of sessions that is none.

    Raises:
        PlanError: it is out of range.
    """
    if not 1 <= num_sessions <= MAX_SESSIONS:
        raise PlanError(f"{num_sessions} sessions: plan for 1..{MAX_SESSIONS}")


def require_stages(plan: Plan, num_stages: int | None, *, fixed: bool = False) -> None:
    """Refuse more stages than steps, and other cuts than those of a plan that names devices.

    Raises:
        PlanError: there cannot be so many stages.
    """
    num_steps = len(plan.steps)
    if num_stages is not None and not 1 <= num_stages <= num_steps:
        raise PlanError(
            f"plan {plan.name} has {num_steps} steps, which cannot be cut into {num_stages} "
            f"stages: choose 1..{num_steps}"
        )
    if fixed and num_stages not in (None, len(plan.stages)):
        raise PlanError(
            f"plan {plan.name} names devices for its {len(plan.stages)} stages, so it is not cut "
            f"into {num_stages}: leave the number of stages or the device names out"
        )


def require_fit(plan: Plan, need: MemoryNeed, device: Device, num_sessions: int) -> None:
    """Refuse what is larger than its device.

    Raises:
        PlanError: it is.
    """
    if need.total(num_sessions) > usable_bytes(device):
        what = f"plan {plan.name}: {device.node}/{device.name}"
        raise PlanError(_too_large(what, need, device, num_sessions))


def memory_error(plan: Plan, work: ChainWork, cluster: Cluster, num_sessions: int) -> PlanError:
    """Why no cut fits: a step or the decoder is too large for any device, or all are too many."""
    largest = max(cluster.devices, key=lambda device: usable_bytes(device) / device.value_bytes)
    needs = [
        (f"step {index}", need_of(work, [(index, index + 1)], False, largest))
        for index in range(len(work.steps))
    ]
    needs.append(("the decoder", decode_need(work, largest)))
    what, worst = max(needs, key=lambda entry: entry[1].total(num_sessions))
    if worst.total(num_sessions) > usable_bytes(largest):
        return PlanError(_too_large(f"plan {plan.name}: {what}", worst, largest, num_sessions))
    return PlanError(_too_many(plan, work, cluster, largest, num_sessions))


def _too_large(what: str, need: MemoryNeed, device: Device, num_sessions: int) -> str:
    """One thing against one device."""
    slots = need.slots(device)
    remedy = f"{slots} would fit: ask for fewer sessions, " if slots else "not even one fits: "
    return (
        f"{what} needs {gib(need.total(num_sessions))} for {_sessions(num_sessions)} "
        f"({need.formula}), {_has(device)}; "
        f"{remedy}choose smaller pictures or a device with more memory"
    )


def _too_many(
    plan: Plan, work: ChainWork, cluster: Cluster, device: Device, num_sessions: int
) -> str:
    """All steps and the decoder against what the largest device can hold of them."""
    num_steps = len(work.steps)
    needs = [need_of(work, [(0, end)], False, device) for end in range(1, num_steps + 1)]
    needs.append(need_of(work, [(0, num_steps)], True, device))
    fitting = sum(need.total(num_sessions) <= usable_bytes(device) for need in needs)
    over = needs[min(fitting, num_steps)]
    held = "all steps without the decoder" if fitting == num_steps else _steps(fitting)
    next_up = "with it they need" if fitting == num_steps else f"{_steps(fitting + 1)} need"
    return (
        f"plan {plan.name}: {_steps(num_steps)} and the decoder of {_sessions(num_sessions)} do "
        f"not fit on {cluster.describe()}: one device holds {held} ({next_up} "
        f"{gib(over.total(num_sessions))} = {over.formula}, {_has(device)}); "
        "add devices, allow more stages or ask for fewer sessions"
    )


def _sessions(count: int) -> str:
    return f"{count} session{'s' if count > 1 else ''}"


def _steps(count: int) -> str:
    return f"{count} step{'s' if count > 1 else ''}"


def _has(device: Device) -> str:
    """A device's memory in words."""
    return (
        f"a {device.kind} device has {gib(device.memory_bytes)}, {gib(usable_bytes(device))} usable"
    )
