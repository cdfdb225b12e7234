"""What a face call gives, in plain values, and how it is read from the contract's messages."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from viva.v1 import avatar_pb2

FaceEventKind = Literal[
    "speak_started", "speak_ended", "speak_interrupted", "degraded", "restarted", "closing"
]
EVENT_KINDS: "dict[avatar_pb2.EventKind.ValueType, FaceEventKind]" = {
    avatar_pb2.EVENT_KIND_SPEAK_STARTED: "speak_started",
    avatar_pb2.EVENT_KIND_SPEAK_ENDED: "speak_ended",
    avatar_pb2.EVENT_KIND_SPEAK_INTERRUPTED: "speak_interrupted",
    avatar_pb2.EVENT_KIND_DEGRADED: "degraded",
    avatar_pb2.EVENT_KIND_RESTARTED: "restarted",
    avatar_pb2.EVENT_KIND_CLOSING: "closing",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceInfo:
    """What the face is: frames a second, size in pixels, samples a second."""

    session: str
    fps: Fraction
    width: int
    height: int
    sample_rate: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One picture and its sound; the sound begins at sample `pts` of the session.

    `rgb` holds rows of R, G, B; None where the picture came too late and the last one stays.
    `pcm` is s16le mono. `num_speech_bytes` of it are the utterance's, the rest fills the frame up.
    """

    pts: int
    pcm: bytes
    utterance: str
    epoch: int
    num_speech_bytes: int = 0
    rgb: bytes | None = None
    width: int = 0
    height: int = 0
    is_held: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceEvent:
    """Something that happened, in its place between the pairs."""

    kind: FaceEventKind
    utterance: str = ""
    position_ms: int = 0
    epoch: int = 0
    detail: str = ""


def info_of(started: avatar_pb2.SessionStarted) -> FaceInfo:
    """What the server chose."""
    rate, size = started.frame_rate, started.size
    return FaceInfo(
        session=started.session,
        fps=Fraction(rate.numerator, rate.denominator),
        width=size.width_px,
        height=size.height_px,
        sample_rate=started.sample_rate_hz,
    )


def pair_of(sound: avatar_pb2.Media, picture: avatar_pb2.RawPicture | None) -> Pair:
    """Sound with its picture."""
    return Pair(
        pts=sound.pts,
        pcm=sound.pcm_sound.s16le,
        utterance=sound.utterance,
        epoch=sound.epoch,
        rgb=picture.rgb if picture else None,
        width=picture.size.width_px if picture else 0,
        height=picture.size.height_px if picture else 0,
        is_held=picture.is_held if picture else True,
    )


def event_of(event: avatar_pb2.Event) -> FaceEvent:
    """What happened, in plain values."""
    return FaceEvent(
        kind=EVENT_KINDS[event.kind],
        utterance=event.utterance,
        position_ms=event.position_ms,
        epoch=event.epoch,
        detail=event.detail,
    )
