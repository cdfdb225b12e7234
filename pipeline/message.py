"""What travels between stages: a small checked header and the tensors that it announces.

A frame on the wire is `u32 header length | msgpack header | tensors, one after the other`, all
little-endian. The same frames, one after the other, make the files in which states are kept.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal, get_args

import msgpack
import torch

Kind = Literal["hello", "welcome", "work", "frames", "error", "state"]
Fact = int | float | str | dict[str, int]
Part = bytes | memoryview

VERSION = 1
MAX_HEADER_BYTES = 1 << 17
MAX_TENSORS = 1024
MAX_TENSOR_BYTES = 1 << 34
MAX_NAME = 256
# The chunk of a state that stages have before chunk 0 has passed all of them.
BEFORE_ALL = -1
LENGTH = struct.Struct("<I")

DTYPES = {
    "f4": torch.float32,
    "f2": torch.float16,
    "b2": torch.bfloat16,
    "f8": torch.float64,
    "i8": torch.int64,
    "i4": torch.int32,
    "u1": torch.uint8,
    "b1": torch.bool,
}
_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_KINDS = frozenset(get_args(Kind))
_FIELDS = frozenset(("v", "kind", "session", "epoch", "chunk", "due", "facts", "tensors"))


# Announcements of tensors that were found good, by their text; few, and none long.
_known_specs: dict[str, tuple["TensorSpec", ...]] = {}
_MAX_KNOWN = 64
_MAX_KNOWN_CHARS = 4096


class MessageError(ValueError):
    """Bytes that are no message, or one that is not allowed; one line saying why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One thing said on a link.

    `epoch` numbers the openings of sessions in a chain, so that strays of an earlier session of
    the same name can be told apart; `chunk` counts from 0; `due_ns` orders the work of different
    sessions (monotonic clock of the driver). `facts` holds a few small values, `tensors` the rest.
    """

    kind: Kind
    session: str = ""
    epoch: int = 0
    chunk: int = 0
    due_ns: int = 0
    facts: Mapping[str, Fact] = field(default_factory=dict)
    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)
    _parts: tuple[Part, ...] = field(default=(), init=False, repr=False, compare=False)

    def parts(self) -> tuple[Part, ...]:
        """The message as bytes: its header, and its tensors, not copied if they lie on a CPU.

        They are made once, however often a message is sent and kept: no message changes.

        Raises:
            MessageError: it is no message that anybody would read.
        """
        if not self._parts:
            tensors = [sent_bytes(tensor) for tensor in self.tensors.values() if tensor.numel()]
            object.__setattr__(self, "_parts", (pack_header(self), *tensors))
        return self._parts

    def with_tensors(self, tensors: Mapping[str, torch.Tensor]) -> "Message":
        """The same message with these tensors."""
        return Message(
            kind=self.kind,
            session=self.session,
            epoch=self.epoch,
            chunk=self.chunk,
            due_ns=self.due_ns,
            facts=self.facts,
            tensors=tensors,
        )

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(t.numel() * t.element_size() for t in self.tensors.values())


def sent_bytes(tensor: torch.Tensor) -> memoryview:
    """The bytes of any tensor that has some; those of a contiguous CPU tensor are not copied."""
    if tensor.requires_grad or not tensor.is_cpu or not tensor.is_contiguous():
        tensor = tensor.detach().cpu().contiguous()
    return bytes_of(tensor)


def bytes_of(tensor: torch.Tensor) -> memoryview:
    """The bytes of a contiguous CPU tensor, not copied."""
    if tensor.dtype is torch.bfloat16:  # which numpy does not know
        tensor = tensor.view(torch.int16)
    return tensor.numpy().data.cast("B")


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """Name, type and shape of a tensor that follows a header."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes on the wire."""
        return prod(self.shape) * self.dtype.itemsize

    def empty(self, device: torch.device | str = "cpu") -> torch.Tensor:
        """Room for it."""
        return torch.empty(self.shape, dtype=self.dtype, device=device)


def pack_header(message: Message) -> bytes:
    """The message's header with its length in front.

    Raises:
        MessageError: the message would be refused by whoever reads it.
    """
    _check_origin(message.kind, message.session)
    _check_counts(message.kind, message.epoch, message.chunk, message.due_ns)
    specs = [_packed_spec(name, tensor) for name, tensor in message.tensors.items()]
    _checked_specs(specs)
    header: bytes = msgpack.packb(
        {
            "v": VERSION,
            "kind": message.kind,
            "session": message.session,
            "epoch": message.epoch,
            "chunk": message.chunk,
            "due": message.due_ns,
            "facts": _checked_facts(dict(message.facts)),
            "tensors": specs,
        }
    )
    prefix = LENGTH.pack(len(header))
    header_length(prefix)
    return prefix + header


def _packed_spec(name: str, tensor: torch.Tensor) -> list[Any]:
    """A tensor as a header announces it."""
    if tensor.dtype not in _DTYPE_NAMES:
        raise MessageError(f"tensor {name} of {tensor.dtype} cannot be sent")
    return [name, _DTYPE_NAMES[tensor.dtype], list(tensor.shape)]


def header_length(prefix: bytes) -> int:
    """Bytes of the header that follows its four-byte prefix.

    Raises:
        MessageError: longer than any header is.
    """
    (length,) = LENGTH.unpack(prefix)
    if not 0 < length <= MAX_HEADER_BYTES:
        raise MessageError(f"a header of {length} bytes: at most {MAX_HEADER_BYTES} are read")
    return int(length)


def unpack_header(header: bytes) -> tuple[Message, tuple[TensorSpec, ...]]:
    """The message without its tensors, and what they will be.

    Raises:
        MessageError: names the field that is missing, unknown, or out of its range.
    """
    fields = _unpack(header)
    if fields.keys() != _FIELDS:
        odd = sorted(str(name)[:40] for name in set(fields) ^ _FIELDS)
        raise MessageError(f"header fields missing or unknown: {', '.join(odd)}")
    if fields["v"] != VERSION:
        raise MessageError(f"version {fields['v']!r} is not {VERSION}")
    _check_origin(fields["kind"], fields["session"])
    _check_counts(fields["kind"], fields["epoch"], fields["chunk"], fields["due"])
    message = Message(
        kind=fields["kind"],
        session=fields["session"],
        epoch=fields["epoch"],
        chunk=fields["chunk"],
        due_ns=fields["due"],
        facts=_checked_facts(fields["facts"]),
    )
    return message, _checked_specs(fields["tensors"])


def _unpack(header: bytes) -> dict[Any, Any]:
    """The header's map, made of nothing but plain values."""
    try:
        fields = msgpack.unpackb(header, strict_map_key=True)
    except (ValueError, msgpack.UnpackException) as error:
        raise MessageError(f"the header is no msgpack map ({type(error).__name__})") from error
    if not isinstance(fields, dict):
        raise MessageError("the header is no msgpack map")
    return fields


def _check_origin(kind: Any, session: Any) -> None:
    """Refuse what is no kind, or no session's name."""
    if not isinstance(kind, str) or kind not in _KINDS:
        raise MessageError(f"kind {str(kind)[:40]!r} is unknown")
    if not _is_name(session):
        raise MessageError("session is no short text")


def _check_counts(kind: str, epoch: Any, chunk: Any, due: Any) -> None:
    """Refuse what is no count; only states may be of a time before all chunks."""
    is_before_all = kind == "state" and chunk == BEFORE_ALL
    counts = (("epoch", epoch), ("chunk", 0 if is_before_all else chunk), ("due", due))
    for name, value in counts:
        if not _is_count(value):
            raise MessageError(f"{name} {str(value)[:40]} is no count")


def _checked_facts(facts: Any) -> dict[str, Fact]:
    """Facts that are short texts, numbers, or counts by name."""
    if not isinstance(facts, dict):
        raise MessageError("facts is no map")
    for name, value in facts.items():
        if not (_is_name(name) and _is_plain(value)):
            raise MessageError(f"fact {str(name)[:40]!r} is no plain value")
    return facts


def _is_plain(value: Any) -> bool:
    """Whether a fact may have this value."""
    if isinstance(value, dict):
        return all(_is_name(k) and _is_integer(v) for k, v in value.items())
    if isinstance(value, str):
        return len(value) <= MAX_HEADER_BYTES
    return _is_integer(value) or isinstance(value, float)


def _checked_specs(specs: Any) -> tuple[TensorSpec, ...]:
    """The announced tensors, as long as they can be held."""
    if not isinstance(specs, list) or len(specs) > MAX_TENSORS:
        raise MessageError("tensors is no short list")
    # Chunks of a session announce the same again and again, and checking is most of the work.
    text = repr(specs)
    known = _known_specs.get(text)
    if known is not None:
        return known
    checked = _newly_checked(specs)
    if len(text) <= _MAX_KNOWN_CHARS:
        if len(_known_specs) >= _MAX_KNOWN:
            _known_specs.clear()
        _known_specs[text] = checked
    return checked


def _newly_checked(specs: list[Any]) -> tuple[TensorSpec, ...]:
    """The tensors of an announcement that was not met before."""
    checked = tuple(map(_checked_spec, specs))
    if len({spec.name for spec in checked}) != len(checked):
        raise MessageError("a tensor's name repeats")
    total = sum(spec.num_bytes for spec in checked)
    if total > MAX_TENSOR_BYTES:
        raise MessageError(f"tensors of {total} bytes: too large")
    return checked


def _checked_spec(spec: Any) -> TensorSpec:
    """One announced tensor."""
    if not isinstance(spec, list) or len(spec) != 3:
        raise MessageError("a tensor needs name, type and shape")
    name, dtype, shape = spec
    if not _is_name(name):
        raise MessageError("a tensor's name is no short text")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise MessageError(f"tensor {name}: unknown type")
    if not isinstance(shape, list) or len(shape) > 8 or not all(map(_is_count, shape)):
        raise MessageError(f"tensor {name}: its shape is no list of counts")
    return TensorSpec(name=name, dtype=DTYPES[dtype], shape=tuple(shape))


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return _is_integer(value) and 0 <= value < 1 << 63


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_NAME
