"""Single hops: pictures to the process that shows them, a link's first chunk, a link's idleness."""

import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from transport_load import own_s
from transport_relays import TIMEOUT_S, greeted, welcomed
from transport_ways import NUM_HOPS, linked

from pipeline.channel import Link, listen
from pipeline.frame_ring import FrameRing, RingSpec
from pipeline.message import Message


def picture_ms(actor: Any, folder: Path, shape: tuple[int, ...], kind: str, count: int) -> str:
    """Median and p95 of one hop of twelve pictures, from before the write until they are read."""
    size = int(np.prod(shape))
    if kind == "store":
        times = []
        for _ in range(count):
            began_ns, frames = ray.get(actor.show.remote(shape), timeout=TIMEOUT_S)
            times.append((time.monotonic_ns() - began_ns) / 1e6)
            del frames
        return _median_p95(times)
    names = Path(tempfile.mkdtemp(dir=folder))
    spec = RingSpec(path=f"{names}/ring", num_slots=4, slot_bytes=size) if kind == "ring" else None
    sink = listen(f"unix:{names}/sink", timeout_s=TIMEOUT_S)
    with ExitStack() as stack:
        stack.callback(sink.close)
        ring = None if spec is None else FrameRing(spec, create=True)
        if ring is not None:
            stack.callback(ring.remove)
        where = ray.get(actor.listen.remote(f"unix:{names}/in"))
        done = actor.paint.remote(sink.address, spec, shape)
        orders = greeted(where)
        media = welcomed(sink)
        times = []
        for chunk in range(count):
            orders.send(Message(kind="work", chunk=chunk))
            message = media.recv(TIMEOUT_S)
            if ring is not None:
                ring.read(chunk, shape)
            times.append((time.monotonic_ns() - int(str(message.facts["began_ns"]))) / 1e6)
        orders.close()
        ray.get(done, timeout=TIMEOUT_S)
        media.close()
    return _median_p95(times)


def _median_p95(times_ms: list[float]) -> str:
    median_ms, p95_ms = np.percentile(times_ms[len(times_ms) // 10 :], [50, 95])
    return f"{median_ms:.2f} / {p95_ms:.2f}"


def setup_ms(prefix: str, folder: Path, count: int = 50) -> list[float]:
    """How long it takes until a new link, both sides here, has carried its first 1 MB."""
    times_ms = []
    message = Message(kind="work", tensors={"x": torch.zeros(1_000_000, dtype=torch.uint8)})
    for index in range(count):
        listener = listen(f"{prefix}unix:{folder}/m{index}", timeout_s=TIMEOUT_S)
        far: list[Link] = []

        def take(listener: Any = listener, far: list[Link] = far) -> None:
            far.append(welcomed(listener))
            far[0].recv(TIMEOUT_S)

        thread = threading.Thread(target=take)
        thread.start()
        began_s = time.perf_counter()
        near = greeted(listener.address)
        near.send(message)
        thread.join()
        times_ms.append(1e3 * (time.perf_counter() - began_s))
        for link in (near, *far):
            link.close()
        listener.close()
    return times_ms


def idle_cores(actors: Sequence[Any], folder: Path, prefix: str, seconds: float = 5.0) -> float:
    """Processors that four relays and this process use while nothing is sent."""
    addresses = [f"{prefix}unix:{folder}/{prefix}idle{index}" for index in range(NUM_HOPS)]
    tensor = torch.zeros(500_000, dtype=torch.bfloat16)
    with linked(actors, addresses, tensor) as way:
        way.put()
        way.take()
        before_s = own_s()
        time.sleep(seconds)
        return (own_s() - before_s) / seconds
