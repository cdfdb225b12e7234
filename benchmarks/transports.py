"""Measures what a hop between stages costs, by every transport that a chain could use.

    python benchmarks/transports.py [--rounds 3] [--samples 200]

On a machine that has other work, run it by `nice -n -20`: it takes two minutes.

Four stages that do nothing, each an actor of its own, between a source and a sink in this process:
five hops. Latency is that of one chunk under way, the period that of four. Every figure is that
of the round with the lowest median, as other work on the machine only ever adds to it. The same
is done for pictures on their one hop from the decoder to the process that shows them.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray
import torch
from report import table, write_report
from transport_hops import idle_cores, picture_ms, setup_ms
from transport_load import OtherLoad
from transport_relays import Relay
from transport_ways import NUM_HOPS, NUM_STAGES, Way, ways

from pipeline.janitor import Janitor
from pipeline.supervisor import ray_cluster

IN_FLIGHT = 4
SIZES_BYTES = (100_000, 1_000_000, 10_000_000)
# Twelve pictures each: 256x256, 480x832.
PICTURES = ((12, 256, 256, 3), (12, 480, 832, 3))
HOP_LIMIT_MS = 1.0


@dataclass(frozen=True, slots=True)
class Figures:
    """Milliseconds of one transport at one size, and the cores that others used meanwhile."""

    median_ms: float
    p95_ms: float
    period_ms: float
    other_cores: float


def measured(way: Way, num_samples: int) -> Figures:
    """One round."""
    load = OtherLoad()
    times_ms = []
    for _ in range(num_samples + num_samples // 10):
        began_s = time.perf_counter()
        way.put()
        way.take()
        times_ms.append(1e3 * (time.perf_counter() - began_s))
    times_ms = times_ms[num_samples // 10 :]
    for _ in range(IN_FLIGHT):
        way.put()
    began_s = time.perf_counter()
    for _ in range(num_samples):
        way.take()
        way.put()
    period_ms = 1e3 * (time.perf_counter() - began_s) / num_samples
    for _ in range(IN_FLIGHT):
        way.take()
    median_ms, p95_ms = np.percentile(times_ms, [50, 95])
    return Figures(float(median_ms), float(p95_ms), period_ms, load.cores())


def all_figures(
    actors: Sequence[Any], folder: Path, rounds: int, num_samples: int
) -> dict[str, dict[int, Figures]]:
    """Every transport at every size; rounds go around all of them."""
    best: dict[str, dict[int, Figures]] = {}
    for index in range(rounds):
        for num_bytes in SIZES_BYTES:
            for name, opened in ways(actors, folder, num_bytes).items():
                few = max(20, num_samples // (1 if num_bytes <= 1_000_000 else 4))
                with opened() as way:
                    figures = measured(way, few if "Ray" not in name else few // 2)
                known = best.setdefault(name, {}).get(num_bytes)
                if known is None or figures.median_ms < known.median_ms:
                    best[name][num_bytes] = figures
                print(index, num_bytes, name, figures, flush=True)
    return best


def describe(
    best: dict[str, dict[int, Figures]], pictures: list[list[str]], extra: list[list[str]]
) -> str:
    """The result as Markdown."""
    sizes = [f"{size / 1e6:g} MB" for size in SIZES_BYTES]
    latency = [
        [name, *(f"{f.median_ms:.2f} / {f.p95_ms:.2f}" for f in by_size.values())]
        for name, by_size in best.items()
    ]
    period = [
        [name, *(f"{f.period_ms:.2f}" for f in by_size.values())] for name, by_size in best.items()
    ]
    others = [f.other_cores for by_size in best.values() for f in by_size.values()]
    hops = [
        f"{name}: {by_size[1_000_000].median_ms / NUM_HOPS:.2f} ms"
        for name, by_size in best.items()
        if "link" in name
    ]
    unix_ms = best["**link `unix`**"][1_000_000].median_ms / NUM_HOPS
    verdict = "reached" if unix_ms <= HOP_LIMIT_MS else "NOT reached"
    versions = f"ray {ray.__version__}, msgpack {version('msgpack')}"
    return f"""{versions}, niceness {psutil.Process().nice()}.
Other work on this machine kept {min(others):.1f} to {max(others):.1f} of its {psutil.cpu_count()}
cores busy while the figures shown were taken (median {np.median(others):.1f}); six processes shared
what was left, so absolute figures are high, and ratios are what counts.

**Goal: at most {HOP_LIMIT_MS:g} ms median a hop for 1 MB: {verdict}** by the default link
({"; ".join(hops)}).

Latency of one chunk through {NUM_STAGES} stages, {NUM_HOPS} hops, ms median / p95:

{table(["transport", *sizes], latency)}

Period with {IN_FLIGHT} chunks under way, ms a chunk:

{table(["transport", *sizes], period)}

Twelve pictures from the decoder's process to this one, ms median / p95:

{table(["way", *("x".join(map(str, shape)) for shape in PICTURES)], pictures)}

{table(["link", "new link until its first 1 MB is there, ms median / max", "cores, idle"], extra)}

Left out: Ray's compiled graphs, which keep two cores busy while idle and did not end with payloads
of 1 MB when they were tried, and Ray's direct transport, which pays for a task a hop all the same
and is alpha; neither can be measured beside other work. NCCL was not measured.
"""


def main() -> None:
    """Measure and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=200)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with ExitStack() as stack:
        janitor = stack.enter_context(Janitor())
        folder = Path(tempfile.mkdtemp(prefix="viva-", dir="/dev/shm"))
        janitor.remove_later(folder)
        stack.enter_context(ray_cluster(None, {"CPU": float(NUM_STAGES)}, janitor))
        actors: list[Any] = [
            ray.remote(Relay).options(num_cpus=1, max_concurrency=8).remote()
            for _ in range(NUM_STAGES)
        ]
        best = all_figures(actors, folder, options.rounds, options.samples)
        kinds = {"frame ring": "ring", "unix link": "unix", "Ray's object store": "store"}
        pictures: list[list[str]] = [
            [name, *(picture_ms(actors[0], folder, s, kind, 60) for s in PICTURES)]
            for name, kind in kinds.items()
        ]
        extra: list[list[str]] = []
        for name, prefix in (("unix", ""), ("gloo", "gloo+")):
            times_ms = setup_ms(prefix, folder)
            idle = idle_cores(actors, folder, prefix)
            extra.append([name, f"{np.median(times_ms):.1f} / {max(times_ms):.1f}", f"{idle:.2f}"])
    path = write_report(
        "transports", "What a hop between stages costs", describe(best, pictures, extra)
    )
    print(path.read_text())


if __name__ == "__main__":
    main()
