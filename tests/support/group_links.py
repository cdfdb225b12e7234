"""Links through torch.distributed that have greeted each other, and what passes over them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from pipeline import group_link
from pipeline.group_link import GroupLink, GroupListener
from pipeline.message import Message
from pipeline.parallel import GlooPair

# Nobody waits so long in a test that passes: a wait that ended before was ended by somebody.
PATIENCE_S = 60.0
TOKEN = "t"  # noqa: S105 - of a chain that lives as long as a test
LARGE = group_link.MIN_GROUP_BYTES


def work(chunk: int, **tensors: torch.Tensor) -> Message:
    return Message(kind="work", session="a", epoch=1, chunk=chunk, tensors=tensors)


def is_paired(link: GroupLink) -> bool:
    return isinstance(link._pair, GlooPair)


def bits_of(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def num_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@contextmanager
def greeted(address: str, timeout_s: float = PATIENCE_S) -> Iterator[tuple[GroupLink, GroupLink]]:
    """Both sides of a link that have greeted each other."""
    listener = GroupListener(address, timeout_s=timeout_s)
    near = group_link.connect_group(listener.address, timeout_s=timeout_s)
    far = listener.accept(timeout_s)
    try:
        near.send(Message(kind="hello"))
        far.recv(timeout_s)
        far.send(Message(kind="welcome"))
        near.recv(timeout_s)
        yield near, far
    finally:
        near.close()
        far.close()
        listener.close()


def exchanged(near: GroupLink, far: GroupLink, messages: list[Message]) -> list[Message]:
    """What arrives of messages that another thread sends."""

    def send() -> None:
        for message in messages:
            near.send(message)

    thread = threading.Thread(target=send)
    thread.start()
    arrived = [far.recv(PATIENCE_S) for _ in messages]
    thread.join()
    return arrived
