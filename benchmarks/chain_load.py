"""Gives a chain work and watches: when chunks came out, and what every process spent on them."""

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
from chain_stages import numbered

from pipeline.chain import Chain
from pipeline.chain_settings import ChainSettings
from pipeline.recipe import Recipe
from pipeline.spans import Span
from pipeline.stage import ChunkWork
from pipeline.staged_chain import StagedChain
from pipeline.supervisor import RayHandle, open_ray_chain
from video.chunk import VideoChunk

PICTURES = 12
# How long the actors may take until they have told their process numbers.
PIDS_S = 120.0


@contextmanager
def ray_chain(
    recipes: Sequence[Recipe], *, transport: str = "unix", pictures: int = PICTURES
) -> Iterator[StagedChain]:
    """A chain of one single-thread actor per recipe, in a Ray of its own."""
    settings = ChainSettings(pictures_per_chunk=pictures, threads=1, transport=transport)
    with open_ray_chain(recipes, settings) as chain:
        actor_pids(chain)
        yield chain


def actor_pids(chain: StagedChain) -> list[int]:
    """The actors' processes by position; waits until they have all told them."""
    until_s = time.monotonic() + PIDS_S
    while time.monotonic() < until_s:
        handles = chain.controller.handles()
        pids = [handle.pid for handle in handles if isinstance(handle, RayHandle)]
        if len(pids) == len(handles) and None not in pids:
            return [pid for pid in pids if pid is not None]
        time.sleep(0.02)
    raise TimeoutError("not all actors told their process numbers")


class Spending:
    """Processor seconds of the actors, of this process, and of Ray's own processes."""

    def __init__(self, chain: StagedChain) -> None:
        """Watch the processes there are now."""
        self._actors = [psutil.Process(pid) for pid in actor_pids(chain)]
        self._driver = psutil.Process()
        actors = {actor.pid for actor in self._actors}
        family = self._driver.children(recursive=True)
        self._others = [process for process in family if process.pid not in actors]
        self._before = self._now()

    def _now(self) -> list[float]:
        others_s = sum(_cpu_s(process) for process in self._others)
        return [*map(_cpu_s, self._actors), _cpu_s(self._driver), others_s]

    def taken(self) -> list[float]:
        """Seconds since the last call: one value per actor, then the driver, then all others."""
        now = self._now()
        spent = [b - a for a, b in zip(self._before, now, strict=True)]
        self._before = now
        return spent


def _cpu_s(process: psutil.Process) -> float:
    """Processor seconds so far, 0 of a process that is gone."""
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """What came out of a chain: the pictures' digest, and when each chunk left the last stage.

    `spent_s` is as `Spending` has it, for all chunks; empty for a chain in this process.
    """

    digest: str
    ended_s: list[float]
    spent_s: list[float]
    num_chunks: int

    def chunk_s(self, first: int, last: int) -> float:
        """Mean time from one chunk to the next, from chunk `first` to chunk `last`."""
        return (self.ended_s[last] - self.ended_s[first]) / (last - first)


def digest_of(pictures: Sequence[VideoChunk]) -> str:
    """A digest of all pictures and their times."""
    digest = hashlib.sha256()
    for video in pictures:
        digest.update(f"{video.pts} {video.time_base}".encode())
        digest.update(video.frames_THWC.data)
    return digest.hexdigest()


def stream_local(chain: Chain, works: Sequence[ChunkWork]) -> Stream:
    """Chunk after chunk through a chain in this process; its session must be prepared.

    What is spent is this thread's: others of this process wait for a chain that is idle meanwhile.
    """
    pictures, ended_s = [], []
    began_cpu_s = time.thread_time()
    for work in works:
        pictures += chain.submit(work)
        ended_s.append(time.perf_counter())
    return Stream(
        digest=digest_of(pictures),
        ended_s=ended_s,
        spent_s=[time.thread_time() - began_cpu_s],
        num_chunks=len(works),
    )


def stream_staged(chain: StagedChain, works: Sequence[ChunkWork], spending: Spending) -> Stream:
    """As many chunks at once as the chain takes; its session must be prepared."""
    chain.controller.spans()
    spending.taken()
    pictures = [video for work in works for video in chain.submit(work)]
    pictures += chain.drain(works[0].session)
    spent_s = spending.taken()
    last = last_stage(chain.controller.spans())
    return Stream(
        digest=digest_of(pictures),
        ended_s=[span.ended_ns / 1e9 for span in last],
        spent_s=spent_s,
        num_chunks=len(works),
    )


def last_stage(spans: Sequence[Span]) -> list[Span]:
    """The spans of the stage that comes last, by chunk: a chunk ends there last."""
    latest = max(spans, key=lambda span: span.ended_ns).stage
    return sorted((s for s in spans if s.stage == latest), key=lambda s: s.chunk)


def round_trips_ms(chain: StagedChain, work: ChunkWork, num_chunks: int) -> list[float]:
    """From handing a chunk in to having its pictures, one chunk under way at a time."""
    trips_ms = []
    for index in range(num_chunks):
        next_work = numbered(work, index)
        began_s = time.perf_counter()
        pictures = chain.submit(next_work)
        pictures += chain.drain(work.session)
        trips_ms.append(1e3 * (time.perf_counter() - began_s))
        if len(pictures) != 1:
            raise RuntimeError(f"{len(pictures)} chunks came out for chunk {index}")
    return trips_ms
