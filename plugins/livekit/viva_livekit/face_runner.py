"""LiveKit's `AvatarRunner` with exact positions: what was played, not what was pushed.

The stock runner counts sound when it is pushed, keeps what is queued after an interrupt, tells of
one segment where two wait, and reads nothing while nobody subscribes. This one overrides exactly
its two private methods that do so; `tests/test_face_runner.py` holds it against the version in
`constraints.txt`.
"""

import asyncio
from collections.abc import Coroutine
from fractions import Fraction
from typing import Any

from livekit import rtc
from livekit.agents.voice.avatar import AudioReceiver, AudioSegmentEnd, AvatarOptions, AvatarRunner
from viva.v1.face_call import FaceLost

from viva_livekit.face_generator import FaceGenerator


class FaceRunner(AvatarRunner):
    """Publishes one face into a room, and tells whoever speaks what was heard."""

    def __init__(
        self, room: rtc.Room, *, audio_recv: AudioReceiver, generator: FaceGenerator
    ) -> None:
        """Publish at the face's own size and rates, once its first picture is there."""
        info = generator.face.info
        options = AvatarOptions(
            video_width=info.width,
            video_height=info.height,
            video_fps=float(info.fps),
            audio_sample_rate=info.sample_rate,
            audio_channels=1,
        )
        super().__init__(room, audio_recv=audio_recv, video_gen=generator, options=options)
        self._generator, self._sample_rate = generator, info.sample_rate
        # Samples of the segment that is heard which were pushed, and how often was cleared.
        self._num_pushed, self._num_clears = 0, 0

    async def _forward_video(self) -> None:
        """Publish pairs, and tell of each segment that it began and that it is over.

        Raises:
            FaceLost: the face is gone, or the server ended the session.
        """
        publishing = asyncio.create_task(self._publish_at_first())
        try:
            async for made in self._generator:
                if isinstance(made, AudioSegmentEnd):
                    num_pushed, self._num_pushed = self._num_pushed, 0
                    self._tell(self._finished(num_pushed, interrupted=False))
                elif publishing.done() or isinstance(made, rtc.AudioFrame):
                    await publishing
                    await self._push(made)
        finally:
            publishing.cancel()
        raise FaceLost("the server ended the session")

    async def _publish_at_first(self) -> None:
        """Publish the tracks.

        That waits until somebody subscribes. Meanwhile pictures are read and left out, as a server
        ends the session of one who does not read.
        """
        if not self._video_publication:
            await self._publish_track()

    async def _push(self, made: rtc.VideoFrame | rtc.AudioFrame) -> None:
        """Publish a frame; sound that was cleared while it waited for room is taken back."""
        num_clears = self._num_clears
        if isinstance(made, rtc.VideoFrame):
            await self.av_sync.push(made)
            return
        if self._num_pushed == 0:
            self._tell(self._audio_recv.notify_playback_started())
        self._num_pushed += made.samples_per_channel
        await self.av_sync.push(made)
        if self._num_clears != num_clears:
            self._audio_source.clear_queue()

    def _on_clear_buffer(self) -> None:
        """Silence at once; then the position of every segment that was begun."""
        queued = round(self._audio_source.queued_duration * self._sample_rate)
        num_heard = max(0, self._num_pushed - queued)
        num_segments = len(self._generator.open_segments)
        self._num_pushed, self._num_clears = 0, self._num_clears + 1
        self._generator.open_segments.clear()  # at once: no more of their sound is made
        self._audio_source.clear_queue()
        self._tell(self._clear(num_heard, num_segments))

    async def _clear(self, num_heard: int, num_segments: int) -> None:
        """Interrupt the face, and tell how far each segment came; only the first did."""
        await self._generator.clear_buffer()
        for number in range(num_segments):
            told = self._finished(num_heard if number == 0 else 0, interrupted=True)
            if told is not None:
                await told

    def _finished(
        self, num_samples: int, *, interrupted: bool
    ) -> Coroutine[None, None, None] | None:
        """Tell that a segment is over after so many samples."""
        position_s = float(Fraction(num_samples, self._sample_rate))
        return self._audio_recv.notify_playback_finished(
            playback_position=position_s, interrupted=interrupted
        )

    def _tell(self, told: Coroutine[Any, Any, None] | None) -> None:
        """Let something be told while pictures go on."""
        if told is not None:
            task = asyncio.create_task(told)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
