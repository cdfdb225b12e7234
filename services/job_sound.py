"""A job's sound, made ready once: read to its end, its loudness set, encoded for the film.

So damage anywhere in it shows before anything is rendered, and the film's sound is encoded by one
encoder in one go, however often its pictures are interrupted.

Shape legend: T = samples.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import msgpack
import numpy as np
from pydantic import TypeAdapter, ValidationError

from audio.chunk import AudioChunk
from audio.loudness import gain_to, measure
from services.render import CappedSound
from services.segment_store import StoredFile, is_whole, settle, write_atomically
from video.sound_track import write_sound_track

PIECE_S = Fraction(1, 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadySound:
    """A sound that was read to its end; `gain` is applied to every sample."""

    fingerprint: str
    num_samples: int
    sample_rate: int
    gain: float
    track: StoredFile


_READY = TypeAdapter(ReadySound)


def make_ready(
    sound: CappedSound,
    folder: Path,
    fingerprint: str,
    *,
    loudness_lufs: float,
    on_each: Callable[[], None],
) -> ReadySound:
    """Encode the sound into `folder`, or find it there whole; `on_each` may raise to stop.

    Raises:
        AudioError: the sound is damaged.
        OSError: the disk is full.
    """
    found = _found(folder, fingerprint)
    if found is not None:
        return found
    gain = 1.0
    if loudness_lufs:
        samples = (chunk.samples_T for chunk in _watched(sound.chunks(), on_each))
        gain = gain_to(loudness_lufs, measure(samples, sound.sample_rate))
    writing = folder / "sound.m4a.writing"
    chunks = _watched(_louder(sound.chunks(), gain), on_each)
    num_samples = write_sound_track(writing, chunks, sound.sample_rate)
    ready = ReadySound(
        fingerprint=fingerprint,
        num_samples=num_samples,
        sample_rate=sound.sample_rate,
        gain=gain,
        track=settle(writing, track_path(folder)),
    )
    write_atomically(folder / "sound.manifest", msgpack.packb(asdict(ready)))
    return ready


def track_path(folder: Path) -> Path:
    """Where a job's encoded sound lies."""
    return folder / "sound.m4a"


def _found(folder: Path, fingerprint: str) -> ReadySound | None:
    """The sound that an earlier run made ready, if it is whole and of this render."""
    try:
        data = (folder / "sound.manifest").read_bytes()
        ready = _READY.validate_python(msgpack.unpackb(data))
    except (FileNotFoundError, ValueError, ValidationError, msgpack.UnpackException):
        return None
    is_ours = ready.fingerprint == fingerprint
    return ready if is_ours and is_whole(track_path(folder), ready.track) else None


class SoundReader:
    """Reads a sound forwards in pieces whose borders depend on nothing but where one begins."""

    def __init__(self, sound: CappedSound, gain: float) -> None:
        """Begin at the start."""
        self._sound, self._gain = sound, gain
        self._chunks = _louder(sound.chunks(), gain)
        self._rest: AudioChunk | None = None
        self._position = 0

    def pieces(self, start: int, end: int) -> Iterator[AudioChunk]:
        """The samples from one to before another; going back reads from the start again."""
        if start < self._position:
            self._chunks = _louder(self._sound.chunks(), self._gain)
            self._rest, self._position = None, 0
        for _ in self._read(start):
            pass
        rate = self._sound.sample_rate
        size = round(PIECE_S * rate)
        held_T = np.zeros(0, np.float32)
        for chunk in self._read(end):
            held_T = np.concatenate([held_T, chunk.samples_T])
            whole = len(held_T) // size * size
            for at in range(0, whole, size):
                yield AudioChunk(samples_T=held_T[at : at + size], sample_rate=rate, pts=start + at)
            held_T, start = held_T[whole:], start + whole
        if len(held_T):
            yield AudioChunk(samples_T=held_T, sample_rate=rate, pts=start)

    def _read(self, end: int) -> Iterator[AudioChunk]:
        """All chunks up to a sample; the last one is cut there, its rest kept for later."""
        while self._position < end:
            chunk = self._rest or next(self._chunks, None)
            if chunk is None:
                return
            chunk, self._rest = _cut(chunk, end - self._position)
            self._position += chunk.num_samples
            yield chunk


def _cut(chunk: AudioChunk, size: int) -> tuple[AudioChunk, AudioChunk | None]:
    """A chunk's first samples, and the rest if there is one."""
    if chunk.num_samples <= size:
        return chunk, None
    rate, pts = chunk.sample_rate, chunk.pts
    return (
        AudioChunk(samples_T=chunk.samples_T[:size], sample_rate=rate, pts=pts),
        AudioChunk(samples_T=chunk.samples_T[size:], sample_rate=rate, pts=pts + size),
    )


def _louder(chunks: Iterator[AudioChunk], gain: float) -> Iterator[AudioChunk]:
    """The sound with every sample multiplied."""
    if gain == 1.0:
        return chunks
    factor = np.float32(gain)
    return (
        AudioChunk(samples_T=c.samples_T * factor, sample_rate=c.sample_rate, pts=c.pts)
        for c in chunks
    )


def _watched(chunks: Iterator[AudioChunk], on_each: Callable[[], None]) -> Iterator[AudioChunk]:
    """The sound, with a call before each chunk."""
    for chunk in chunks:
        on_each()
        yield chunk
