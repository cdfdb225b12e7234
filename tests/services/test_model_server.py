"""The model process's side: who may connect, what a gateway must not say, and slow readers."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from viva.v1.framing import FrameDecoder
from viva.v1.messages import (
    AnyMessage,
    Hello,
    ModelReady,
    OpenSession,
    Ping,
    Pong,
    SessionOpened,
    SliceMade,
    Want,
    encode,
    parse,
)

from services.model_server import ModelServer, SocketPathError, listening
from services.outbox import Outbox
from tests.support.flash_engine import FlashEngine

pytestmark = pytest.mark.unit

OPEN = OpenSession(session="s", portrait=b"face", seed=1, sample_rate=48000)


class Gateway:
    """The other end, by hand."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        self.socket.connect(str(path))
        self.decoder = FrameDecoder()

    def say(self, *messages: AnyMessage) -> None:
        self.socket.sendall(b"".join(map(encode, messages)))

    def hear(self, count: int) -> list[AnyMessage]:
        heard = list[AnyMessage]()
        while len(heard) < count and (data := self.socket.recv(1 << 16)):
            heard += map(parse, self.decoder.feed(data))
        return heard


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A socket at which a server with a light engine serves one gateway after the other."""
    where = tmp_path / "model"
    with listening(where) as listener:
        server = ModelServer(listener, lambda tell: FlashEngine(tell, side=64, capacity=1))

        def serve() -> None:
            with contextlib.suppress(OSError):
                server.serve(once=False)

        thread = threading.Thread(target=serve)
        thread.start()
        yield where
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        server.close()
    assert not where.exists()


def test_a_gateway_is_greeted_and_pings_are_answered(path: Path) -> None:
    gateway = Gateway(path)
    with gateway.socket:
        gateway.say(Hello(), Ping(nonce=7))
        ready, pong = gateway.hear(2)
        assert isinstance(ready, ModelReady)
        assert pong == Pong(nonce=7)


@pytest.mark.parametrize(
    "words",
    [
        encode(Ping(nonce=1)),
        encode(Hello(version=2)),
        encode(Hello()) + encode(Pong(nonce=1)),
        encode(Hello()) + b"GET / HTTP/1.1\r\n\r\n",
        encode(Hello()) + encode(Ping(nonce=1))[:-1] + b"\xc1",
        b"\0" * 100,
    ],
)
def test_a_gateway_that_breaks_the_contract_is_hung_up_on_and_the_next_is_served(
    path: Path, words: bytes
) -> None:
    broken = Gateway(path)
    with broken.socket:
        broken.socket.sendall(words)
        assert len(broken.hear(100)) <= 1
    test_a_gateway_is_greeted_and_pings_are_answered(path)


def test_sessions_end_with_their_gateway(path: Path) -> None:
    for _ in range(3):  # the capacity is 1
        gateway = Gateway(path)
        with gateway.socket:
            gateway.say(Hello(), OPEN)
            assert isinstance(gateway.hear(2)[1], SessionOpened)


def test_a_gateway_that_reads_late_gets_every_slice_in_order(path: Path) -> None:
    gateway = Gateway(path)
    with gateway.socket:
        gateway.say(Hello(), OPEN, Want(session="s", until_index=3000, due_in_ms=0))
        time.sleep(0.2)
        heard = gateway.hear(2 + 2 * 3000)
    assert [one.index for one in heard if isinstance(one, SliceMade)] == list(range(3000))


def test_a_socket_of_the_dead_is_replaced_and_one_in_use_is_not(tmp_path: Path) -> None:
    where = tmp_path / "model"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(where))
    with listening(where):
        assert where.stat().st_mode & 0o777 == 0o600
        with pytest.raises(SocketPathError, match="in use"), listening(where):
            pass
        assert where.exists()


@pytest.mark.parametrize(
    ("name", "reason"), [("x" * 200, "longer than 107 bytes"), ("no/model", "No such file")]
)
def test_a_path_without_room_for_a_socket_is_refused(
    tmp_path: Path, name: str, reason: str
) -> None:
    with pytest.raises(SocketPathError, match=reason), listening(tmp_path / name):
        pass


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    where = tmp_path / "model"
    where.write_text("precious")
    with pytest.raises(SocketPathError, match="in use"), listening(where):
        pass
    assert where.read_text() == "precious"


def test_a_full_outbox_makes_its_writer_wait_until_there_is_room() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        outbox = Outbox(ours, max_bytes=1 << 16)
        frames = [bytes([number]) * (1 << 16) for number in range(40)]

        def write() -> None:
            for frame in frames:
                outbox.put(frame)

        writer = threading.Thread(target=write)
        writer.start()
        writer.join(0.2)
        assert writer.is_alive()
        assert outbox.num_bytes <= 1 << 16
        got = bytearray()
        while len(got) < 40 << 16:
            got += theirs.recv(1 << 20)
        writer.join()
        assert got == b"".join(frames)
        outbox.close()


def test_a_reader_that_never_reads_is_hung_up_on_in_time() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        outbox = Outbox(ours, max_bytes=1 << 16, max_wait_s=0.1)
        began_s = time.monotonic()
        for _ in range(100):
            outbox.put(bytes(1 << 16))
        assert 0.05 < time.monotonic() - began_s < 5
        assert outbox.num_bytes == 0
        outbox.close()


def test_what_does_not_wait_is_sent_though_the_outbox_is_full() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        outbox = Outbox(ours, max_bytes=10)
        for _ in range(100):
            outbox.put(bytes(1 << 16), wait=False)
        outbox.close()


def test_a_process_that_is_not_its_parents_child_ends_at_once() -> None:
    program = "from services.tether import tie_to_parent; tie_to_parent(1 << 22); print('on')"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert (result.returncode, result.stdout) == (1, b"")


def test_a_process_ends_with_its_parent_without_the_kernels_help() -> None:
    """The child is tied to the middle one, which ends; what is left would print after a second."""
    child = (
        "import os, sys, time, services.tether as t; t.sys.platform = 'other'\n"
        "t.tie_to_parent(os.getppid()); print('tied', flush=True)\n"
        "time.sleep(10); print('orphan', flush=True)"
    )
    middle = (
        "import subprocess, sys\n"
        f"p = subprocess.Popen([sys.executable, '-c', {child!r}], stdout=subprocess.PIPE)\n"
        "print(p.pid, p.stdout.readline(), flush=True)"
    )
    result = subprocess.run([sys.executable, "-c", middle], capture_output=True, check=True)
    pid = int(result.stdout.split()[0])
    assert b"tied" in result.stdout
    for _ in range(200):
        if not is_running(pid):
            return
        time.sleep(0.02)
    pytest.fail("the child outlived its parent")


def is_running(pid: int) -> bool:
    """Whether a process is there and is no zombie that nobody here reaps."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
