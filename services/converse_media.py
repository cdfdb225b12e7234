"""A performer's beats as media messages: pictures encoded or raw, sound as samples or Opus.

Pictures and sound stand on one scale: a picture's pts counts ticks, a sample's pts counts samples
from tick 0, so both times are exact fractions. Encoding runs in threads that are passed in.

Shape legend: H, W, C = rows, columns, RGB; T = samples.
"""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
from viva.v1 import avatar_pb2, common_pb2

from pipeline.pacing import samples_before
from services.beat import Beat
from services.converse_order import ConverseOrder
from services.encode import SOUND_TIME_BASE, VIDEO_RATE, OpusEncoder, VideoEncoder
from services.sound_packets import SoundPacker, tick_time_s


class MediaMaker:
    """Makes the messages of one call."""

    def __init__(
        self, order: ConverseOrder, *, fps: Fraction, sample_rate: int, threads: Executor
    ) -> None:
        """Open the encoders that the order asks for."""
        self._order, self._fps, self._rate, self._threads = order, fps, sample_rate, threads
        kind = order.picture
        self._encoder = (
            VideoEncoder(kind, fps=fps, bitrate_bps=order.bitrate_bps)
            if kind in ("H264", "VP8")
            else None
        )
        self._opus = OpusEncoder() if order.sound == "OPUS" else None
        self._packer = SoundPacker(sample_rate, fps)
        self._is_keyframe_asked = True

    def ask_keyframe(self) -> None:
        """Let the next picture be decodable alone."""
        self._is_keyframe_asked = True

    async def messages(self, beat: Beat, *, is_late: bool) -> list[avatar_pb2.ConverseResponse]:
        """What a beat becomes, sound first: it is what must not be late.

        A late beat leaves its picture out. While nobody speaks there may be nothing at all.
        """
        if self._order.skip_idle and beat.utterance is None:
            return []
        media = list(await self._sound(beat))
        if beat.picture_HWC is not None and not is_late and self._order.picture != "NONE":
            media.append(await self._picture(beat, beat.picture_HWC))
        return [avatar_pb2.ConverseResponse(media=one) for one in media]

    async def _sound(self, beat: Beat) -> Iterator[avatar_pb2.Media]:
        """The beat's sound, in as many messages as there are packets."""
        if self._order.sound == "PCM":
            pts = samples_before(beat.tick, self._rate, self._fps)
            media = _media(beat, pts, Fraction(1, self._rate))
            media.pcm_sound.s16le = beat.sound_T.astype("<i2", copy=False).tobytes()
            return iter((media,))
        if self._opus is None:
            return iter(())
        return iter(await self._run(_opus_media, beat, self._packer, self._opus))

    async def _picture(self, beat: Beat, picture_HWC: npt.NDArray[np.uint8]) -> avatar_pb2.Media:
        """The beat's picture."""
        media = _media(beat, beat.tick, 1 / self._fps)
        if self._encoder is None:
            media.raw_picture.rgb = picture_HWC.tobytes()
            media.raw_picture.is_held = beat.is_held
            height, width = picture_HWC.shape[:2]
            media.raw_picture.size.width_px, media.raw_picture.size.height_px = width, height
            return media
        is_asked, self._is_keyframe_asked = self._is_keyframe_asked, False
        pts = int(tick_time_s(beat.tick, self._fps) * VIDEO_RATE)
        packed = await self._run(_encoded, self._encoder, picture_HWC, pts, is_asked)
        media.encoded_picture.data = packed.data
        media.encoded_picture.is_keyframe = packed.is_keyframe
        media.encoded_picture.is_held = beat.is_held
        return media

    async def _run(self, work: Callable[..., Any], *arguments: object) -> Any:
        """Do it in one of the threads."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, work, *arguments)


def _media(beat: Beat, pts: int, time_base: Fraction) -> avatar_pb2.Media:
    """Media without its payload."""
    return avatar_pb2.Media(
        pts=pts,
        time_base=common_pb2.TimeBase(
            numerator=time_base.numerator, denominator=time_base.denominator
        ),
        utterance=beat.utterance or "",
        epoch=beat.epoch,
    )


def _opus_media(beat: Beat, packer: SoundPacker, opus: OpusEncoder) -> list[avatar_pb2.Media]:
    """Packets of a beat's sound; runs in a thread."""
    made = []
    for one in packer.push(beat.tick, beat.sound_T):
        for packed in opus.encode(one.samples_T, one.pts):
            media = _media(beat, packed.pts, SOUND_TIME_BASE)
            media.opus_sound.data = packed.data
            made.append(media)
    return made


def _encoded(
    encoder: VideoEncoder, picture_HWC: npt.NDArray[np.uint8], pts: int, keyframe: bool
) -> Any:
    """A picture as its codec makes it; runs in a thread."""
    return encoder.encode(np.ascontiguousarray(picture_HWC), pts, keyframe=keyframe)
