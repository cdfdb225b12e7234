"""Frames: whole ones come out in any pieces, broken ones are refused at their first wrong byte."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from viva.v1.framing import HEADER, MAGIC, VERSION, FrameDecoder, Limits, Scalar, WireError, encode

pytestmark = pytest.mark.unit

scalars = st.one_of(
    st.text(max_size=20),
    st.binary(max_size=40),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False),
    st.booleans(),
)
payloads = st.dictionaries(st.text(max_size=8), scalars, max_size=16)


@given(st.lists(payloads, max_size=4), st.integers(1, 50))
def test_maps_come_out_as_they_went_in_whatever_the_pieces(
    sent: list[dict[str, Scalar]], size: int
) -> None:
    stream = b"".join(map(encode, sent))
    decoder, got = FrameDecoder(), list[dict[str, Scalar]]()
    for place in range(0, len(stream), size):
        got += decoder.feed(stream[place : place + size])
    decoder.finish()
    assert got == sent
    assert decoder.num_held_bytes == 0


def test_a_stream_cut_at_any_byte_gives_the_whole_frames_and_says_that_it_was_cut() -> None:
    frame = encode({"type": "ping", "nonce": 300})
    for cut in range(1, len(frame)):
        decoder = FrameDecoder()
        assert len(decoder.feed(frame + frame[:cut])) == 1
        with pytest.raises(WireError, match=f"within a frame, after {cut} bytes"):
            decoder.finish()


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        (b"X", "b'X' begin no frame"),
        (b"VX", "b'VX' begin no frame"),
        (b"VV\x02", "wire version 2 is not 1"),
        (MAGIC + bytes([VERSION]) + struct.pack("<I", 101), "101 bytes: at most 100 are read"),
    ],
)
def test_a_wrong_head_is_refused_before_its_payload_comes(start: bytes, reason: str) -> None:
    decoder = FrameDecoder(max_bytes=100)
    with pytest.raises(WireError, match=reason):
        decoder.feed(start)
    assert decoder.num_held_bytes == 0


def test_a_broken_stream_stays_broken() -> None:
    decoder, frame = FrameDecoder(), encode({"a": 1})
    with pytest.raises(WireError, match="begin no frame"):
        decoder.feed(b"noise")
    with pytest.raises(WireError, match="begin no frame"):
        decoder.feed(frame)


def test_a_payload_of_exactly_the_limit_passes_and_one_byte_more_does_not() -> None:
    frame = encode({"a": b"x" * 50})
    length = len(frame) - HEADER.size
    assert FrameDecoder(max_bytes=length).feed(frame) == [{"a": b"x" * 50}]
    with pytest.raises(WireError, match="at most"):
        FrameDecoder(max_bytes=length - 1).feed(frame)
    with pytest.raises(WireError, match="at most"):
        encode({"a": b"x" * 50}, Limits(max_bytes=length - 1))


def test_too_many_fields_are_refused_on_both_sides() -> None:
    fields: dict[str, Scalar] = {str(i): i for i in range(17)}
    with pytest.raises(WireError, match="17 fields"):
        encode(fields)
    with pytest.raises(WireError, match="no flat msgpack map"):
        FrameDecoder().feed(encode(fields, Limits(max_fields=17)))


@pytest.mark.parametrize("value", [1 << 64, object(), "\ud800"])
def test_what_msgpack_does_not_hold_is_refused_by_the_sender(value: object) -> None:
    with pytest.raises(WireError, match="cannot be packed"):
        encode({"a": value})  # type: ignore[dict-item]  # the point of the test
