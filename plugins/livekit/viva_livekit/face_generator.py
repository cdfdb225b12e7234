"""A face as LiveKit's `VideoGenerator`: segments of speech in, pictures and their sound out."""

import itertools
from collections.abc import AsyncIterator, Iterable

import numpy as np
from livekit import rtc
from livekit.agents.voice.avatar import AudioSegmentEnd, VideoGenerator
from viva.v1.face_call import FaceCall, FaceEvent, Pair

Made = rtc.VideoFrame | rtc.AudioFrame | AudioSegmentEnd


class FaceGenerator(VideoGenerator):
    """Feeds one started `FaceCall`; one stream of audio frames is one utterance.

    While nobody speaks only pictures come out. Sound comes out exactly as it went in, sample for
    sample (at the face's rate), so whoever counts it knows the position.
    """

    def __init__(self, face: FaceCall) -> None:
        """Nobody speaks yet."""
        self.face = face
        # Names of segments that have begun and are not over, oldest first.
        self.open_segments: list[str] = []
        self._names = (f"segment_{number}" for number in itertools.count(1))
        self._current: str | None = None
        self._resampler: rtc.AudioResampler | None = None
        self._rate_in = 0

    async def push_audio(self, frame: rtc.AudioFrame | AudioSegmentEnd) -> None:
        """Say a frame of a segment, or end the segment."""
        if isinstance(frame, AudioSegmentEnd):
            await self._end_segment()
            return
        if self._current is None:
            self._current = next(self._names)
            self.open_segments.append(self._current)
            self._resampler, self._rate_in = None, frame.sample_rate
        for name, piece in self._at_face_rate(self._current, frame):
            await self.face.speak(name, piece)

    async def clear_buffer(self) -> None:
        """Stop: nothing of what was pushed so far comes out any more."""
        self._current = None
        self.open_segments.clear()
        await self.face.interrupt()

    async def __aiter__(self) -> AsyncIterator[Made]:
        """A picture, then its sound if it is speech; the end of a segment behind its last sound.

        Raises:
            FaceLost: the face is gone.
        """
        async for thing in self.face:
            if isinstance(thing, FaceEvent):
                if thing.kind == "speak_ended" and thing.utterance in self.open_segments:
                    self.open_segments.remove(thing.utterance)
                    yield AudioSegmentEnd()
                continue
            if thing.rgb is not None:
                yield _picture(thing, thing.rgb)
            # Whoever took the picture may have interrupted meanwhile.
            if thing.num_speech_bytes and thing.utterance in self.open_segments:
                yield _sound(thing, self.face.info.sample_rate)

    async def _end_segment(self) -> None:
        """What the resampler still holds, and the end."""
        name, self._current = self._current, None
        if name is None:
            return
        if self._resampler is not None:
            for piece in self._resampler.flush():
                await self.face.speak(name, bytes(piece.data))
        await self.face.end(name)

    def _at_face_rate(self, name: str, frame: rtc.AudioFrame) -> Iterable[tuple[str, bytes]]:
        """The frame as s16le mono at the face's rate."""
        mono = _mono(frame)
        if self._rate_in == self.face.info.sample_rate:
            return [(name, bytes(mono.data))]
        if self._resampler is None:
            self._resampler = rtc.AudioResampler(self._rate_in, self.face.info.sample_rate)
        return [(name, bytes(piece.data)) for piece in self._resampler.push(mono)]


def _mono(frame: rtc.AudioFrame) -> rtc.AudioFrame:
    """The mean of the channels."""
    if frame.num_channels == 1:
        return frame
    samples_TC = np.frombuffer(frame.data, np.int16).reshape(-1, frame.num_channels)
    mono_T = samples_TC.mean(axis=1).astype(np.int16)
    return rtc.AudioFrame(mono_T.tobytes(), frame.sample_rate, 1, len(mono_T))


def _picture(pair: Pair, rgb: bytes) -> rtc.VideoFrame:
    """The pair's picture."""
    return rtc.VideoFrame(pair.width, pair.height, rtc.VideoBufferType.RGB24, rgb)


def _sound(pair: Pair, sample_rate: int) -> rtc.AudioFrame:
    """The pair's speech."""
    pcm = pair.pcm[: pair.num_speech_bytes]
    return rtc.AudioFrame(pcm, sample_rate, 1, len(pcm) // 2)
