"""Links through torch.distributed of which a side dies, is mad, or was replaced."""

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import group_link
from pipeline.channel import LinkDown, connect, listen
from pipeline.edge import EdgeSettings, Receiver, Sender, Target
from pipeline.group_link import GroupListener
from pipeline.message import Fact, Message, pack_header
from pipeline.parallel import PairError, make_pair
from tests.support.group_links import (
    LARGE,
    PATIENCE_S,
    TOKEN,
    work,
)
from tests.support.viva import ROOT

pytestmark = pytest.mark.unit


PEERS = """
import os, signal, sys
import torch
from pipeline.channel import connect, listen
from pipeline.message import Message
from pipeline.parallel import GlooPair, GlooReceipt

def stop(*_):
    os.write(1, b"mid-transfer %d\\n" % os.getpid())
    os.kill(os.getpid(), signal.SIGSTOP)

def send(address):
    link = connect(address, timeout_s=60)
    link.send(Message(kind="hello"))
    link.recv(60)
    link.send(Message(kind="work", tensors={"x": torch.zeros(1 << 20)}))
    GlooPair.send = stop
    link.send(Message(kind="work", tensors={"x": torch.zeros(1 << 20)}))

def receive(address):
    listener = listen(address, timeout_s=60)
    os.write(1, b"listening\\n")
    link = listener.accept(60)
    link.recv(60)
    link.send(Message(kind="welcome"))
    link.recv(60)
    GlooReceipt.wait = stop
    link.recv(60)

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
print("ready", flush=True)
for line in sys.stdin:
    role, address = line.split()
    if os.fork() == 0:
        {"send": send, "receive": receive}[role](address)
"""


@pytest.fixture(scope="module")
def peers() -> Iterator["subprocess.Popen[str]"]:
    """Processes for the other side, each of which stops in the middle of its second transfer."""
    process = subprocess.Popen(
        [sys.executable, "-c", PEERS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}", "OMP_NUM_THREADS": "1"},
        text=True,
        bufsize=1,
    )
    assert heard(process) == ["ready"]
    yield process
    process.communicate()


def heard(process: "subprocess.Popen[str]") -> list[str]:
    """The words of its next line."""
    assert process.stdout is not None
    return process.stdout.readline().split()


def ask(process: "subprocess.Popen[str]", role: str, address: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{role} {address}\n")


def killed_when_stopped(process: "subprocess.Popen[str]") -> threading.Thread:
    """Kill a peer once it says that it is in the middle of a transfer."""

    def kill() -> None:
        _, pid = heard(process)
        os.kill(int(pid), signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    return thread


def test_a_receiver_is_freed_by_the_death_of_its_sender(
    tmp_path: Path, peers: "subprocess.Popen[str]"
) -> None:
    listener = GroupListener(f"gloo+unix:{tmp_path}/s", timeout_s=PATIENCE_S)
    ask(peers, "send", listener.address)
    link = listener.accept(PATIENCE_S)
    link.recv(PATIENCE_S)
    link.send(Message(kind="welcome"))
    assert link.recv(PATIENCE_S).tensors["x"].numel() == 1 << 20
    killer = killed_when_stopped(peers)
    with pytest.raises(LinkDown, match=r"closed by peer|other side is gone"):
        link.recv(PATIENCE_S)
    killer.join()
    listener.close()


def test_a_sender_is_freed_when_its_receiver_dies(
    tmp_path: Path, peers: "subprocess.Popen[str]"
) -> None:
    """Of more than socket buffers hold gloo notices nothing: the transfer's deadline ends it."""
    address = f"gloo+unix:{tmp_path}/s"
    ask(peers, "receive", address)
    assert heard(peers) == ["listening"]
    link = connect(address, timeout_s=PATIENCE_S)
    link.send(Message(kind="hello"))
    link.recv(PATIENCE_S)
    link.send(work(0, x=torch.zeros(1 << 20)))
    killer = killed_when_stopped(peers)
    with pytest.raises(LinkDown, match="nothing can be sent"):
        link.send(work(1, x=torch.zeros(1 << 23)))
    killer.join()


HELLO = b"m" + pack_header(Message(kind="hello"))
BIG = Message(kind="work", tensors={"x": torch.zeros(LARGE)})


def large_header(shape: list[int]) -> bytes:
    """The header of a tensor of any shape."""
    import msgpack

    fields = {"v": 1, "kind": "work", "session": "", "epoch": 0, "chunk": 0, "due": 0, "facts": {}}
    header: bytes = msgpack.packb({**fields, "tensors": [["x", "f4", shape]]})
    return struct.pack("<I", len(header)) + header


@pytest.mark.parametrize(
    ("is_greeted", "data"),
    [
        (False, b"g" + struct.pack("<I", 0) + pack_header(BIG)),  # a stranger wants a pair
        (False, b"s" + struct.pack("<I", 0)),
        (True, b"x"),
        (True, b"r"),  # only a receiver says so
        (True, b"m" + struct.pack("<I", 1 << 20)),  # a header too big
        (True, b"g" + struct.pack("<I", 0) + large_header([-1])),
        (True, b"g" + struct.pack("<I", 0) + large_header([1 << 40])),
        (True, b"g" + struct.pack("<I", 0) + large_header([1 << 31, 1 << 31, 1 << 31])),
        (True, b"s" + struct.pack("<I", 1 << 20)),  # an entry too big
        (True, b"s" + struct.pack("<I", 1) + b"\xc1"),
        (True, b"s" + struct.pack("<I", 2) + b"\x91\x01"),
        (True, b"".join(b"s\5\0\0\0\x92\xa1" + bytes([k]) + b"\xc4\0" for k in range(70))),
        (True, (b"s" + struct.pack("<I", 4) + b"\x92\xa1k\x01")),
    ],
)
def test_wrong_frames_take_the_link_down_before_gloo_sees_any(
    tmp_path: Path, is_greeted: bool, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_link, "make_pair", lambda *_, **__: pytest.fail("a pair was made"))
    listener = GroupListener(f"gloo+unix:{tmp_path}/s", timeout_s=1.0)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(f"{tmp_path}/s")
        link = listener.accept(1.0)
        if is_greeted:
            sock.sendall(HELLO)
            link.recv(1.0)
            link.send(Message(kind="welcome"))
        sock.sendall(data)
        with pytest.raises(LinkDown):
            link.recv(1.0)
        with pytest.raises(LinkDown):
            link.recv(1.0)
    listener.close()


def test_a_peer_that_tells_nothing_of_its_rank_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_link, "SETUP_S", 0.2)
    listener = GroupListener(f"gloo+unix:{tmp_path}/s", timeout_s=PATIENCE_S)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(f"{tmp_path}/s")
        link = listener.accept(1.0)
        sock.sendall(HELLO)
        link.recv(1.0)
        link.send(Message(kind="welcome"))
        sock.sendall(b"g" + struct.pack("<I", 1) + pack_header(BIG))
        with pytest.raises(LinkDown, match="nothing can be received"):
            link.recv(1.0)
    listener.close()


def test_an_edge_tries_again_when_a_pair_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[int] = []

    def flaky(*arguments: Any, **options: Any) -> Any:
        attempts.append(len(attempts))
        if len(attempts) <= 4:
            raise PairError("gloo: no luck")
        return make_pair(*arguments, **options)

    monkeypatch.setattr(group_link, "make_pair", flaky)
    taken: list[Message] = []
    all_taken = threading.Event()

    def take(message: Message) -> None:
        if message.chunk == len(taken):  # what an inbox does with what comes twice
            taken.append(message)
        if len(taken) == 12:
            all_taken.set()

    settings = EdgeSettings(token=TOKEN)
    listener = listen(f"gloo+unix:{tmp_path}/s", timeout_s=settings.timeout_s)
    receiver = Receiver("r", listener, settings, positions=lambda: {"1": len(taken) - 1}, take=take)
    sender = Sender("s", settings)
    receiver.start()
    sender.start()
    sender.open(1)
    sender.lead_to(Target(address=receiver.address, generation=1))
    for chunk in range(12):
        sender.append(work(chunk, x=torch.full((LARGE,), float(chunk))))
    assert all_taken.wait(PATIENCE_S)
    sender.stop()
    receiver.stop()
    assert len(attempts) > 4
    assert all(bool((m.tensors["x"] == m.chunk).all()) for m in taken)


def test_a_sender_that_was_replaced_is_turned_away(tmp_path: Path) -> None:
    settings = EdgeSettings(token=TOKEN, timeout_s=5.0)
    listener = listen(f"gloo+unix:{tmp_path}/s", timeout_s=settings.timeout_s)
    receiver = Receiver("r", listener, settings, positions=dict, take=lambda _: None)
    receiver.start()

    def is_welcome(generation: int) -> bool:
        link = connect(receiver.address, timeout_s=5.0)
        facts: dict[str, Fact] = {"token": TOKEN, "generation": generation, "from": "s"}
        try:
            link.send(Message(kind="hello", facts=facts))
            return link.recv(5.0).kind == "welcome"
        except LinkDown:
            return False
        finally:
            link.close()

    assert [is_welcome(generation) for generation in (5, 4, 5, 7, 6)] == [
        True,
        False,
        True,
        True,
        False,
    ]
    receiver.stop()
