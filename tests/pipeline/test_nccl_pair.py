"""NCCL between stages: what can be shown without a GPU, with one, and with two."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
import torch.distributed

from pipeline.channel import connect, listen
from pipeline.message import Message
from tests.support.group_links import (
    LARGE,
    PATIENCE_S,
    bits_of,
    exchanged,
    greeted,
    is_paired,
    work,
)
from tests.support.viva import ROOT

pytestmark = pytest.mark.unit

HAS_NCCL = torch.cuda.is_available() and torch.distributed.is_nccl_available()
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.uint8, torch.int64)


@pytest.mark.skipif(torch.cuda.is_available(), reason="only where no GPU is")
def test_without_a_gpu_it_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="needs a GPU"):
        listen("nccl+tcp:127.0.0.1:0", timeout_s=1.0)
    with pytest.raises(ValueError, match="no backend 'mpi'"):
        connect("mpi+unix:/x", timeout_s=1.0)


SELF_SEND = """
import torch
from pipeline.link_store import LinkStore
from pipeline.nccl_pair import make_nccl_group

device = torch.device("cuda", 0)
entries = {}
store = LinkStore(publish=entries.__setitem__, await_entry=entries.__getitem__)
group = make_nccl_group(store, 0, 1, device)
for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.uint8, torch.int64):
    sent = torch.arange(1 << 18, device=device).to(dtype)
    read = torch.empty_like(sent)
    group._start_coalescing(device)
    group.send([sent.view(torch.uint8)], 0, 0)
    group.recv([read.view(torch.uint8)], 0, 0)
    group._end_coalescing(device).wait()
    torch.cuda.synchronize()
    assert torch.equal(sent, read), dtype
group.abort()
print("same")
"""


@pytest.mark.skipif(not HAS_NCCL, reason="no GPU with NCCL here: the NCCL link was not exercised")
def test_a_world_of_one_sends_to_itself() -> None:
    """In a process of its own, as it changes how NCCL behaves there."""
    done = subprocess.run(
        [sys.executable, "-c", SELF_SEND],
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.stdout == "same\n", done.stderr


@pytest.mark.skipif(not HAS_NCCL, reason="no GPU with NCCL here: the NCCL link was not exercised")
def test_a_link_between_two_ends_on_one_gpu_goes_through_the_host(tmp_path: Path) -> None:
    with greeted(f"nccl+unix:{tmp_path}/s") as (near, far):
        for index, dtype in enumerate(DTYPES):
            sent = torch.arange(LARGE, device="cuda").to(dtype)
            (read,) = exchanged(near, far, [work(index, x=sent)])
            assert torch.equal(bits_of(read.tensors["x"]).cpu(), bits_of(sent).cpu())
        assert is_paired(near)


@pytest.mark.skipif(
    not HAS_NCCL or torch.cuda.device_count() < 2,
    reason="no two GPUs with NCCL here: NCCL between two ranks was not exercised",
)
def test_a_link_between_two_gpus(tmp_path: Path) -> None:
    listener_at = f"nccl+unix:{tmp_path}/s"
    read: list[Message] = []

    def receive() -> None:
        with torch.cuda.device(1):
            listener = listen(listener_at, timeout_s=PATIENCE_S)
            ready.set()
            far = listener.accept(PATIENCE_S)
            far.recv(PATIENCE_S)
            far.send(Message(kind="welcome"))
            read.extend(far.recv(PATIENCE_S) for _ in DTYPES)
            far.close()
            listener.close()

    ready = threading.Event()
    thread = threading.Thread(target=receive)
    thread.start()
    ready.wait(PATIENCE_S)
    near = connect(listener_at, timeout_s=PATIENCE_S)
    near.send(Message(kind="hello"))
    near.recv(PATIENCE_S)
    for index, dtype in enumerate(DTYPES):
        sent = torch.arange(LARGE, device="cuda:0").to(dtype)
        near.send(work(index, x=sent))
    thread.join()
    near.close()
    for message, dtype in zip(read, DTYPES, strict=True):
        expected = torch.arange(LARGE).to(dtype)
        assert message.tensors["x"].device == torch.device("cuda", 1)
        assert torch.equal(bits_of(message.tensors["x"]).cpu(), bits_of(expected))
