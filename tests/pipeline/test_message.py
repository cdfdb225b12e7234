"""Messages: what goes in comes out bit for bit, and what is no message is refused."""

from typing import Any

import msgpack
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.message import (
    DTYPES,
    LENGTH,
    MAX_HEADER_BYTES,
    Message,
    MessageError,
    header_length,
    pack_header,
    unpack_header,
)

pytestmark = pytest.mark.unit

GOOD: dict[str, Any] = {
    "v": 1,
    "kind": "work",
    "session": "a",
    "epoch": 1,
    "chunk": 2,
    "due": 3,
    "facts": {"sigma": 0.85, "start_frame": 6, "positions": {"1": -1}},
    "tensors": [["x", "f4", [2, 3]]],
}


def unpacked(**changes: Any) -> tuple[Message, Any]:
    fields = {k: v for k, v in (GOOD | changes).items() if v is not None}
    return unpack_header(msgpack.packb(fields))


def test_a_header_says_what_it_was_told() -> None:
    tensors = {f"t-{n}": torch.zeros(2, 3, dtype=d) for n, d in DTYPES.items()}
    facts: dict[str, Any] = {"sigma": 0.1, "text": "ö", "positions": {"3": 4}}
    message = Message(
        kind="work", session="s", epoch=1, chunk=2, due_ns=3, facts=facts, tensors=tensors
    )
    packed = pack_header(message)
    assert header_length(packed[:4]) == len(packed) - 4
    read, specs = unpack_header(packed[4:])
    assert (read.kind, read.session, read.epoch, read.chunk, read.due_ns) == ("work", "s", 1, 2, 3)
    assert read.facts == facts
    assert [(s.name, s.dtype, s.shape) for s in specs] == [
        (name, tensor.dtype, (2, 3)) for name, tensor in tensors.items()
    ]
    assert sum(spec.num_bytes for spec in specs) == message.num_bytes


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"v": 2}, "version 2"),
        ({"kind": "order"}, "kind 'order'"),
        ({"kind": ["work"]}, "kind"),
        ({"session": "x" * 257}, "session"),
        ({"session": 3}, "session"),
        ({"epoch": -1}, "epoch"),
        ({"chunk": 1.5}, "chunk"),
        ({"chunk": True}, "chunk"),
        ({"due": None}, "due"),
        ({"extra": 1}, "extra"),
        ({"facts": [1]}, "facts"),
        ({"facts": {"deep": {"a": {"b": 1}}}}, "deep"),
        ({"facts": {"list": [1]}}, "list"),
        ({"tensors": {}}, "tensors"),
        ({"tensors": [["x", "f4", [1]]] * 2}, "repeats"),
        ({"tensors": [["x", "O8", [1]]]}, "unknown type"),
        ({"tensors": [["x", "f4", [-1]]]}, "shape"),
        ({"tensors": [["x", "f4", [1] * 9]]}, "shape"),
        ({"tensors": [["x", "f4"]]}, "needs name"),
        ({"tensors": [[f"x{i}", "f4", [1]] for i in range(1025)]}, "short list"),
        ({"tensors": [["x", "f8", [1 << 20, 1 << 20, 1 << 20]]]}, "too large"),
    ],
)
def test_other_headers_are_refused(changes: dict[str, Any], says: str) -> None:
    assert unpacked()[0].chunk == 2
    with pytest.raises(MessageError, match=says) as refused:
        unpacked(**changes)
    assert "\n" not in str(refused.value)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_header_or_refused(data: bytes) -> None:
    with pytest.raises(MessageError):
        unpack_header(data)


@given(st.data())
def test_a_header_with_flipped_bytes_is_read_or_refused(data: st.DataObject) -> None:
    packed = bytearray(msgpack.packb(GOOD))
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    try:
        message, _ = unpack_header(bytes(packed))
    except MessageError:
        return
    assert message.chunk >= 0


@pytest.mark.parametrize("length", [0, MAX_HEADER_BYTES + 1, 0xFFFFFFFF])
def test_a_length_that_no_header_has_is_refused(length: int) -> None:
    with pytest.raises(MessageError, match=str(length)):
        header_length(LENGTH.pack(length))


def test_a_message_that_would_be_refused_is_not_sent() -> None:
    with pytest.raises(MessageError, match="session"):
        pack_header(Message(kind="work", session="x" * 300))
    with pytest.raises(MessageError, match="complex"):
        pack_header(Message(kind="work", tensors={"x": torch.zeros(1, dtype=torch.complex64)}))
