"""Words that go with a film: captions as a text track that players can show, and chapters."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
from av.container import OutputContainer
from av.packet import Packet

_MS = Fraction(1, 1000)
_MAX_TEXT_BYTES = 60_000
# The encoder is not used, but does not open without a style.
_STYLE = (
    b"[Script Info]\nScriptType: v4.00+\n\n[V4+ Styles]\nFormat: Name, Fontname, Fontsize\n"
    b"Style: Default,Arial,16\n\n[Events]\nFormat: Layer, Start, End, Style, Text\n"
)


@dataclass(frozen=True, slots=True)
class Cue:
    """Text to be shown from one time to another, in milliseconds."""

    start_ms: int
    end_ms: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What is said or named when: cues in order, which do not overlap."""

    captions: tuple[Cue, ...] = ()
    chapters: tuple[Cue, ...] = ()


def add_captions(container: OutputContainer, cues: Sequence[Cue]) -> "list[Packet[Any]]":
    """Give a container a text track; returns its packets, to be muxed in order of time."""
    if not cues:
        return []
    stream: Any = container.add_stream("mov_text")
    stream.codec_context.subtitle_header = _STYLE
    stream.time_base = _MS
    return [_packet(cue, stream) for cue in _with_gaps(cues)]


def _with_gaps(cues: Sequence[Cue]) -> Iterator[Cue]:
    """The cues and empty ones between them, as the format wants it."""
    end_ms = 0
    for cue in cues:
        if cue.start_ms > end_ms:
            yield Cue(end_ms, cue.start_ms, "")
        yield cue
        end_ms = cue.end_ms


def _packet(cue: Cue, stream: Any) -> "Packet[Any]":
    text = cue.text.encode()[:_MAX_TEXT_BYTES]
    text = text.decode(errors="ignore").encode()
    packet: Packet[Any] = av.Packet(len(text).to_bytes(2, "big") + text)
    packet.pts = packet.dts = cue.start_ms
    packet.duration = cue.end_ms - cue.start_ms
    packet.time_base = _MS
    packet.stream = stream
    return packet


def add_chapters(container: OutputContainer, cues: Sequence[Cue]) -> None:
    """Name stretches of the film."""
    if cues:
        container.set_chapters(
            [
                {
                    "id": index,
                    "start": cue.start_ms,
                    "end": cue.end_ms,
                    "time_base": _MS,
                    "metadata": {"title": cue.text},
                }
                for index, cue in enumerate(cues)
            ]
        )
