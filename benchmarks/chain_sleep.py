"""How near a chain comes to its slowest stage: stages that sleep, and do nothing else.

Sleeping needs no processor, so that many actors fit on few cores and what is left is the chain's
own cost. The slowest stage is somewhere in the middle; the others sleep less, each differently.
"""

from statistics import median

from chain_load import Spending, ray_chain, stream_staged
from chain_stages import (
    FASTEST_S,
    SLOWEST_S,
    blank_inputs,
    blank_work,
    numbered,
    sleep_recipes,
    sleeps_s,
)
from chain_stats import Check, Section, efficiency, spread
from report import table

EFFICIENCY = 0.95
SPREAD = 0.05
# The pocket model's chunk, and pictures of 256x256.
CHUNK_BYTES = 48 << 10
PICTURES = (12, 256, 256, 3)


def measure(num_actors: list[int], *, num_chunks: int, num_repeats: int) -> Section:
    """Throughput of chains of so many actors, once the chain is full."""
    rows, checks, rates = [], [], []
    for count in num_actors:
        chunk_s, cpu_ms = _chunk_s(count, num_chunks, num_repeats)
        share = efficiency(1 / chunk_s, sleeps_s(count))
        rates.append(1 / chunk_s)
        rows.append(
            [
                str(count),
                f"{1e3 * chunk_s:.2f}",
                f"{1 / chunk_s:.2f}",
                f"{share:.3f}",
                f"{cpu_ms:.1f}",
            ]
        )
        checks.append(
            Check(name=f"efficiency, {count} actors", value=share, limit=EFFICIENCY, at_least=True)
        )
    checks.append(
        Check(
            name="throughput apart, all numbers of actors",
            value=spread(rates),
            limit=SPREAD,
            at_least=False,
        )
    )
    body = (
        f"Stages sleep {1e3 * FASTEST_S:.0f} to {1e3 * SLOWEST_S:.0f} ms a chunk; the slowest "
        f"allows {1 / SLOWEST_S:.1f} chunks a second. {num_chunks} chunks, median of "
        f"{num_repeats}.\n\n"
        + table(
            ["actors", "ms a chunk", "chunks a second", "efficiency", "processor ms a chunk, all"],
            rows,
        )
    )
    return Section(title="Efficiency of sleeping stages", body=body, checks=tuple(checks))


def _chunk_s(count: int, num_chunks: int, num_repeats: int) -> tuple[float, float]:
    """Median time from chunk to chunk in a full chain, and processor milliseconds of a chunk."""
    fill = count + 2
    work = blank_work("sleep", CHUNK_BYTES)
    works = [numbered(work, index) for index in range(num_chunks + 2 * fill)]
    times_s, cpu_ms = [], []
    with ray_chain(sleep_recipes(sleeps_s(count), PICTURES)) as chain:
        spending = Spending(chain)
        for _ in range(num_repeats):
            chain.prepare(blank_inputs("sleep", PICTURES[1]))
            stream = stream_staged(chain, works, spending)
            chain.reset("sleep")
            times_s.append(stream.chunk_s(fill, fill + num_chunks - 1))
            cpu_ms.append(1e3 * sum(stream.spent_s) / len(works))
    return median(times_s), median(cpu_ms)
