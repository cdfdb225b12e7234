"""How near a chain comes to its slowest stage: stages that sleep, and do nothing else.

Sleeping needs no processor, so that many actors fit on few cores and what is left is the chain's
own cost. The slowest stage is somewhere in the middle; the others sleep less, each differently.
"""

from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Stages that sleep between `fastest_s` and `slowest_s` a chunk; `why` says what that is like.

    `share` of the chunks are enough where each takes longer.
    """

    fastest_s: float
    slowest_s: float
    why: str
    share: float = 1.0

    @property
    def name(self) -> str:
        """Its times, in milliseconds."""
        return f"{1e3 * self.fastest_s:.0f} to {1e3 * self.slowest_s:.0f} ms"

    def sleeps_s(self, num_stages: int) -> list[float]:
        """One sleep per stage."""
        return sleeps_s(num_stages, self.fastest_s, self.slowest_s)


CASES = (
    Case(
        fastest_s=FASTEST_S,
        slowest_s=SLOWEST_S,
        why="faster than any model here: what the chain itself costs shows most",
    ),
    Case(
        fastest_s=0.02,
        slowest_s=0.1,
        why="nearer to what stages take: one of the 14B model as it was published takes 265 ms",
        share=0.4,
    ),
)


def measure(num_actors: list[int], *, num_chunks: int, num_repeats: int) -> Section:
    """Throughput of chains of so many actors, once the chain is full."""
    parts: list[str] = []
    checks: list[Check] = []
    for case in CASES:
        enough = max(round(case.share * num_chunks), 8)
        text, found = _measure(case, num_actors, num_chunks=enough, num_repeats=num_repeats)
        parts.append(text)
        checks += found
    title = "Efficiency of sleeping stages"
    return Section(title=title, body="\n\n".join(parts), checks=tuple(checks))


def _measure(
    case: Case, num_actors: list[int], *, num_chunks: int, num_repeats: int
) -> tuple[str, list[Check]]:
    """A case's table, and what it is held to."""
    rows, checks, rates = [], [], []
    for count in num_actors:
        chunk_s, cpu_ms = _chunk_s(case.sleeps_s(count), num_chunks, num_repeats)
        share = efficiency(1 / chunk_s, case.sleeps_s(count))
        rates.append(1 / chunk_s)
        numbers = (f"{1e3 * chunk_s:.2f}", f"{1 / chunk_s:.2f}", f"{share:.3f}", f"{cpu_ms:.1f}")
        rows.append([str(count), *numbers])
        name = f"efficiency, {count} actors, {case.name}"
        checks.append(Check(name=name, value=share, limit=EFFICIENCY, at_least=True))
    name = f"throughput apart, all numbers of actors, {case.name}"
    checks.append(Check(name=name, value=spread(rates), limit=SPREAD, at_least=False))
    head = ["actors", "ms a chunk", "chunks a second", "efficiency", "processor ms a chunk, all"]
    text = (
        f"Stages sleep {case.name} a chunk ({case.why}); the slowest allows "
        f"{1 / case.slowest_s:.1f} chunks a second. {num_chunks} chunks, median of {num_repeats}."
    )
    return f"{text}\n\n{table(head, rows)}", checks


def _chunk_s(stage_s: list[float], num_chunks: int, num_repeats: int) -> tuple[float, float]:
    """Median time from chunk to chunk in a full chain, and processor milliseconds of a chunk."""
    fill = len(stage_s) + 2
    work = blank_work("sleep", CHUNK_BYTES)
    works = [numbered(work, index) for index in range(num_chunks + 2 * fill)]
    times_s, cpu_ms = [], []
    with ray_chain(sleep_recipes(stage_s, PICTURES)) as chain:
        spending = Spending(chain)
        for _ in range(num_repeats):
            chain.prepare(blank_inputs("sleep", PICTURES[1]))
            stream = stream_staged(chain, works, spending)
            chain.reset("sleep")
            times_s.append(stream.chunk_s(fill, fill + num_chunks - 1))
            cpu_ms.append(1e3 * sum(stream.spent_s) / len(works))
    return median(times_s), median(cpu_ms)
