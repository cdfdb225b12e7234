"""Links: every kind keeps the same promises."""

import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pipeline.channel import Link, LinkDown, LinkIdle, Listener, PromptLink, connect, listen
from pipeline.message import DTYPES, Message
from pipeline.shared_lane import LANE_BYTES, SHARED_BYTES

pytestmark = pytest.mark.unit

KINDS = ("queue", "unix", "tcp", "gloo")
TIMEOUT_S = 2.0


@pytest.fixture(params=KINDS)
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Listener]:
    address = {
        "queue": "queue:here",
        "unix": f"unix:{tmp_path}/s",
        "tcp": "tcp:127.0.0.1:0",
        "gloo": f"gloo+unix:{tmp_path}/s",
    }
    opened = listen(address[request.param], timeout_s=TIMEOUT_S)
    yield opened
    opened.close()


@pytest.fixture
def pair(listener: Listener) -> Iterator[tuple[Link, Link]]:
    near = connect(listener.address, timeout_s=TIMEOUT_S)
    far = listener.accept(TIMEOUT_S)
    yield near, far
    near.close()
    far.close()


def work(chunk: int, **tensors: torch.Tensor) -> Message:
    return Message(kind="work", session="a", epoch=1, chunk=chunk, tensors=tensors)


def test_tensors_of_every_type_arrive_bit_for_bit(pair: tuple[Link, Link]) -> None:
    near, far = pair
    bits = torch.randint(0, 256, (24,), dtype=torch.uint8, generator=torch.manual_seed(0))
    sent = {
        name: bits.view(dtype).reshape(-1) if dtype != torch.bool else bits > 100
        for name, dtype in DTYPES.items()
    }
    sent |= {"none": torch.zeros(0, 3), "scalar": torch.tensor(3.5), "turned": torch.rand(3, 4).T}
    near.send(work(0, **sent))
    read = far.recv(TIMEOUT_S).tensors
    assert list(read) == list(sent)
    for name, tensor in sent.items():
        assert read[name].dtype == tensor.dtype
        assert read[name].shape == tensor.shape
        same = read[name].contiguous().reshape(-1).view(torch.uint8)
        assert torch.equal(same, tensor.contiguous().reshape(-1).view(torch.uint8))


def test_messages_arrive_in_order_both_ways(pair: tuple[Link, Link]) -> None:
    near, far = pair

    def echo() -> None:
        for _ in range(50):
            far.send(far.recv(TIMEOUT_S))

    thread = threading.Thread(target=echo)
    thread.start()
    payload = torch.rand(1000)
    for chunk in range(50):
        near.send(work(chunk, x=payload + chunk))
        back = near.recv(TIMEOUT_S)
        assert back.chunk == chunk
        assert torch.equal(back.tensors["x"], payload + chunk)
    thread.join()


def test_large_tensors_arrive_even_if_more_is_under_way_than_a_lane_holds(
    pair: tuple[Link, Link],
) -> None:
    near, far = pair
    sizes = [SHARED_BYTES // 4 - 1, SHARED_BYTES // 4, LANE_BYTES // 12, LANE_BYTES // 4 + 1] * 3
    sent = [torch.arange(float(size)) + index for index, size in enumerate(sizes)]

    def send_all() -> None:
        for chunk, tensor in enumerate(sent):
            near.send(work(chunk, small=tensor[:10], large=tensor, last=tensor[-1:]))

    thread = threading.Thread(target=send_all)
    thread.start()
    for chunk, tensor in enumerate(sent):
        read = far.recv(TIMEOUT_S)
        assert read.chunk == chunk
        assert torch.equal(read.tensors["large"], tensor)
        assert torch.equal(read.tensors["last"], tensor[-1:])
    thread.join()


def test_a_lane_that_nobody_brought_takes_the_link_down(tmp_path: Path) -> None:
    listener = listen(f"unix:{tmp_path}/s", timeout_s=TIMEOUT_S)
    with socket.socket(socket.AF_UNIX) as near:
        near.connect(f"{tmp_path}/s")
        far = listener.accept(TIMEOUT_S)
        header, *_ = work(0, x=torch.zeros(SHARED_BYTES)).parts()
        near.sendall(b"-" + header + struct.pack("=BQ", 1, 0))
        with pytest.raises(LinkDown, match="has not brought"):
            far.recv(TIMEOUT_S)
    listener.close()


def test_a_wait_for_nothing_ends_and_the_link_is_still_good(pair: tuple[Link, Link]) -> None:
    near, far = pair
    with pytest.raises(LinkIdle):
        far.recv(0.01)
    near.send(work(7))
    assert far.recv(TIMEOUT_S).chunk == 7


def test_closing_ends_a_wait_in_another_thread_at_once(pair: tuple[Link, Link]) -> None:
    near, far = pair
    ended: list[float] = []

    def wait() -> None:
        with pytest.raises(LinkDown):
            far.recv(30)
        ended.append(time.monotonic())

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.05)
    began = time.monotonic()
    near.close()
    thread.join(10)
    assert ended
    assert ended[0] - began < 5


def test_what_was_sent_before_the_end_arrives(pair: tuple[Link, Link]) -> None:
    near, far = pair
    near.send(work(1, x=torch.ones(10)))
    near.close()
    assert far.recv(TIMEOUT_S).chunk == 1
    with pytest.raises(LinkDown):
        far.recv(TIMEOUT_S)


def test_a_reader_that_reads_nothing_takes_the_link_down(listener: Listener) -> None:
    near = connect(listener.address, timeout_s=0.3)
    far = listener.accept(TIMEOUT_S)

    def flood() -> None:
        for chunk in range(100):
            near.send(work(chunk, x=torch.zeros(1 << 20)))

    with pytest.raises(LinkDown):
        flood()
    near.close()
    far.close()


@pytest.mark.parametrize("address", ["unix:{}/s", "tcp:127.0.0.1:0"])
@pytest.mark.parametrize("is_finished", [True, False])
def test_what_does_not_go_at_once_goes_before_the_next(
    tmp_path: Path, address: str, is_finished: bool
) -> None:
    listener = listen(address.format(tmp_path), timeout_s=TIMEOUT_S)
    near = connect(listener.address, timeout_s=TIMEOUT_S)
    far = listener.accept(TIMEOUT_S)
    assert isinstance(near, PromptLink)
    payload = torch.rand(4 << 20)
    assert near.send_now(work(0, x=payload[:10]))
    assert not near.send_now(work(1, x=payload))

    def send_rest() -> None:
        if is_finished:
            near.finish()
        near.send(work(2, x=payload[:1000]))

    thread = threading.Thread(target=send_rest)
    thread.start()
    for chunk, size in ((0, 10), (1, payload.numel()), (2, 1000)):
        message = far.recv(TIMEOUT_S)
        assert message.chunk == chunk
        assert torch.equal(message.tensors["x"], payload[:size])
    thread.join()
    near.close()
    far.close()
    listener.close()


def test_nobody_listens_at_a_closed_address(listener: Listener) -> None:
    with pytest.raises(LinkIdle):
        listener.accept(0.01)
    listener.close()
    with pytest.raises(LinkDown):
        listener.accept(0.01)
    with pytest.raises(LinkDown):
        connect(listener.address, timeout_s=0.3)


def test_an_address_can_be_used_again_but_not_twice(listener: Listener) -> None:
    with pytest.raises(ValueError, match=r"taken|cannot listen"):
        listen(listener.address, timeout_s=TIMEOUT_S)


@pytest.mark.parametrize("address", ["", "unix:", "tcp:here", "tcp:here:x", "tcp:h:99999", "ftp:x"])
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(ValueError, match="address"):
        connect(address, timeout_s=TIMEOUT_S)


def test_a_socket_path_that_linux_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="107"):
        listen(f"unix:/{'x' * 120}", timeout_s=TIMEOUT_S)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack("<I", 0),
        struct.pack("<I", 3) + b"\xc1\xc1\xc1",
        struct.pack("<I", 100) + b"half",
    ],
)
def test_garbage_takes_the_link_down(tmp_path: Path, data: bytes) -> None:
    path = str(tmp_path / "s")
    listener = listen(f"unix:{path}", timeout_s=0.3)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        link = listener.accept(TIMEOUT_S)
        sock.sendall(data)
        with pytest.raises(LinkDown):
            link.recv(TIMEOUT_S)
    listener.close()
