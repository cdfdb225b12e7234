"""Which device, of those that are as good as each other, gets which run of steps."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from pipeline.device import Cluster, Device

Strategy = Literal["pack", "spread"]
Grade = tuple[str, int, float, float, int]
Span = tuple[int, int]


def choose_devices(
    spans: Sequence[Span],
    grades: Sequence[Grade],
    cluster: Cluster,
    *,
    strategy: Strategy,
    held: Sequence[tuple[Span, Device]] = (),
) -> list[Device]:
    """A device of its grade for each span of steps; there are enough of each.

    `pack` uses as few nodes as it can and keeps neighbours together, `spread` evens the nodes
    out. `held` says which device has the lanes of which steps now: fewest lanes shall move.
    """
    chosen = _keep(spans, grades, cluster, held)
    free = [device for device in cluster.devices if device not in chosen.values()]
    for index, grade in enumerate(grades):
        if index in chosen:
            continue
        fitting = [device for device in free if device.grade == grade]
        missing = Counter(g for i, g in enumerate(grades) if i >= index and i not in chosen)
        used = Counter(device.node for device in chosen.values())
        before = chosen[index - 1].node if index else None
        if strategy == "pack":
            device = _packed(fitting, free, missing, used, before)
        else:
            device = min(fitting, key=lambda d: used[d.node])
        chosen[index] = device
        free.remove(device)
    return [chosen[index] for index in range(len(grades))]


def _keep(
    spans: Sequence[Span],
    grades: Sequence[Grade],
    cluster: Cluster,
    held: Sequence[tuple[Span, Device]],
) -> dict[int, Device]:
    """Devices that stay with a span since they hold steps of it, most steps first."""
    overlaps = [
        (min(span[1], was[1]) - max(span[0], was[0]), index, device)
        for index, span in enumerate(spans)
        for was, device in held
        if device in cluster.devices and device.grade == grades[index]
    ]
    chosen: dict[int, Device] = {}
    for overlap, index, device in sorted(overlaps, key=lambda entry: (-entry[0], entry[1])):
        if overlap > 0 and index not in chosen and device not in chosen.values():
            chosen[index] = device
    return chosen


def _packed(
    fitting: Sequence[Device],
    free: Sequence[Device],
    missing: Counter[Grade],
    used: Counter[str],
    before: str | None,
) -> Device:
    """The next device when nodes shall be few: stay where the chain is, else the best new node.

    The best node holds all that is missing and little more; failing that, most of it.
    """
    room: dict[str, Counter[Grade]] = {}
    for device in free:
        room.setdefault(device.node, Counter())[device.grade] += 1

    def rank(device: Device) -> tuple[bool, bool, int, int]:
        node = room[device.node]
        held = sum(min(count, node[grade]) for grade, count in missing.items())
        spare = sum(node.values()) - held
        return (device.node != before, not used[device.node], -held, spare)

    return min(fitting, key=rank)
