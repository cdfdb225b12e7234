"""One encode per stream, codec and size, however many watch; and the clock that all packets share.

A performer's beats come in at its pace. Their sound is packed and encoded once, their picture once
per codec in use, in threads of our own (never the event loop's default pool), and the packets are
handed to every viewer. Media time is tick / fps of the performer for pictures and sound alike;
`epoch_s` says what wall time its zero was, so that sender reports can pair both.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from services.beat import Beat
from services.encode import (
    SOUND_RATE,
    VIDEO_RATE,
    OpusEncoder,
    Packed,
    VideoCodec,
    VideoEncoder,
    default_bitrate_bps,
)
from services.encode_rules import BitrateRule, KeyframeGate
from services.packet_queue import PacketQueue
from services.sound_packets import SoundPacker, tick_time_s

log = logging.getLogger(__name__)
_T = TypeVar("_T")
_VIDEO_WAITS, _SOUND_WAITS = 50, 500  # packets: 2 s of pictures at 25 fps, 10 s of sound


class Beats(Protocol):
    """A subscription; `get` gives None when the stream ended."""

    async def get(self) -> Beat | None:
        """The next beat."""
        ...

    def close(self) -> None:
        """End the subscription."""

    def __len__(self) -> int:
        """How many beats wait."""
        ...


class Source(Protocol):
    """What can be watched: a performer."""

    @property
    def fps(self) -> Fraction:
        """Pictures per second."""
        ...

    @property
    def sample_rate(self) -> int:
        """Of the sound, in hertz."""
        ...

    def subscribe(self) -> Beats:
        """Beats from now on."""
        ...


@dataclass(frozen=True, slots=True)
class Kind:
    """Viewers with the same codec and size limit share an encoder; without a codec, none."""

    codec: VideoCodec | None
    max_side_px: int | None = None


@dataclass(slots=True)
class EncodeFigures:
    """What a stream's encoding cost so far."""

    num_pictures: int = 0
    num_skipped: int = 0
    num_keyframes: int = 0
    num_packets: int = 0
    picture_s: float = 0.0
    sound_s: float = 0.0

    @property
    def picture_ms(self) -> float:
        """Mean milliseconds of a picture."""
        return 1000 * self.picture_s / max(1, self.num_pictures)


class Viewer:
    """One who watches: two queues that fill from the same beats on."""

    def __init__(self, share: "MediaShare", kind: Kind) -> None:
        """Made by `MediaShare.watch`."""
        self.share, self.kind = share, kind
        self.pictures = PacketQueue(_VIDEO_WAITS)
        self.sound = PacketQueue(_SOUND_WAITS)
        self.bandwidth_bps: int | None = None
        self.needs_keyframe = True

    def ask_keyframe(self) -> None:
        """The viewer lost a picture (PLI, FIR); answered within half a second."""
        self.share.gate(self.kind).ask()

    def put_picture(self, packed: Packed, at_s: float) -> None:
        """Queue a picture, the first one being a keyframe."""
        if self.needs_keyframe and not packed.is_keyframe:
            return
        self.needs_keyframe = False
        if not self.pictures.put(packed, at_s):
            # What follows a gap cannot be decoded.
            self.pictures.clear()
            self.needs_keyframe = True
            self.ask_keyframe()

    def close(self) -> None:
        """Stop watching; calling it again does nothing."""
        self.pictures.close()
        self.sound.close()
        self.share.leave(self)


class _Encoding:
    """The encoder of one kind, opened at its first picture."""

    def __init__(self, kind: Kind, fps: Fraction, bitrate_bps: int | None) -> None:
        self.encoder = kind.codec and VideoEncoder(
            kind.codec, fps=fps, bitrate_bps=bitrate_bps, max_side_px=kind.max_side_px
        )
        self.gate = KeyframeGate()
        self.rule: BitrateRule | None = None
        self.viewers: list[Viewer] = []

    def follow_bandwidth(self, encoder: VideoEncoder, size: tuple[int, int], now_s: float) -> None:
        """Change the bitrate when the slowest viewer's bandwidth says so."""
        if self.rule is None:
            wanted = encoder.bitrate_bps
            self.rule = BitrateRule(wanted or default_bitrate_bps(*size, encoder.fps))
        bps = self.rule.next(now_s, [viewer.bandwidth_bps for viewer in self.viewers])
        if bps is not None:
            encoder.set_bitrate(bps)


class MediaShare:
    """Encodes one performer's beats for all who watch; runs only while somebody does."""

    def __init__(self, source: Source, encoders: "Encoders") -> None:
        """Made by `Encoders.share`."""
        self.source = source
        self.figures = EncodeFigures()
        self.epoch_s: float | None = None
        self._encoders = encoders
        self._encodings: dict[Kind, _Encoding] = {}
        self._task: asyncio.Task[None] | None = None
        self._next: tuple[int, npt.NDArray[np.uint8]] | None = None
        self._has_next = asyncio.Event()

    @property
    def viewers(self) -> list[Viewer]:
        """All who watch now."""
        return [viewer for each in self._encodings.values() for viewer in each.viewers]

    def gate(self, kind: Kind) -> KeyframeGate:
        """Where keyframes of a kind are asked for; a lost kind's answers to nobody."""
        encoding = self._encodings.get(kind)
        return encoding.gate if encoding else KeyframeGate()

    def watch(self, kind: Kind) -> Viewer:
        """A viewer that gets the beats from now on."""
        encoding = self._encodings.get(kind)
        if encoding is None:
            encoding = _Encoding(kind, self.source.fps, self._encoders.bitrate_bps)
            self._encodings[kind] = encoding
        viewer = Viewer(self, kind)
        encoding.viewers.append(viewer)
        encoding.gate.force()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="viva encode")
            self._task.add_done_callback(self._over)
        return viewer

    def leave(self, viewer: Viewer) -> None:
        """Forget a viewer; the last one ends the encoding."""
        encoding = self._encodings.get(viewer.kind)
        if encoding is None or viewer not in encoding.viewers:
            return
        encoding.viewers.remove(viewer)
        if not encoding.viewers:
            del self._encodings[viewer.kind]
        if not self._encodings:
            self._encoders.forget(self)
            if self._task is not None:
                self._task.cancel()
                self._task = None

    async def close(self) -> None:
        """Send every viewer away and wait until nothing runs."""
        task = self._task
        for viewer in self.viewers:
            viewer.close()
        if task is not None:
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        """Encode beat after beat until the stream ends or nobody watches."""
        beats = self.source.subscribe()
        packer = SoundPacker(self.source.sample_rate, self.source.fps)
        opus = OpusEncoder()
        try:
            async with asyncio.TaskGroup() as group:
                pictures = group.create_task(self._show(), name="viva encode pictures")
                while (beat := await beats.get()) is not None:
                    self._place(beat)
                    await self._sound(beat, packer, opus)
                pictures.cancel()
        finally:
            beats.close()

    def _over(self, task: asyncio.Task[None]) -> None:
        """The stream ended, or its encoding broke: so is watching over."""
        if task is not self._task:
            return
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("encoding broke", exc_info=error)
        self._task = None
        for viewer in self.viewers:
            viewer.close()

    def _place(self, beat: Beat) -> None:
        """Make a picture the next to be encoded; one that nobody came to encode is left out."""
        if self.epoch_s is None:
            self.epoch_s = time.time() - float(tick_time_s(beat.tick, self.source.fps))
        if beat.picture_HWC is None or self._next is not None:
            self.figures.num_skipped += 1
        if beat.picture_HWC is not None:
            self._next = (beat.tick, beat.picture_HWC)
            self._has_next.set()

    async def _show(self) -> None:
        """Encode pictures beside the sound, always the latest: a slow encoder makes fewer."""
        while True:
            await self._has_next.wait()
            self._has_next.clear()
            if self._next is not None:
                (tick, picture_HWC), self._next = self._next, None
                encodings = list(self._encodings.values())
                await asyncio.gather(*(self._picture(e, tick, picture_HWC) for e in encodings))

    async def _sound(self, beat: Beat, packer: SoundPacker, opus: OpusEncoder) -> None:
        """Encode a beat's sound and hand it out."""
        arrived_s = asyncio.get_running_loop().time()
        begin_s = tick_time_s(beat.tick, self.source.fps)
        packets = await self._encoders.run_sound(_encode_sound, packer, opus, beat)
        self.figures.sound_s += asyncio.get_running_loop().time() - arrived_s
        self.figures.num_packets += len(packets)
        for packed in packets:
            # The second half of a beat's sound is due in the middle of the beat.
            ahead_s = Fraction(packed.pts, SOUND_RATE) - begin_s
            for viewer in self.viewers:
                viewer.sound.put(packed, arrived_s + float(ahead_s))

    async def _picture(
        self, encoding: _Encoding, tick: int, picture_HWC: npt.NDArray[np.uint8]
    ) -> None:
        """Encode a picture and hand it out."""
        encoder = encoding.encoder
        if encoder is None:
            return
        now_s = asyncio.get_running_loop().time()
        encoding.follow_bandwidth(encoder, (picture_HWC.shape[1], picture_HWC.shape[0]), now_s)
        pts = int(tick_time_s(tick, self.source.fps) * VIDEO_RATE)
        keyframe = encoding.gate.take(now_s)
        packed, took_s = await self._encoders.run(
            _encode_picture, encoder, picture_HWC, pts, keyframe
        )
        self.figures.num_pictures += 1
        self.figures.picture_s += took_s
        if packed.is_keyframe:
            self.figures.num_keyframes += 1
            encoding.gate.made(now_s)
        if packed.data:
            for viewer in list(encoding.viewers):
                viewer.put_picture(packed, now_s)


def _encode_sound(packer: SoundPacker, opus: OpusEncoder, beat: Beat) -> list[Packed]:
    """Packets of a beat's sound; runs in a thread."""
    packets = packer.push(beat.tick, beat.sound_T)
    return [packed for one in packets for packed in opus.encode(one.samples_T, one.pts)]


def _encode_picture(
    encoder: VideoEncoder, picture_HWC: npt.NDArray[np.uint8], pts: int, keyframe: bool
) -> tuple[Packed, float]:
    """A picture and the seconds it took; runs in a thread."""
    began_s = time.perf_counter()
    packed = encoder.encode(np.ascontiguousarray(picture_HWC), pts, keyframe=keyframe)
    return packed, time.perf_counter() - began_s


class Encoders:
    """The threads that encode, and which streams are being encoded."""

    def __init__(self, num_threads: int = 2, bitrate_bps: int | None = None) -> None:
        """Threads start when they are needed; the bitrate is the most that a stream is given."""
        self.bitrate_bps = bitrate_bps
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="viva-encode")
        # Sound must not be late: it never waits behind pictures.
        self._sound = ThreadPoolExecutor(1, thread_name_prefix="viva-encode-sound")
        self._shares: dict[int, MediaShare] = {}

    def share(self, source: Source) -> MediaShare:
        """The one share of this performer; watch at once, for it lasts as long as its viewers."""
        share = self._shares.get(id(source))
        if share is None:
            share = self._shares[id(source)] = MediaShare(source, self)
        return share

    def forget(self, share: "MediaShare") -> None:
        """Nobody watches it any more."""
        if self._shares.get(id(share.source)) is share:
            del self._shares[id(share.source)]

    async def run(self, work: Callable[..., _T], *arguments: object) -> _T:
        """Do it in one of the threads for pictures."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, work, *arguments)

    async def run_sound(self, work: Callable[..., _T], *arguments: object) -> _T:
        """Do it in the thread for sound."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._sound, work, *arguments)

    async def close(self) -> None:
        """End every share, then the threads."""
        for share in list(self._shares.values()):
            await share.close()
        self._threads.shutdown(wait=True)
        self._sound.shutdown(wait=True)
