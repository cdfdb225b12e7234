"""Both ends of an edge: whoever writes, all arrives once and in order."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from pipeline.channel import listen
from pipeline.edge import EdgeSettings, Receiver, Sender, Target
from pipeline.message import Message

pytestmark = pytest.mark.unit

SETTINGS = EdgeSettings(token="t" * 32, timeout_s=2.0, log_chunks=200)
SMALL, LARGE = 10, 300_000  # numbers of float32


class Taking:
    """What a receiver took; it takes nothing while it is held."""

    def __init__(self) -> None:
        self.chunks: list[int] = []
        self.wrong: list[int] = []
        self.may = threading.Event()
        self.may.set()

    def positions(self) -> dict[str, int]:
        return {"1": len(self.chunks) - 1}

    def take(self, message: Message) -> None:
        self.may.wait(10)
        if bool((message.tensors["x"] != float(message.chunk)).any()):
            self.wrong.append(message.chunk)
        if message.chunk == len(self.chunks):
            self.chunks.append(message.chunk)


def eventually(holds: Callable[[], bool]) -> bool:
    until_s = time.monotonic() + 10
    while not holds() and time.monotonic() < until_s:
        time.sleep(0.005)
    return holds()


def work(chunk: int, size: int) -> Message:
    return Message(
        kind="work", epoch=1, chunk=chunk, tensors={"x": torch.full((size,), chunk * 1.0)}
    )


def receiver(taking: Taking, address: str) -> Receiver:
    made = Receiver(
        "rx",
        listen(address, timeout_s=2.0),
        SETTINGS,
        positions=taking.positions,
        take=taking.take,
    )
    made.start()
    return made


@pytest.fixture
def sender() -> Iterator[Sender]:
    made = Sender("tx", SETTINGS)
    made.start()
    made.open(1)
    yield made
    made.stop()


@pytest.fixture
def taking(sender: Sender, tmp_path: Path) -> Iterator[Taking]:
    taken = Taking()
    other = receiver(taken, f"unix:{tmp_path}/s")
    sender.lead_to(Target(address=other.address, generation=0))
    yield taken
    taken.may.set()
    other.stop()


def test_who_made_a_message_writes_it_where_the_link_is_idle(
    sender: Sender, taking: Taking, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender.append(work(0, SMALL))
    assert eventually(lambda: taking.chunks == [0])
    writers: list[str] = []
    monkeypatch.setattr(
        sender, "_on_sent", lambda *_: writers.append(threading.current_thread().name)
    )
    for chunk in range(1, 6):
        time.sleep(0.02)
        sender.append(work(chunk, SMALL))
    assert eventually(lambda: len(taking.chunks) == 6)
    assert threading.current_thread().name in writers


def test_nobody_waits_for_a_receiver_that_is_slow_and_all_arrives_in_order(
    sender: Sender, taking: Taking
) -> None:
    sender.append(work(0, SMALL))
    assert eventually(lambda: taking.chunks == [0])
    taking.may.clear()
    began_s = time.monotonic()
    for chunk in range(1, 40):
        sender.append(work(chunk, LARGE if chunk % 3 else SMALL))
    assert time.monotonic() - began_s < 1.0
    assert sender.num_pending() > 0
    taking.may.set()
    assert eventually(lambda: len(taking.chunks) == 40)
    assert taking.wrong == []


def test_what_an_idle_link_loses_goes_by_the_next_one(sender: Sender, tmp_path: Path) -> None:
    taking = Taking()
    first = receiver(taking, f"unix:{tmp_path}/a")
    sender.lead_to(Target(address=first.address, generation=0))
    sender.append(work(0, SMALL))
    assert eventually(lambda: taking.chunks == [0])
    first.stop()
    for chunk in range(1, 5):
        sender.append(work(chunk, LARGE))
    second = receiver(taking, f"unix:{tmp_path}/b")
    sender.lead_to(Target(address=second.address, generation=1))
    assert eventually(lambda: taking.chunks == list(range(5)))
    assert taking.wrong == []
    second.stop()
