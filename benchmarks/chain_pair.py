"""What a second core brings on this machine to processes that know nothing of each other.

Two copies of half a plan run side by side, with no chain, no Ray and no message between them. A
chain of two such halves goes as fast as the slower copy at best, so this is the speed-up that the
machine allows: cores that share caches, memory or a clock with neighbours are slower together.
"""

import multiprocessing
from collections.abc import Sequence
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from statistics import median
from time import perf_counter

from chain_stats import Section

WARM_UP_CHUNKS = 4
START_S = 120.0


def allowed_speed_up(alone_ms: float, together_ms: Sequence[float]) -> float:
    """Speed-up of a chain of such halves over one process that does both.

    `alone_ms` is a half's time with the machine to itself, `together_ms` each copy's beside the
    other: one process takes two halves for a chunk, the chain as long as its slower stage.
    """
    return 2 * alone_ms / max(together_ms)


def _run(
    model: str, num_steps: int, num_chunks: int, start: Barrier, times: "Queue[float]"
) -> None:
    """One process: half the steps, chunk after chunk, begun with the others."""
    import torch
    from chain_throughput import make_bench

    from pipeline.recipe import DenoiseRecipe

    torch.set_num_threads(1)
    bench = make_bench(model, num_steps, WARM_UP_CHUNKS + num_chunks)
    stage = DenoiseRecipe(model=model, plan=bench.plan, index=0).build()
    stage.prepare(bench.inputs)
    for work in bench.works[:WARM_UP_CHUNKS]:
        stage.process(work)
    start.wait(START_S)
    began_s = perf_counter()
    for work in bench.works[WARM_UP_CHUNKS:]:
        stage.process(work)
    times.put(1e3 * (perf_counter() - began_s) / num_chunks)


def times_ms(model: str, num_steps: int, num_chunks: int, copies: int) -> list[float]:
    """Milliseconds a chunk of each of so many processes at once."""
    context = multiprocessing.get_context("spawn")
    start, times = context.Barrier(copies), context.Queue()
    args = (model, num_steps, num_chunks, start, times)
    processes = [context.Process(target=_run, args=args) for _ in range(copies)]
    for process in processes:
        process.start()
    found = [times.get(timeout=2 * START_S) for _ in processes]
    for process in processes:
        process.join()
    return found


def measure(model: str, *, num_steps: int, num_chunks: int, num_repeats: int) -> Section:
    """Alternate between one process and two."""
    runs = []
    for _ in range(num_repeats):
        (alone_ms,) = times_ms(model, num_steps, num_chunks, 1)
        runs.append((alone_ms, times_ms(model, num_steps, num_chunks, 2)))
    allowed = [allowed_speed_up(alone, together) for alone, together in runs]
    each = ", ".join(
        f"{alone:.0f} alone, {' and '.join(f'{ms:.0f}' for ms in together)} together: {ratio:.2f}"
        for (alone, together), ratio in zip(runs, allowed, strict=True)
    )
    body = (
        f"Two processes of {num_steps} steps each, without chain, Ray or messages, beside one "
        f"alone (ms a chunk): {each}. A chain of two such halves can be **{median(allowed):.2f}** "
        "times as fast as one process here, whatever the chain costs."
    )
    return Section(title="What the machine allows", body=body, checks=())
