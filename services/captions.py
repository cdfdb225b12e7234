"""WebVTT as it is given with a job: captions, or chapters where its header says so.

Covered: cues with times and text, identifiers, settings (ignored), notes, styles and regions (left
out), tags in the text (left out). `Kind: chapters` in the header makes the cues chapters.
Not covered: cues that overlap are cut short, so that one shows at a time.
"""

import html
import re
from pathlib import Path

from video.text_track import Cue, Words

MAX_BYTES = 4 << 20
MAX_CUES = 50_000
_TIME = r"(?:(\d{2,4}):)?([0-5]\d):([0-5]\d)\.(\d{3})"
_TIMING = re.compile(rf"^{_TIME}[ \t]+-->[ \t]+{_TIME}(?:[ \t].*)?$")
_TAG = re.compile(r"<[^>]*>")


class CaptionsError(ValueError):
    """A file is no WebVTT that can be used: one line naming it and the remedy."""


def read_words(path: Path) -> Words:
    """The captions or chapters in a file.

    Raises:
        CaptionsError: it is no WebVTT.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        text = data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CaptionsError(f"{path.name} cannot be read as UTF-8: export it as WebVTT") from error
    if len(data) > MAX_BYTES:
        raise CaptionsError(f"{path.name} is over {MAX_BYTES >> 20} MiB: split it")
    return parse_words(text, path.name)


def parse_words(text: str, name: str) -> Words:
    """The captions or chapters in a WebVTT text.

    Raises:
        CaptionsError: it is none, or has too many cues.
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    head, *blocks = re.split(r"\n{2,}", lines.strip("\n"))
    if re.match(r"WEBVTT(?:[ \t\n]|$)", head) is None:
        raise CaptionsError(f"{name} does not begin with WEBVTT: export the captions as WebVTT")
    found = [cue for block in blocks if (cue := _cue(block, name)) is not None]
    if len(found) > MAX_CUES:
        raise CaptionsError(f"{name} has {len(found)} cues, the limit is {MAX_CUES}: split it")
    cues = _apart(sorted(found, key=lambda cue: cue.start_ms))
    if re.search(r"^Kind:[ \t]*chapters[ \t]*$", head, re.IGNORECASE | re.MULTILINE):
        return Words(chapters=cues)
    return Words(captions=cues)


def _cue(block: str, name: str) -> Cue | None:
    """The cue in a block of lines; None for notes and styles."""
    lines = block.split("\n")
    if lines[0].startswith(("NOTE", "STYLE", "REGION")) and "-->" not in lines[0]:
        return None
    at = next((i for i, line in enumerate(lines[:2]) if "-->" in line), None)
    match = None if at is None else _TIMING.match(lines[at])
    if at is None or match is None:
        raise CaptionsError(f"{name}: {lines[0][:40]!r} has no 00:01.000 --> 00:02.500")
    start_ms, end_ms = _ms(match.groups()[:4]), _ms(match.groups()[4:])
    if end_ms <= start_ms:
        raise CaptionsError(f"{name}: {lines[at][:40]!r} ends before it begins: correct the time")
    text = html.unescape(_TAG.sub("", "\n".join(lines[at + 1 :])))
    return Cue(start_ms, end_ms, text)


def _ms(parts: tuple[str, ...]) -> int:
    """Milliseconds from hours (maybe none), minutes, seconds and milliseconds."""
    hours, minutes, seconds, rest = (int(part or 0) for part in parts)
    return ((hours * 60 + minutes) * 60 + seconds) * 1000 + rest


def _apart(cues: list[Cue]) -> tuple[Cue, ...]:
    """The cues, each ending where the next begins at the latest."""
    ends = [*(cue.start_ms for cue in cues), 1 << 62][1:]
    cut = [
        Cue(cue.start_ms, min(cue.end_ms, end_ms), cue.text)
        for cue, end_ms in zip(cues, ends, strict=True)
    ]
    return tuple(cue for cue in cut if cue.end_ms > cue.start_ms)
