"""What chains of more stages cost: opening, first pictures, each chunk's way, and memory.

The pocket model with its own plan, cut evenly; one core is one actor at most, so that on a machine
of two cores only latency means anything beyond two stages, not throughput.
"""

import gc
import time
from dataclasses import dataclass, replace
from statistics import median

import psutil
import torch
from chain_load import actor_pids, ray_chain
from chain_stats import Section, percentile
from chain_throughput import Bench, make_bench
from report import table

from pipeline.chain import Chain
from pipeline.cuts import cut_evenly
from pipeline.model import Model
from pipeline.plan import Plan
from pipeline.plan_parse import load_plan
from pipeline.recipe import DecodeRecipe, DenoiseRecipe, Recipe
from pipeline.staged_chain import StagedChain

WARM_UP_CHUNKS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """One chain: how it was run, seconds to set it up, milliseconds of a session."""

    name: str
    setup_s: float
    prepare_ms: float
    first_ms: float
    chunks_ms: list[float]

    def row(self) -> list[str]:
        """For the table."""
        return [
            self.name,
            f"{self.setup_s:.1f}",
            f"{self.prepare_ms:.0f}",
            f"{self.first_ms:.0f}",
            f"{median(self.chunks_ms):.0f}",
            f"{percentile(self.chunks_ms, 95):.0f}",
        ]


def session(chain: Chain, bench: Bench, name: str, setup_s: float) -> Latency:
    """One session through a chain, a chunk at a time."""
    began_s = time.perf_counter()
    chain.prepare(bench.inputs)
    prepared_s = time.perf_counter()
    trips_ms = []
    for work in bench.works:
        at_s = time.perf_counter()
        pictures = chain.submit(work)
        pictures += chain.drain(work.session)
        trips_ms.append(1e3 * (time.perf_counter() - at_s))
    chain.reset(bench.inputs.session)
    return Latency(
        name=name,
        setup_s=setup_s,
        prepare_ms=1e3 * (prepared_s - began_s),
        first_ms=1e3 * (prepared_s - began_s) + trips_ms[0],
        chunks_ms=trips_ms[WARM_UP_CHUNKS:],
    )


def recipes(model: Model, plan: Plan) -> list[Recipe]:
    """An actor per stage, and one for the decoder."""
    stages: list[Recipe] = [
        DenoiseRecipe(model=str(model.folder), plan=plan, index=index)
        for index in range(len(plan.stages))
    ]
    return [*stages, DecodeRecipe(model=str(model.folder))]


@dataclass(slots=True)
class Memory:
    """Private megabytes of the driver and of each actor with so many sessions open."""

    rows: list[list[str]]

    def look(self, chain: StagedChain, name: str, num_sessions: int) -> None:
        """Add a row."""
        gc.collect()
        actors_mb = [_private_mb(pid) for pid in actor_pids(chain)]
        self.rows.append(
            [
                name,
                str(num_sessions),
                f"{_private_mb(psutil.Process().pid):.0f}",
                " / ".join(f"{actor_mb:.0f}" for actor_mb in actors_mb),
            ]
        )


def _private_mb(pid: int) -> float:
    """Memory that would be free if the process ended."""
    return float(psutil.Process(pid).memory_full_info().uss) / 1e6


def open_sessions(chain: StagedChain, bench: Bench, name: str, counts: list[int]) -> Memory:
    """Open sessions one after the other, each with some chunks made, and look at memory."""
    memory = Memory(rows=[])
    memory.look(chain, name, 0)
    names: list[str] = []
    for count in counts:
        while len(names) < count:
            names.append(f"s{len(names)}")
            chain.prepare(replace(bench.inputs, session=names[-1]))
            works = [replace(work, session=names[-1]) for work in bench.works[:6]]
            for work in works:
                chain.submit(work)
            chain.drain(names[-1])
        memory.look(chain, name, count)
    for opened in names:
        chain.reset(opened)
    memory.look(chain, f"{name}, all closed", 0)
    return memory


def measure(
    model_name: str, stage_counts: list[int], *, num_chunks: int, sessions: list[int]
) -> Section:
    """The process itself, then chains of so many stages."""
    torch.set_num_threads(1)
    plan = load_plan(model_name)
    bench = make_bench(model_name, 1, num_chunks + WARM_UP_CHUNKS)
    local = bench.model.local_chain(plan)
    session(local, bench, "warm-up", 0.0)
    found = [session(local, bench, "one process", 0.0)]
    memory: list[list[str]] = []
    for count in stage_counts:
        name = f"{count} + decoder"
        began_s = time.perf_counter()
        with ray_chain(recipes(bench.model, cut_evenly(plan, count))) as chain:
            setup_s = time.perf_counter() - began_s
            found.append(session(chain, bench, name, setup_s))
            memory += open_sessions(chain, bench, name, sessions).rows
    head = ["actors", "set-up s", "open ms", "first pictures ms", "chunk median ms", "p95"]
    body = (
        f"Model {model_name}, plan {plan.name} ({len(plan.steps)} steps), one thread per actor, "
        f"{num_chunks} chunks one at a time. First pictures: from opening a session in a chain "
        f"that runs to having its first chunk. Recovery is in its own result, `recovery`.\n\n"
        f"{table(head, [latency.row() for latency in found])}\n\n"
        "Private memory in MB, after six chunks of each session:\n\n"
        + table(["actors", "sessions", "driver", "actors, first to last"], memory)
    )
    return Section(title="Latency and memory against stages and sessions", body=body)
