"""Measures the chain on Ray against its limits; each part writes a dated result file.

    python benchmarks/chain.py all|throughput|sleeping|overhead|latency [--quick]

`all` should take some eleven minutes on two idle cores. Exit status 1 if a
limit is not kept.
`--quick` only shows that everything runs; its figures mean little and are not written down.
"""

import argparse
import sys
from collections.abc import Callable

import chain_latency
import chain_overhead
import chain_pair
import chain_sleep
import chain_throughput
import psutil
from chain_stats import CHECK_HEADER, Check, Section
from report import table, write_report

# Where others use more of the processor than this before the start, times mean little.
IDLE_PERCENT = 10.0
TRANSPORTS = ["unix", "tcp", "gloo"]


def throughput(quick: bool) -> list[Section]:
    """Two actors against one process, and what the machine allows."""
    steps, chunks, repeats = (36, 1, 1) if quick else (40, 12, 3)
    allowed = chain_pair.measure(
        "pocket", num_steps=steps // 2, num_chunks=2 * chunks, num_repeats=repeats
    )
    measured = chain_throughput.measure(
        "pocket", num_steps=steps, num_chunks=chunks, num_repeats=repeats
    )
    return [*measured, allowed]


def sleeping(quick: bool) -> list[Section]:
    """Chains of sleeping stages."""
    if quick:
        return [chain_sleep.measure([2, 4], num_chunks=20, num_repeats=1)]
    return [chain_sleep.measure([4, 8, 16], num_chunks=100, num_repeats=3)]


def overhead(quick: bool, transports: list[str]) -> list[Section]:
    """Chains of stages that do nothing."""
    return [chain_overhead.measure(transports, num_chunks=30 if quick else 500)]


def latency(quick: bool) -> list[Section]:
    """More stages, more sessions."""
    if quick:
        return [chain_latency.measure("pocket", [1], num_chunks=3, sessions=[1])]
    return [chain_latency.measure("pocket", [1, 2, 4], num_chunks=20, sessions=[1, 4, 8])]


def run(
    name: str, measure: Callable[[], list[Section]], *, busy_percent: float, write: bool
) -> list[Check]:
    """Measure one part, show it, write it down."""
    sections = measure()
    checks = [check for section in sections for check in section.checks]
    parts = [f"## {section.title}\n\n{section.body}" for section in sections]
    if checks:
        parts.insert(0, table(CHECK_HEADER, [check.row() for check in checks]))
    if busy_percent > IDLE_PERCENT:
        parts.insert(
            0,
            f"**Others used {busy_percent:.0f} % of the processor before the start: measure again "
            "when the machine is idle.**",
        )
    body = "\n\n".join(parts)
    print(f"# {name}\n\n{body}\n", flush=True)
    if write:
        print(write_report(f"chain_{name}", f"The chain on Ray: {name}", body), flush=True)
    return checks


def main() -> None:
    """Measure what is asked for, and say which limits are kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=["all", "throughput", "sleeping", "overhead", "latency"])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--transports", nargs="+", default=TRANSPORTS)
    options = parser.parse_args()
    parts: dict[str, Callable[[], list[Section]]] = {
        "throughput": lambda: throughput(options.quick),
        "sleeping": lambda: sleeping(options.quick),
        "overhead": lambda: overhead(options.quick, options.transports),
        "latency": lambda: latency(options.quick),
    }
    names = list(parts) if options.part == "all" else [options.part]
    busy_percent = psutil.cpu_percent(1.0)
    checks = []
    for name in names:
        checks += run(name, parts[name], busy_percent=busy_percent, write=not options.quick)
    print(table(CHECK_HEADER, [check.row() for check in checks]))
    sys.exit(0 if all(check.holds for check in checks) else 1)


if __name__ == "__main__":
    main()
