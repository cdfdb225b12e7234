"""Chains of toys on threads, and several sessions through them at once."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.host import Host
from pipeline.staged_chain import ChainSettings, StagedChain
from pipeline.thread_host import ThreadHost
from tests.support.toy_stages import PICTURES, ToyRecipe, toy_inputs, toy_works
from video.chunk import VideoChunk


@contextmanager
def chain_of(
    folder: Path,
    recipes: Sequence[ToyRecipe],
    *,
    host: Host | None = None,
    another_host: Callable[[], Host] | None = None,
    clock_ns: Callable[[], int] | None = None,
    **options: Any,
) -> Iterator[StagedChain]:
    """A chain that must leave no thread, socket or picture behind."""
    settings = replace(ChainSettings(pictures_per_chunk=PICTURES, transport="queue"), **options)
    threads = threading.active_count()
    timing = {} if clock_ns is None else {"clock_ns": clock_ns}
    chain = StagedChain(
        host or ThreadHost(), recipes, folder, settings, another_host=another_host, **timing
    )
    try:
        yield chain
    finally:
        chain.close()
    assert threading.active_count() == threads
    assert not [path for path in folder.rglob("*") if path.is_socket() or "frames" in path.name]


def stream(
    chain: StagedChain,
    seeds: dict[str, int],
    num_chunks: int,
    before: Callable[[int], None] = lambda _: None,
) -> dict[str, list[VideoChunk]]:
    """All pictures of the sessions (by name, with their seeds), chunks sent in turn.

    `before` is called with each chunk's number before it is sent.
    """
    works = {name: toy_works(name, num_chunks, seed) for name, seed in seeds.items()}
    made: dict[str, list[VideoChunk]] = {name: [] for name in seeds}
    for name, seed in seeds.items():
        chain.prepare(toy_inputs(name, seed))
    for index in range(num_chunks):
        before(index)
        for name in seeds:
            made[name] += chain.submit(works[name][index])
    for name in seeds:
        made[name] += chain.drain(name)
    return made
