"""Stages that do nothing but pass on what they get, as Ray actors or as threads."""

import contextlib
import queue
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pipeline.channel import Link, LinkDown, Listener, connect, listen
from pipeline.frame_ring import FrameRing, RingSpec
from pipeline.message import Message

TIMEOUT_S = 30.0
_HELLO = Message(kind="hello")


class Relay:
    """A stage that passes on what it gets; as an actor, or in this process."""

    def __init__(self) -> None:
        """Without any way yet."""
        torch.set_num_threads(1)
        self._listener: Listener | None = None
        self._passed: queue.Queue[Any] = queue.Queue()

    def listen(self, address: str) -> str:
        """Where the stage before connects."""
        self._listener = listen(address, timeout_s=TIMEOUT_S)
        return self._listener.address

    def _ear(self) -> Listener:
        if self._listener is None:
            raise RuntimeError("this stage does not listen")
        return self._listener

    def relay(self, address: str) -> None:
        """Pass messages on until the way in ends."""
        way_in = welcomed(self._ear())
        way_out = greeted(address)
        with contextlib.suppress(LinkDown):
            while True:
                way_out.send(way_in.recv(TIMEOUT_S))
        way_out.close()
        self._ear().close()

    def same(self, payload: Any) -> Any:
        """What was given."""
        return payload

    def push(self, payload: Any, rest: Sequence[Any]) -> None:
        """Call the next stage with it; the last one keeps it until it is taken."""
        if rest:
            rest[0].push.remote(payload, rest[1:])
        else:
            self._passed.put(payload)

    def pushed(self) -> Any:
        """What was pushed here first."""
        return self._passed.get(timeout=TIMEOUT_S)

    def paint(self, address: str, spec: RingSpec | None, shape: tuple[int, ...]) -> None:
        """For every message that comes, send pictures: in the ring if there is one."""
        orders, media = welcomed(self._ear()), greeted(address)
        ring = None if spec is None else FrameRing(spec)
        frames_THWC = np.full(shape, 7, np.uint8)
        with contextlib.suppress(LinkDown):
            while True:
                chunk = orders.recv(TIMEOUT_S).chunk
                began_ns = _now_ns()
                facts = {"began_ns": began_ns}
                if ring is None:
                    tensors = {"frames_THWC": torch.from_numpy(frames_THWC)}
                    media.send(Message(kind="frames", chunk=chunk, facts=facts, tensors=tensors))
                else:
                    ring.write(chunk, frames_THWC)
                    media.send(Message(kind="frames", chunk=chunk, facts=facts))
        self._ear().close()

    def show(self, shape: tuple[int, ...]) -> tuple[int, Any]:
        """Pictures by Ray's object store, and when they were there."""
        frames_THWC = np.full(shape, 7, np.uint8)
        return _now_ns(), frames_THWC


def _now_ns() -> int:
    return time.monotonic_ns()  # the same clock in all processes of a machine


def welcomed(listener: Listener) -> Link:
    """The next link, once it has been greeted."""
    link = listener.accept(TIMEOUT_S)
    link.recv(TIMEOUT_S)
    link.send(Message(kind="welcome"))
    return link


def greeted(address: str) -> Link:
    """A link to a listener that has answered."""
    link = connect(address, timeout_s=TIMEOUT_S)
    link.send(_HELLO)
    link.recv(TIMEOUT_S)
    return link
