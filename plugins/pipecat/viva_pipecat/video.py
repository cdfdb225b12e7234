"""A face as a Pipecat service: the voice of a pipeline goes in, pictures with that voice come out.

Put it behind the text-to-speech service and before the output transport.
"""

import asyncio
from dataclasses import dataclass, replace
from typing import Any

from loguru import logger
from pipecat.audio.utils import create_stream_resampler
from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    CancelFrame,
    EndFrame,
    Frame,
    InterruptionFrame,
    OutputImageRawFrame,
    OutputTransportReadyFrame,
    SpeechOutputAudioRawFrame,
    StartFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
)
from pipecat.processors.frame_processor import FrameDirection
from pipecat.services.ai_service import AIService
from pipecat.services.settings import ServiceSettings
from viva.v1.face_call import FaceCall, FaceEvent, FaceLost, FaceOrder, Pair

NS = 1_000_000_000


@dataclass
class VivaVideoSettings(ServiceSettings):
    """Nothing of a face can be changed while it talks; `model` is for metrics."""


@dataclass(slots=True)
class _Segment:
    """One run of speech: its name at the server, and the pipeline's name of it."""

    name: str
    context_id: str | None


class VivaVideoService(AIService):
    """Shows one face for as long as a pipeline runs.

    Takes `TTSAudioRawFrame` (and does not pass it on) and gives, in real time and also in silence,
    an `OutputImageRawFrame`, and behind it that picture's sound as `SpeechOutputAudioRawFrame`; the
    two have the same `pts`. `TTSStoppedFrame` is held back until its speech has come out. When the
    face is lost an error goes upstream and the voice goes on without.
    """

    Settings = VivaVideoSettings

    def __init__(
        self,
        *,
        face: FaceOrder,
        settings: VivaVideoSettings | None = None,
        wait_for_transport: bool = True,
        sync_with_audio: bool = True,
        finish_s: float = 30.0,
        **kwargs: Any,
    ) -> None:
        """Talk with the face of an order; its sample rate is that of the sound that comes out.

        Pictures are held back until the transport is ready, unless `wait_for_transport` is off. At
        the pipeline's end what is being said is finished, for at most `finish_s`.

        With `sync_with_audio` each picture waits in the transport for the sound before it; that
        takes a transport with `video_out_is_live=False` and a frame rate of the face's or more. A
        live transport wants it off (it would show nothing), and `video_out_framerate` as the face.
        """
        own = VivaVideoSettings(model="viva-voce")
        if settings is not None:
            own.apply_update(settings)
        super().__init__(settings=own, **kwargs)
        self._order, self._finish_s = face, finish_s
        self._is_open, self._is_synced = not wait_for_transport, sync_with_audio
        self._face: FaceCall | None = None
        self._task: asyncio.Task[None] | None = None
        # Set once the face is there, or is known not to come.
        self._decided = asyncio.Event()
        self._silent = asyncio.Event()
        self._silent.set()
        self._segments: list[_Segment] = []
        self._is_segment_open = False
        self._resampler = create_stream_resampler()

    def can_generate_metrics(self) -> bool:
        """Time from speech to the first sound of it at the transport."""
        return True

    async def start(self, frame: StartFrame) -> None:
        """Call the face; the pipeline starts meanwhile, and speech waits for it."""
        await super().start(frame)
        if self._task is None:
            self._decided.clear()
            self._task = self.create_task(self._show(), "face")

    async def stop(self, frame: EndFrame) -> None:
        """Finish what is being said, then hang up."""
        await super().stop(frame)
        if self._face is not None and self._segments:
            try:
                await self._end_segment()
                async with asyncio.timeout(self._finish_s):
                    await self._silent.wait()
            except (TimeoutError, FaceLost):
                logger.warning(f"{self}: hung up before everything was said")
        await self._hang_up()

    async def cancel(self, frame: CancelFrame) -> None:
        """Hang up at once."""
        await super().cancel(frame)
        await self._hang_up()

    async def cleanup(self) -> None:
        """Hang up, if nobody did."""
        await super().cleanup()
        await self._hang_up()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Take speech and interruptions; everything else goes through."""
        await super().process_frame(frame, direction)
        if isinstance(frame, TTSAudioRawFrame):
            await self._speak(frame, direction)
            return
        if isinstance(frame, TTSStoppedFrame) and self._is_segment_open:
            await self._guarded_end()
            return
        if isinstance(frame, InterruptionFrame):
            await self._interrupt()
        elif isinstance(frame, TTSStartedFrame):
            await self.start_ttfb_metrics()
        elif isinstance(frame, OutputTransportReadyFrame):
            self._is_open = True
        elif isinstance(frame, BotStartedSpeakingFrame):
            await self.stop_ttfb_metrics()
        await self.push_frame(frame, direction)

    async def _speak(self, frame: TTSAudioRawFrame, direction: FrameDirection) -> None:
        """Give speech to the face; without a face it goes through as it is."""
        await self._decided.wait()
        face = self._face
        if face is None:
            await self.push_frame(frame, direction)
            return
        if not self._is_segment_open:
            await self._resampler.reset()
            self._segments.append(_Segment(face.new_name(), frame.context_id))
            self._is_segment_open = True
            self._silent.clear()
        name = self._segments[-1].name
        pcm = await self._resampler.resample(_mono(frame), frame.sample_rate, face.info.sample_rate)
        try:
            await face.speak(name, pcm)
        except FaceLost as error:
            logger.warning(f"{self}: {error}")  # whoever reads the face tells the pipeline

    async def _guarded_end(self) -> None:
        """The end of a segment; a face that is lost has told so elsewhere."""
        try:
            await self._end_segment()
        except FaceLost as error:
            logger.warning(f"{self}: {error}")

    async def _end_segment(self) -> None:
        """Nothing more of the open segment will come."""
        if not self._is_segment_open or self._face is None:
            return
        self._is_segment_open = False
        name = self._segments[-1].name
        await self._face.speak(name, await self._resampler.flush())
        await self._face.end(name)

    async def _interrupt(self) -> None:
        """Nothing of what was said so far comes out any more."""
        self._is_segment_open = False
        self._segments.clear()
        self._silent.set()
        await self._resampler.reset()
        if self._face is not None:
            try:
                await self._face.interrupt()
            except FaceLost as error:
                logger.warning(f"{self}: {error}")

    async def _show(self) -> None:
        """Call the face and push what it shows, until it hangs up or is lost."""
        face = FaceCall(replace(self._order))
        try:
            await face.start()
            self._face = face
            self._decided.set()
            async for thing in face:
                if isinstance(thing, FaceEvent):
                    await self._happened(thing)
                elif self._is_open:
                    await self._push_pair(thing, face.info.sample_rate)
            await self.push_error(f"{self}: the server ended the session")
        except FaceLost as error:
            await self.push_error(f"{self}: {error}", exception=error)
        finally:
            self._face = None
            self._decided.set()
            self._forget_segments()
            await face.close()

    async def _happened(self, event: FaceEvent) -> None:
        """The end of a segment is told behind its last sound."""
        if event.kind == "degraded":
            logger.info(f"{self}: {event.detail}")
        if event.kind != "speak_ended" or not self._segments:
            return
        if self._segments[0].name == event.utterance:
            segment = self._segments.pop(0)
            await self.push_frame(TTSStoppedFrame(context_id=segment.context_id))
        if not self._segments:
            self._silent.set()

    async def _push_pair(self, pair: Pair, sample_rate: int) -> None:
        """The picture, and behind it the sound under it."""
        pts = pair.pts * NS // sample_rate
        if pair.rgb is not None:
            picture = OutputImageRawFrame(
                image=pair.rgb, size=(pair.width, pair.height), format="RGB"
            )
            picture.pts = pts
            picture.sync_with_audio = self._is_synced
            await self.push_frame(picture)
        sound = SpeechOutputAudioRawFrame(audio=pair.pcm, sample_rate=sample_rate, num_channels=1)
        sound.pts = pts
        await self.push_frame(sound)

    def _forget_segments(self) -> None:
        """Nothing that is open will be heard any more."""
        self._segments.clear()
        self._is_segment_open = False
        self._silent.set()

    async def _hang_up(self) -> None:
        """Free everything; twice is no error."""
        task, self._task = self._task, None
        if task is not None:
            await self.cancel_task(task)
        self._forget_segments()


def _mono(frame: TTSAudioRawFrame) -> bytes:
    """The first channel."""
    if frame.num_channels == 1:
        return frame.audio
    step = 2 * frame.num_channels
    first, second = frame.audio[0::step], frame.audio[1::step]
    return bytes(byte for pair in zip(first, second, strict=True) for byte in pair)
