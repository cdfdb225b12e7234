"""What a chain can be placed on: devices, the nodes they are in, and how a person writes them."""

import re
from collections import Counter
from dataclasses import dataclass
from typing import Literal, get_args

from pipeline.errors import PlanError

DeviceKind = Literal["cpu", "cuda"]

GIB = 1 << 30
MAX_DEVICES = 512
EXAMPLES = "cpu:2, cuda:80GiB x5, or cuda:80GiB x4 / cuda:80GiB x4 for two nodes"

# What is kept up in practice, not what a data sheet promises (docs/placement.md): float32 on one
# core with torch, bfloat16 on a card of the 989 TFLOP/s class.
_SUSTAINED_FLOPS: dict[DeviceKind, float] = {"cpu": 30e9, "cuda": 400e12}
_LAYER_OVERHEAD_MS: dict[DeviceKind, float] = {"cpu": 1.3, "cuda": 0.1}
_VALUE_BYTES: dict[DeviceKind, int] = {"cpu": 4, "cuda": 2}
_CPU_MEMORY_BYTES = 4 * GIB

_ITEM = re.compile(
    r"(?P<kind>[a-z]{1,12})"
    r"(:(?P<cores>[0-9]{1,4})(?![0-9.]*[A-Za-z]))?"
    r"(:(?P<memory>[0-9]{1,6}(\.[0-9]{1,3})?)(?P<unit>GiB|GB|MiB|MB))?"
    r"(@(?P<rate>[0-9]{1,6}(\.[0-9]{1,3})?))?"
    r"(\s*[x*]\s*(?P<times>[0-9]{1,4}))?"
)
_UNITS = {"GiB": GIB, "GB": 10**9, "MiB": 1 << 20, "MB": 10**6}


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """Something that computes one thing at a time: a card, or one core.

    `flops` is the sustained rate in operations a second, `layer_overhead_ms` what a transformer
    layer takes however small it is, `value_bytes` the size of the numbers it computes with.
    """

    name: str
    kind: DeviceKind
    memory_bytes: int
    flops: float
    layer_overhead_ms: float
    value_bytes: int
    node: str = "node0"

    def __post_init__(self) -> None:
        """Refuse a device that nothing could run on."""
        if self.memory_bytes <= 0 or not 0 < self.flops < float("inf"):
            raise PlanError(f"device {self.name} has no memory or computes nothing: describe it")

    @property
    def grade(self) -> tuple[str, int, float, float, int]:
        """Devices of one grade are as good as each other."""
        return (self.kind, self.memory_bytes, self.flops, self.layer_overhead_ms, self.value_bytes)

    @property
    def speed(self) -> str:
        """What measured times hold for: the same kind at the same rate, memory aside."""
        return f"{self.kind}@{self.flops:g}"

    @property
    def torch_name(self) -> str:
        """The device as torch spells it; cores have no names there."""
        return "cpu" if self.kind == "cpu" else self.name


def standard_device(
    kind: DeviceKind,
    index: int,
    *,
    node: str = "node0",
    memory_bytes: int | None = None,
    flops: float | None = None,
) -> Device:
    """Device `index` of a node, with the usual figures for what is not given."""
    return Device(
        name=f"{kind}:{index}",
        kind=kind,
        memory_bytes=_CPU_MEMORY_BYTES if memory_bytes is None else memory_bytes,
        flops=_SUSTAINED_FLOPS[kind] if flops is None else flops,
        layer_overhead_ms=_LAYER_OVERHEAD_MS[kind],
        value_bytes=_VALUE_BYTES[kind],
        node=node,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """All devices there are, in a fixed order; a device is named by node and name."""

    devices: tuple[Device, ...]

    def __post_init__(self) -> None:
        """Refuse a cluster of nothing, and two devices of one name."""
        if not 1 <= len(self.devices) <= MAX_DEVICES:
            raise PlanError(f"{len(self.devices)} devices: name 1..{MAX_DEVICES}, such as cpu:2")
        names = Counter((device.node, device.name) for device in self.devices)
        (node, name), count = names.most_common(1)[0]
        if count > 1:
            raise PlanError(f"device {name} of {node} is named {count} times: name it once")

    def find(self, name: str) -> Device:
        """The device of that name, `cuda:1` or, where nodes differ, `node1/cuda:1`.

        Raises:
            PlanError: there is none, or several.
        """
        wanted = f"{name}:0" if name in get_args(DeviceKind) else name
        found = [d for d in self.devices if wanted in (d.name, f"{d.node}/{d.name}")]
        if len(found) == 1:
            return found[0]
        have = self.describe()
        if not found:
            raise PlanError(f"device {name!r} is not there: the cluster has {have}")
        raise PlanError(f"device {name!r} is in several nodes: write {found[0].node}/{wanted}")

    def describe(self) -> str:
        """The devices by node, in a few words."""
        counts = Counter((d.node, d.kind, d.memory_bytes) for d in self.devices)
        parts = [
            f"{count} x {kind} of {gib(memory)} in {node}"
            for (node, kind, memory), count in counts.items()
        ]
        return ", ".join(parts)


def gib(num_bytes: float) -> str:
    """A size for people."""
    return f"{num_bytes / GIB:.1f} GiB" if num_bytes >= GIB / 10 else f"{num_bytes / 2**20:.1f} MiB"


def parse_devices(text: str) -> Cluster:
    """A cluster from what a person writes: items joined by commas, nodes parted by slashes.

    An item is `cpu:2` (two cores), `cpu:2:8GiB` (of 8 GiB each), `cuda:80GiB`, `cuda:80GiB x5`
    (five of them); `@461` after it is the sustained rate in TFLOP/s (of a core in GFLOP/s).

    Raises:
        PlanError: one line naming what is not understood.
    """
    devices: list[Device] = []
    for position, node_text in enumerate(text.split("/")):
        devices += _node_devices(node_text, f"node{position}")
        if len(devices) > MAX_DEVICES:
            raise PlanError(f"--devices names more than {MAX_DEVICES} devices: name fewer")
    return Cluster(devices=tuple(devices))


def _node_devices(text: str, node: str) -> list[Device]:
    """The devices of one node, numbered by kind."""
    numbers: Counter[str] = Counter()
    devices = []
    for item in text.split(","):
        for memory_bytes, flops, kind in _parse_item(item.strip()):
            device = standard_device(
                kind, numbers[kind], node=node, memory_bytes=memory_bytes, flops=flops
            )
            numbers[kind] += 1
            devices.append(device)
    return devices


def _parse_item(item: str) -> list[tuple[int | None, float | None, DeviceKind]]:
    """Memory, rate and kind of each device that an item stands for."""
    match = _ITEM.fullmatch(item)
    kind = next((k for k in get_args(DeviceKind) if match and match["kind"] == k), None)
    if match is None or kind is None:
        raise PlanError(f"--devices {item[:40]!r} is not understood: write {EXAMPLES}")
    if kind == "cuda" and (match["memory"] is None or match["cores"] is not None):
        raise PlanError(f"--devices {item[:40]!r} lacks the card's memory: write cuda:80GiB")
    memory_bytes = None
    if match["memory"] is not None:
        memory_bytes = round(float(match["memory"]) * _UNITS[match["unit"]])
    unit = 1e12 if kind == "cuda" else 1e9
    flops = float(match["rate"]) * unit if match["rate"] else None
    count = int(match["cores"] or 1) * int(match["times"] or 1)
    if not 1 <= count <= MAX_DEVICES or memory_bytes == 0 or flops == 0:
        raise PlanError(
            f"--devices {item[:40]!r} is out of range: 1..{MAX_DEVICES} devices with memory"
        )
    return [(memory_bytes, flops, kind)] * count
