"""Every transport that a chain could use, from a source through four stages to a sink."""

import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from transport_relays import TIMEOUT_S, Relay, greeted, welcomed

from pipeline.channel import Link, listen
from pipeline.message import Message

NUM_STAGES = 4
NUM_HOPS = NUM_STAGES + 1


@dataclass(frozen=True, slots=True)
class Way:
    """A transport from end to end: how to send something in, and how to wait for what comes out."""

    put: Callable[[], None]
    take: Callable[[], object]


@contextmanager
def linked(actors: Sequence[Any], addresses: Sequence[str], tensor: torch.Tensor) -> Iterator[Way]:
    """Links of the chain's own kind, through actors or, without any, through threads."""
    sink = listen(addresses[-1], timeout_s=TIMEOUT_S)
    with ExitStack() as stack:
        stack.callback(sink.close)
        source, result = _started(actors, addresses, sink.address, stack)
        exit_link = welcomed(sink)
        stack.callback(exit_link.close)
        stack.callback(source.close)
        message = Message(kind="work", session="a", epoch=1, tensors={"x": tensor})
        yield Way(lambda: source.send(message), lambda: exit_link.recv(TIMEOUT_S))
        source.close()
        result()


def _started(
    actors: Sequence[Any], addresses: Sequence[str], sink: str, stack: ExitStack
) -> tuple[Link, Callable[[], object]]:
    """The way in, and how to wait for the relays' end."""
    if actors:
        where = ray.get([a.listen.remote(x) for a, x in zip(actors, addresses, strict=False)])
        relays = [a.relay.remote(x) for a, x in zip(actors, [*where[1:], sink], strict=True)]
        return greeted(where[0]), lambda: ray.get(relays, timeout=TIMEOUT_S)
    stages = [Relay() for _ in range(NUM_STAGES)]
    where = [stage.listen(x) for stage, x in zip(stages, addresses, strict=False)]
    threads = [
        threading.Thread(target=stage.relay, args=(x,), daemon=True)
        for stage, x in zip(stages, [*where[1:], sink], strict=True)
    ]
    for thread in threads:
        thread.start()
        stack.callback(thread.join)
    return greeted(where[0]), lambda: None


class Waiting:
    """Results that are on their way, in order."""

    def __init__(self) -> None:
        """None yet."""
        self._refs: list[Any] = []

    def add(self, ref: Any) -> None:
        """One more."""
        self._refs.append(ref)

    def take(self) -> object:
        """The oldest."""
        return ray.get(self._refs.pop(0), timeout=TIMEOUT_S)


@contextmanager
def orchestrated(actors: Sequence[Any], payload: object) -> Iterator[Way]:
    """The driver calls one actor after the other and gives each what the last one returned."""

    def one() -> object:
        value = payload
        for actor in actors:
            value = ray.get(actor.same.remote(value), timeout=TIMEOUT_S)
        return value

    waiting: list[threading.Thread] = []

    def put() -> None:
        thread = threading.Thread(target=one)
        thread.start()
        waiting.append(thread)

    yield Way(put, lambda: waiting.pop(0).join())


@contextmanager
def chained(actors: Sequence[Any], payload: object) -> Iterator[Way]:
    """The driver calls all actors at once with the references of what there will be."""
    waiting = Waiting()

    def put() -> None:
        value: Any = payload
        for actor in actors:
            value = actor.same.remote(value)
        waiting.add(value)

    yield Way(put, waiting.take)


@contextmanager
def pushed(actors: Sequence[Any], payload: object) -> Iterator[Way]:
    """Each actor calls the next one; the driver waits for what arrives at the last."""
    waiting = Waiting()

    def put() -> None:
        waiting.add(actors[-1].pushed.remote())
        actors[0].push.remote(payload, list(actors[1:]))

    yield Way(put, waiting.take)


@contextmanager
def copied(tensor: torch.Tensor) -> Iterator[Way]:
    """One copy in memory: what no transport can do without."""
    there = torch.empty_like(tensor)
    yield Way(lambda: None, lambda: there.copy_(tensor))


def ways(actors: Sequence[Any], folder: Path, num_bytes: int) -> dict[str, Callable[[], Any]]:
    """All transports for chunks of one size; each is opened when it is its turn."""
    tensor = torch.zeros(num_bytes // 2, dtype=torch.bfloat16)
    array = np.zeros(num_bytes // 2, np.int16)

    def paths(prefix: str) -> list[str]:
        names = tempfile.mkdtemp(dir=folder)
        return [f"{prefix}unix:{names}/{index}" for index in range(NUM_HOPS)]

    return {
        "Ray actor calls by the driver, numpy": lambda: orchestrated(actors, array),
        "Ray actor calls by the driver, torch bf16": lambda: orchestrated(actors, tensor),
        "Ray chained references, numpy": lambda: chained(actors, array),
        "Ray chained references, torch bf16": lambda: chained(actors, tensor),
        "Ray actor to actor, numpy": lambda: pushed(actors, array),
        "Ray actor to actor, torch bf16": lambda: pushed(actors, tensor),
        "**link `unix`**": lambda: linked(actors, paths(""), tensor),
        "**link `tcp`**": lambda: linked(actors, ["tcp:127.0.0.1:0"] * NUM_HOPS, tensor),
        "**link `gloo`** (header by unix socket)": lambda: linked(actors, paths("gloo+"), tensor),
        "**link `queue`** (threads of one process)": lambda: linked(
            [], [f"queue:{folder.name}/{num_bytes}-{index}" for index in range(NUM_HOPS)], tensor
        ),
        "one copy in memory": lambda: copied(tensor),
    }
