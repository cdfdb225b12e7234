"""Bytes that a broken or hostile peer could send instead of frames: made from good ones, seeded."""

import random
import struct
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, cast

import msgpack
from viva.v1.framing import HEADER, MAGIC, VERSION
from viva.v1.messages import (
    TYPE_FIELD,
    TYPES,
    AnyMessage,
    Message,
    encode,
)
from viva.v1.rules import Blob, Real, Rule, Text, Whole, rules_of

# A payload that needs more is refused by its length, which takes no bytes to try.
MAX_BLOB_BYTES = 64
ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**53, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), 0.0, -0.0,
    1e308, float("inf"), float("-inf"), float("nan"), "", "a", "\0", "\x7f" * 200, "é" * 64, b"",
    b"\xff" * 3, b"\0" * 300, [], [1], [[[]]], {}, {"a": 1}, {"type": "ping"}, {"a": {"b": {}}},
    msgpack.ExtType(5, b"x"), msgpack.Timestamp(1, 2),
)  # fmt: skip


def seeded(seed: int | str) -> random.Random:
    """Chance that is the same in every run."""
    return random.Random(seed)  # noqa: S311  # inputs of tests, no secrets


def good_message(rng: random.Random, cls: type[Message] | None = None) -> AnyMessage:
    """Any message at all, small, with fields at the ends of their ranges now and then."""
    cls = cls or rng.choice(list(TYPES.values()))
    values = {name: _good_value(rng, rule) for name, rule in _rules(cls.tag).items()}
    if "rgb" in values:
        width, height = rng.randint(1, 4), rng.randint(1, 4)
        values |= {"width": width, "height": height, "rgb": rng.randbytes(width * height * 3)}
    if "pcm" in values:
        values["pcm"] = rng.randbytes(2 * rng.randint(0, MAX_BLOB_BYTES // 2))
    return cast(AnyMessage, cast(Any, cls)(**values))


@cache
def _rules(tag: str) -> dict[str, Rule]:
    """A type's rules, read once: reading them takes longer than all the rest."""
    return rules_of(TYPES[tag])


def _good_value(rng: random.Random, rule: Rule) -> Any:
    """A value that the rule allows."""
    if isinstance(rule, Text):
        length = rng.choice([rule.min_chars, rng.randint(rule.min_chars, 12), rule.max_chars])
        return "".join(rng.choices("ab1 é\n\0\U0001f600", k=min(length, 200)))
    if isinstance(rule, Blob):
        return rng.randbytes(rng.randint(0, MAX_BLOB_BYTES))
    if isinstance(rule, Whole):
        return rng.choice([rule.low, rule.high, rng.randint(rule.low, rule.high)])
    if isinstance(rule, Real):
        return rng.choice([0, -rule.limit, rule.limit, rng.uniform(-1e3, 1e3)])
    return rng.random() < 0.5


def frame_of(payload: bytes) -> bytes:
    """Any bytes in a right frame."""
    return HEADER.pack(MAGIC, VERSION, len(payload)) + payload


def _flipped(rng: random.Random, frame: bytes) -> bytes:
    """Some bits are others."""
    data = bytearray(frame)
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def _truncated(rng: random.Random, frame: bytes) -> bytes:
    """The end is missing, and another frame may follow."""
    return frame[: rng.randrange(len(frame))] + (frame if rng.random() < 0.5 else b"")


def _oversized(rng: random.Random, frame: bytes) -> bytes:
    """The length is another."""
    length = rng.choice([0, 1, len(frame), 2**28, 2**28 + 1, 2**31, 2**32 - 1])
    return frame[:3] + struct.pack("<I", length) + frame[HEADER.size :]


def _odd_field(rng: random.Random, frame: bytes) -> bytes:
    """A field has a value of another type, or one out of every range."""
    payload = _payload_of(frame)
    payload[rng.choice(list(payload))] = rng.choice(ODD_VALUES)
    return frame_of(msgpack.packb(payload))


def _odd_names(rng: random.Random, frame: bytes) -> bytes:
    """A field is missing, is there under another name, or there are too many."""
    payload: dict[Any, Any] = {**_payload_of(frame)}
    if rng.random() < 0.6:
        payload.pop(rng.choice(list(payload)))
    for _ in range(rng.choice([0, 1, 1, 30])):
        payload[rng.choice(["", "x", b"x", "session", TYPE_FIELD, "\0", str(rng.random())])] = 1
    return frame_of(msgpack.packb(payload))


def _other_type(rng: random.Random, frame: bytes) -> bytes:
    """The fields of one type under the name of another."""
    payload = _payload_of(frame) | {TYPE_FIELD: rng.choice([*TYPES, "", "Hello", "__class__"])}
    return frame_of(msgpack.packb(payload))


def _nested(rng: random.Random, _: bytes) -> bytes:
    """Maps, arrays and fixed arrays inside one another."""
    opening = rng.choice([b"\x81\xa1a", b"\x91", b"\xdd\0\0\0\1", b"\xdf\0\0\0\1\xa1a"])
    return frame_of(opening * rng.choice([2, 20, 511, 512, 1200]) + rng.choice([b"", b"\xc0"]))


def _claimed(rng: random.Random, _: bytes) -> bytes:
    """Containers and texts that claim far more than there is."""
    head = rng.choice([b"\xdd", b"\xdf", b"\xdb", b"\xc6", b"\xc9", b"\xdc", b"\xde"])
    count = rng.choice([0xFFFFFFFF, 0x7FFFFFFF, 0x01000000, 0x00FF00FF])
    claim = head + count.to_bytes(4, "big") + rng.randbytes(rng.randint(0, 16))
    return frame_of(rng.choice([b"", b"\x81\xa4type", b"\x82\xa4type\xa4ping\xa5nonce"]) + claim)


def _doubled(_: random.Random, frame: bytes) -> bytes:
    """Every field is there twice."""
    packed = frame[HEADER.size :]
    count = packed[0] & 0x0F
    return frame_of(bytes([0x80 | min(15, 2 * count)]) + packed[1:] + packed[1:])


def _noise(rng: random.Random, _: bytes) -> bytes:
    """Anything, in a frame or not."""
    data = rng.randbytes(rng.randint(0, 80))
    return frame_of(data) if rng.random() < 0.7 else data


def _spliced(rng: random.Random, frame: bytes) -> bytes:
    """The end of another frame behind the beginning of this one."""
    other = encode(good_message(rng))
    return frame[: rng.randrange(len(frame))] + other[rng.randrange(len(other)) :]


def _untouched(rng: random.Random, frame: bytes) -> bytes:
    """Nothing wrong, for once: one frame behind the other."""
    return frame * rng.randint(1, 3)


MUTATIONS: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "bytes flipped": _flipped,
    "truncated": _truncated,
    "length changed": _oversized,
    "field of a wrong type": _odd_field,
    "fields renamed": _odd_names,
    "type changed": _other_type,
    "nested deeply": _nested,
    "more claimed than there": _claimed,
    "fields doubled": _doubled,
    "noise": _noise,
    "spliced": _spliced,
    "good": _untouched,
}


def _payload_of(frame: bytes) -> dict[str, Any]:
    """What a good frame holds."""
    return cast(dict[str, Any], msgpack.unpackb(frame[HEADER.size :]))


def inputs(seed: int, count: int, corpus: list[bytes]) -> Iterator[tuple[str, bytes]]:
    """So many inputs with the name of what was done to them; the same for the same seed."""
    rng = seeded(seed)
    names, kept = list(MUTATIONS), [data for data in corpus if data]
    for index in range(count):
        name = names[index % len(names)]
        is_kept = bool(kept) and name in ("bytes flipped", "truncated") and rng.random() < 0.3
        frame = rng.choice(kept) if is_kept else encode(good_message(rng))
        yield name, MUTATIONS[name](rng, frame)
