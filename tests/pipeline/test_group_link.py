"""Links through torch.distributed: what they carry, and what becomes of them when a side goes."""

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pipeline.channel import LinkDown, LinkIdle
from pipeline.message import DTYPES
from tests.support.group_links import (
    LARGE,
    PATIENCE_S,
    bits_of,
    exchanged,
    greeted,
    is_paired,
    num_descriptors,
    work,
)

pytestmark = pytest.mark.unit


@pytest.fixture(params=["unix", "tcp"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"gloo+unix:{tmp_path}/s" if request.param == "unix" else "gloo+tcp:127.0.0.1:0"


def test_large_tensors_of_every_type_arrive_bit_for_bit(address: str) -> None:
    bits = torch.randint(0, 256, (8 * LARGE,), dtype=torch.uint8)
    sent = {n: bits.view(t) if t != torch.bool else bits > 100 for n, t in DTYPES.items()}
    sent |= {"turned": torch.rand(300, 400).T, "small": torch.rand(3), "none": torch.zeros(0, 3)}
    with greeted(address) as (near, far):
        (read,) = exchanged(near, far, [work(0, **sent)])
        assert is_paired(near)
        assert is_paired(far)
    assert list(read.tensors) == list(sent)
    for name, tensor in sent.items():
        assert read.tensors[name].dtype == tensor.dtype
        assert torch.equal(bits_of(read.tensors[name]), bits_of(tensor))


def test_only_large_tensors_need_a_pair(address: str) -> None:
    with greeted(address) as (near, far):
        below, exactly = torch.zeros(LARGE - 1, dtype=torch.uint8), torch.zeros(LARGE // 4)
        exchanged(near, far, [work(0, x=below)])
        assert not is_paired(near)
        exchanged(near, far, [work(1, x=exactly)])
        assert is_paired(near)


def test_the_same_buffer_can_be_written_to_after_it_was_sent(address: str) -> None:
    buffer = torch.zeros(LARGE)
    with greeted(address) as (near, far):

        def send() -> None:
            for chunk in range(20):
                near.send(work(chunk, x=buffer.fill_(chunk), same=buffer))

        thread = threading.Thread(target=send)
        thread.start()
        for chunk in range(20):
            read = far.recv(PATIENCE_S).tensors
            assert torch.equal(read["x"], torch.full_like(buffer, chunk))
            assert torch.equal(read["same"], read["x"])
        thread.join()


def test_one_thread_receives_while_another_sends(address: str) -> None:
    """The receiver's words on the pair and its messages come by one socket."""
    with greeted(address) as (near, far):
        heard: list[int] = []
        ear = threading.Thread(
            target=lambda: heard.extend(near.recv(PATIENCE_S).chunk for _ in range(50))
        )

        def speak() -> None:
            for chunk in range(50):
                far.send(work(chunk, x=torch.rand(9000)))

        mouth = threading.Thread(target=speak)
        ear.start()
        mouth.start()
        arrived = exchanged(near, far, [work(c, x=torch.rand(9000)) for c in range(50)])
        mouth.join()
        ear.join()
    assert [message.chunk for message in arrived] == heard == list(range(50))


def test_closing_frees_a_sender_whose_receiver_never_begins(address: str) -> None:
    with greeted(address) as (near, far):
        errors: list[str] = []

        def send() -> None:
            try:
                near.send(work(0, x=torch.zeros(LARGE)))
            except LinkDown as error:
                errors.append(str(error))

        thread = threading.Thread(target=send)
        thread.start()
        thread.join(0.1)
        assert thread.is_alive()
        near.close()
        thread.join(PATIENCE_S / 2)
        assert errors
        with pytest.raises(LinkDown):
            far.recv(PATIENCE_S)


def test_a_receiver_that_never_begins_takes_the_link_down(address: str) -> None:
    with greeted(address, timeout_s=0.2) as (near, _), pytest.raises(LinkDown):
        near.send(work(0, x=torch.zeros(LARGE)))


def test_eighty_edges_are_made_eight_at_a_time(tmp_path: Path) -> None:
    """Pairs made side by side, both ranks in one process; none is left behind."""
    before = num_descriptors()
    errors: list[BaseException] = []

    def make(edge: int) -> None:
        try:
            for attempt in range(10):
                with greeted(f"gloo+unix:{tmp_path}/s{edge}-{attempt}") as (near, far):
                    x = torch.full((LARGE,), float(edge))
                    (read,) = exchanged(near, far, [work(attempt, x=x)])
                    assert torch.equal(read.tensors["x"], x)
        except BaseException as error:  # noqa: BLE001 - shown by the test
            errors.append(error)

    threads = [threading.Thread(target=make, args=(edge,)) for edge in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert num_descriptors() <= before


def test_two_ranks_on_one_gpu_are_joined_through_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NCCL refuses them, and both find that out the same way."""
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="the only one")
    )
    with greeted(f"gloo+unix:{tmp_path}/s") as (near, far):
        near._backend = far._backend = "nccl"
        (read,) = exchanged(near, far, [work(0, x=torch.ones(LARGE))])
        assert is_paired(near)
        assert is_paired(far)
    assert torch.equal(read.tensors["x"], torch.ones(LARGE))


def test_an_idle_link_stays_good(address: str) -> None:
    with greeted(address) as (near, far):
        exchanged(near, far, [work(0, x=torch.ones(LARGE))])
        with pytest.raises(LinkIdle):
            far.recv(0.01)
        with pytest.raises(LinkIdle):
            near.recv(0.0)
        (read,) = exchanged(near, far, [work(1, x=torch.ones(LARGE))])
    assert read.chunk == 1
