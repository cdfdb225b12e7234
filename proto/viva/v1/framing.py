"""Frames on the socket between gateway and model process: where one message ends.

A frame is `magic (2 bytes) | version (u8) | length (u32) | payload`, numbers little-endian; the
payload is one flat msgpack map of `length` bytes, by field name. `messages.py` says which maps
there are. Covered here: truncation, foreign bytes, lengths and shapes that would cost memory.
Not covered: who is at the other end; the socket lies in a folder that only its owner may enter.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import msgpack

Scalar = str | bytes | int | float | bool
Payload = Mapping[str, Scalar]

MAGIC = b"VV"
VERSION = 1
HEADER = struct.Struct("<2sBI")
MAX_SHOWN_CHARS = 60


class WireError(ValueError):
    """Bytes or a value that the wire contract does not allow; one line naming what was wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one frame may hold; a text or a blob may fill it."""

    max_bytes: int = 1 << 28
    max_fields: int = 16


DEFAULT_LIMITS = Limits()


def encode(payload: Payload, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """One map as a frame.

    Raises:
        WireError: the map has values that no frame holds, or more than the limits allow.
    """
    if len(payload) > limits.max_fields:
        raise WireError(f"{len(payload)} fields: a frame holds at most {limits.max_fields}")
    try:
        packed: bytes = msgpack.packb(payload)
    except (ValueError, TypeError, OverflowError) as error:
        raise WireError(f"the message cannot be packed: {error}"[:200]) from error
    if len(packed) > limits.max_bytes:
        raise WireError(f"a message of {len(packed)} bytes: at most {limits.max_bytes} are sent")
    return HEADER.pack(MAGIC, VERSION, len(packed)) + packed


class FrameDecoder:
    """Bytes as they arrive, in pieces of any size, into maps.

    It holds at most one unfinished frame. A stream that broke the contract stays broken: where its
    next frame begins cannot be known.
    """

    def __init__(self, max_bytes: int = DEFAULT_LIMITS.max_bytes) -> None:
        """Refuse frames whose payload is longer than `max_bytes`."""
        self._limits = Limits(max_bytes=max_bytes)
        self._buffer = bytearray()
        self._broken: str | None = None

    @property
    def num_held_bytes(self) -> int:
        """Bytes of a frame that is not complete yet."""
        return len(self._buffer)

    def feed(self, data: bytes | bytearray | memoryview) -> list[dict[str, Scalar]]:
        """The maps that became complete, in order.

        Raises:
            WireError: at the first byte that cannot be right; every later call raises it again.
        """
        if self._broken is not None:
            raise WireError(self._broken)
        self._buffer += data
        try:
            return list(self._complete())
        except WireError as error:
            self._broken = str(error)
            self._buffer.clear()
            raise

    def finish(self) -> None:
        """The stream has ended.

        Raises:
            WireError: in the middle of a frame.
        """
        if self._buffer:
            raise WireError(f"the stream ended within a frame, after {len(self._buffer)} bytes")

    def _complete(self) -> Iterator[dict[str, Scalar]]:
        """Take whole frames from the front of the buffer."""
        while (length := payload_length(self._buffer, self._limits)) is not None:
            end = HEADER.size + length
            if len(self._buffer) < end:
                return
            with memoryview(self._buffer) as view, view[HEADER.size : end] as packed:
                payload = unpack_payload(packed, self._limits)
            del self._buffer[:end]
            yield payload


def payload_length(start: bytes | bytearray, limits: Limits = DEFAULT_LIMITS) -> int | None:
    """Bytes of the payload that a frame's first bytes announce; None: they are too few to say.

    Raises:
        WireError: they begin no frame of ours, or one over the limit.
    """
    if bytes(start[:2]) != MAGIC[: len(start)]:
        raise WireError(f"bytes {bytes(start[:2])!r} begin no frame")
    if len(start) > 2 and start[2] != VERSION:
        raise WireError(f"wire version {start[2]} is not {VERSION}")
    if len(start) < HEADER.size:
        return None
    length = int(HEADER.unpack_from(start)[2])
    if length > limits.max_bytes:
        raise WireError(f"a payload of {length} bytes: at most {limits.max_bytes} are read")
    return length


def unpack_payload(
    packed: bytes | memoryview, limits: Limits = DEFAULT_LIMITS
) -> dict[str, Scalar]:
    """The flat map that a frame's payload holds.

    Raises:
        WireError: it is none, or one with values inside values.
    """
    try:
        payload = msgpack.unpackb(
            packed,
            object_pairs_hook=_unique,
            strict_map_key=True,
            # An array claims its memory before its items are read: none is ever needed.
            max_array_len=0,
            max_ext_len=0,
            max_map_len=limits.max_fields,
        )
    except (ValueError, msgpack.UnpackException) as error:
        reason = " ".join(str(error).split())[:MAX_SHOWN_CHARS] or type(error).__name__
        raise WireError(f"the payload is no flat msgpack map: {reason}") from error
    if not isinstance(payload, dict):
        raise WireError("the payload is no msgpack map")
    for name, value in payload.items():
        if not isinstance(name, str) or not isinstance(value, str | bytes | int | float):
            raise WireError(f"field {shown(name)} holds no plain value")
    return payload


def shown(value: object) -> str:
    """A foreign value as a message may repeat it: short, printable, on one line."""
    if isinstance(value, str | bytes):
        return ascii(value[:MAX_SHOWN_CHARS])
    if isinstance(value, bool | int | float):
        return str(value)
    return type(value).__name__


def _unique(pairs: list[tuple[object, object]]) -> dict[object, object]:
    """A map of the pairs, each name of which must be there once."""
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise WireError("a field is there twice")
    return fields
