"""What gateway and model process say to each other: a closed table of checked messages.

A message is wrong at its sender or not at all: every field is checked when it is made, there and
here. On the wire it is a map of its fields and of its `type`.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, cast

from viva.v1.framing import DEFAULT_LIMITS, VERSION, Limits, Payload, Scalar, WireError, shown
from viva.v1.framing import encode as encode_frame
from viva.v1.rules import Blob, Real, Rule, Text, Whole, rules_of

TYPE_FIELD = "type"
MAX_SIDE_PX = 8192

Name = Annotated[str, Text(128, min_chars=1)]
UtteranceName = Annotated[str, Text(128)]
Line = Annotated[str, Text(1000)]
Pcm = Annotated[bytes, Blob(1 << 24)]
State = Annotated[bytes, Blob((1 << 28) - (1 << 12))]
Count = Annotated[int, Whole(0, (1 << 53) - 1)]
Side = Annotated[int, Whole(1, MAX_SIDE_PX)]
SideOrAny = Annotated[int, Whole(0, MAX_SIDE_PX)]
SampleRate = Annotated[int, Whole(8000, 192_000)]
Version = Annotated[int, Whole(0, 65_535)]
Rate = Annotated[int, Whole(1, 1_000_000)]
Milliseconds = Annotated[float, Real(1e13)]
Level = Annotated[int, Whole(0, 16)]
Seed = Annotated[int, Whole(0, (1 << 63) - 1)]


class Message:
    """What every message is: fields by their rules, checked when it is made."""

    __slots__ = ()
    tag: ClassVar[str]

    def __post_init__(self) -> None:
        """Refuse a field against its rule.

        Raises:
            WireError: names message, field and what is wrong.
        """
        for name, rule in _RULES[type(self)].items():
            problem = rule.problem(getattr(self, name))
            if problem is not None:
                raise WireError(f"{self.tag}: {name} {problem}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello(Message):
    """Gateway to model, first of all; it is answered by `ModelReady` as soon as it is true."""

    tag: ClassVar[str] = "hello"
    version: Version = VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSession(Message):
    """Gateway to model: a face to make ready; answered by `SessionOpened` or `SessionFailed`.

    `portrait` is a PNG, JPEG or WebP file; a `width` and `height` of 0 is the model's own size;
    `crop` is what `viva render --crop` takes, "" being auto; a `plan` of "" is the deployment's.
    `sample_rate` is that of the sound in both directions.
    """

    tag: ClassVar[str] = "open"
    session: Name
    portrait: Annotated[bytes, Blob(1 << 25)]
    seed: Seed
    sample_rate: SampleRate
    width: SideOrAny = 0
    height: SideOrAny = 0
    crop: Annotated[str, Text(64)] = ""
    plan: Annotated[str, Text(4096)] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speak(Message):
    """Gateway to model: the next sound of an utterance, s16le mono at the session's rate."""

    tag: ClassVar[str] = "speak"
    session: Name
    utterance: Name
    epoch: Count
    pcm: Pcm

    def __post_init__(self) -> None:
        """Refuse half a sample, too."""
        Message.__post_init__(self)
        _check_samples(self.tag, self.pcm)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndUtterance(Message):
    """Gateway to model: no more sound will come of this utterance."""

    tag: ClassVar[str] = "end"
    session: Name
    utterance: Name
    epoch: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupt(Message):
    """Gateway to model: what belongs to epochs before this one is to be dropped."""

    tag: ClassVar[str] = "interrupt"
    session: Name
    epoch: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class Want(Message):
    """Gateway to model: make slices with an index below `until_index`, and no more.

    `due_in_ms` is when the first slice that the gateway has not got is due; negative: it is late.
    """

    tag: ClassVar[str] = "want"
    session: Name
    until_index: Count
    due_in_ms: Milliseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportState(Message):
    """Gateway to model: answer with the `SessionState` that the session could go on from."""

    tag: ClassVar[str] = "export"
    session: Name


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportState(Message):
    """Gateway to model: go on from this state, before the first slice is made."""

    tag: ClassVar[str] = "import"
    session: Name
    state: State


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseSession(Message):
    """Gateway to model: free all of it; answered by `SessionClosed`."""

    tag: ClassVar[str] = "close"
    session: Name


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping(Message):
    """Gateway to model: are you there?"""

    tag: ClassVar[str] = "ping"
    nonce: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReady(Message):
    """Model to gateway: warmed up; what it is and how many sessions it can hold in real time."""

    tag: ClassVar[str] = "ready"
    version: Version = VERSION
    model: Name
    plan: Name
    fps_num: Rate
    fps_den: Rate
    width: Side
    height: Side
    capacity: Annotated[int, Whole(0, 100_000)]
    chunk_frames: Annotated[int, Whole(1, 10_000)]
    warm_s: Annotated[float, Real(1e6)]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOpened(Message):
    """Model to gateway: the session's face is ready, its pictures will be of this size."""

    tag: ClassVar[str] = "opened"
    session: Name
    width: Side
    height: Side
    fps_num: Rate
    fps_den: Rate


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceMade(Message):
    """Model to gateway: one picture (RGB rows, H*W*3 bytes) with exactly its sound.

    An `utterance` of "" is idle motion. `pcm` is s16le mono at the session's rate.
    """

    tag: ClassVar[str] = "slice"
    session: Name
    index: Count
    epoch: Count
    utterance: UtteranceName
    rgb: Annotated[bytes, Blob(MAX_SIDE_PX * MAX_SIDE_PX * 3)]
    width: Side
    height: Side
    pcm: Pcm
    last_of_utterance: bool = False

    def __post_init__(self) -> None:
        """Refuse pictures of another size than said, and half samples."""
        Message.__post_init__(self)
        if len(self.rgb) != self.width * self.height * 3:
            raise WireError(f"{self.tag}: {len(self.rgb)} bytes are no {self.width}x{self.height}")
        _check_samples(self.tag, self.pcm)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTrace(Message):
    """Model to gateway: a stage held a chunk from when to when (monotonic clock of the machine)."""

    tag: ClassVar[str] = "trace"
    stage: Name
    session: Name
    chunk: Count
    began_ms: Milliseconds
    ended_ms: Milliseconds


# From this rung on nothing but the sound can be relied on: pictures are held.
LEVEL_HELD = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Degraded(Message):
    """Model to gateway: the rung of the ladder a session is on from now; 0: all is well."""

    tag: ClassVar[str] = "degraded"
    session: Name
    level: Level
    why: Line


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionState(Message):
    """Model to gateway: what was asked for by `ExportState`."""

    tag: ClassVar[str] = "state"
    session: Name
    state: State


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionFailed(Message):
    """Model to gateway: the session is no more, or never was; `reason` is one word for programs."""

    tag: ClassVar[str] = "failed"
    session: Name
    reason: Annotated[str, Text(64, min_chars=1)]
    detail: Line = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionClosed(Message):
    """Model to gateway: all of the session is freed."""

    tag: ClassVar[str] = "closed"
    session: Name


@dataclass(frozen=True, slots=True, kw_only=True)
class Pong(Message):
    """Model to gateway: I am."""

    tag: ClassVar[str] = "pong"
    nonce: Count


GatewayMessage = (
    Hello | OpenSession | Speak | EndUtterance | Interrupt | Want | ExportState | ImportState
    | CloseSession | Ping
)  # fmt: skip
ModelMessage = (
    ModelReady | SessionOpened | SliceMade | StageTrace | Degraded | SessionState | SessionFailed
    | SessionClosed | Pong
)  # fmt: skip
AnyMessage = GatewayMessage | ModelMessage

_CLASSES: tuple[type[Message], ...] = (
    Hello, OpenSession, Speak, EndUtterance, Interrupt, Want, ExportState, ImportState,
    CloseSession, Ping, ModelReady, SessionOpened, SliceMade, StageTrace, Degraded, SessionState,
    SessionFailed, SessionClosed, Pong,
)  # fmt: skip


_RULES: dict[type[Message], dict[str, Rule]] = {cls: rules_of(cls) for cls in _CLASSES}
TYPES: dict[str, type[Message]] = {cls.tag: cls for cls in _CLASSES}


def _check_samples(tag: str, pcm: bytes) -> None:
    """Refuse half a sample."""
    if len(pcm) % 2:
        raise WireError(f"{tag}: {len(pcm)} bytes of pcm are no 16-bit samples")


def encode(message: AnyMessage, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """The message as a frame.

    Raises:
        WireError: it is larger than the limits allow.
    """
    payload: dict[str, Scalar] = {TYPE_FIELD: message.tag}
    for name in _RULES[type(message)]:
        payload[name] = getattr(message, name)
    return encode_frame(payload, limits)


def parse(payload: Payload) -> AnyMessage:
    """The message that a frame's payload is; all of its fields must be there, and no other.

    Raises:
        WireError: names the type or field that is unknown, missing or wrong.
    """
    tag = payload.get(TYPE_FIELD)
    cls = TYPES.get(tag) if isinstance(tag, str) else None
    if cls is None:
        raise WireError(f"message type {shown(tag)} is unknown")
    odd = sorted(payload.keys() ^ {TYPE_FIELD, *_RULES[cls]})
    if odd:
        raise WireError(f"{cls.tag}: fields missing or unknown: {', '.join(map(shown, odd))}"[:200])
    values = {name: payload[name] for name in _RULES[cls]}
    return cast(AnyMessage, cast(Any, cls)(**values))
