"""A face published by LiveKit's own runner, sources and queue: paired, exact about positions."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from fake_hall import Hall
from livekit import rtc
from livekit.agents.voice.avatar import AvatarRunner, QueueAudioOutput
from viva.v1.face_call import FaceCall, FaceLost, FaceOrder
from viva_livekit import FaceGenerator, FaceRunner
from viva_server import viva_server
from voices import RATE, Heard, frames, noise, say, until


class Show:
    """A runner, what is said into it, and what it publishes."""

    def __init__(self, runner: FaceRunner, output: QueueAudioOutput, hall: Hall) -> None:
        self.runner, self.output, self.heard, self.hall = runner, output, Heard(output), hall
        self.made: list[rtc.VideoFrame | rtc.AudioFrame] = []
        push: Callable[..., Any] = runner.av_sync.push

        async def kept(frame: Any, timestamp: float | None = None) -> None:
            self.made.append(frame)
            await push(frame, timestamp)

        runner.av_sync.push = kept  # type: ignore[method-assign]  # to see what goes out

    @property
    def sound(self) -> bytes:
        return b"".join(bytes(one.data) for one in self.made if isinstance(one, rtc.AudioFrame))


@asynccontextmanager
async def shown(server: str, *, is_subscribed: bool = True) -> AsyncIterator[Show]:
    output = QueueAudioOutput(sample_rate=RATE, wait_playback_start=True)
    hall = Hall()
    if not is_subscribed:
        hall.subscribed.clear()
    room: Any = hall.room().join("face")
    async with (
        asyncio.timeout(40),
        FaceCall(FaceOrder(address=server, portrait="ada", sample_rate=RATE)) as face,
    ):
        runner = FaceRunner(room, audio_recv=output, generator=FaceGenerator(face))
        assert isinstance(runner, AvatarRunner)
        show = Show(runner, output, hall)
        await runner.start()
        try:
            yield show
        finally:
            await runner.aclose()


def test_segments_are_published_whole_and_their_ends_told_exactly(server: str) -> None:
    async def play() -> None:
        async with shown(server) as show:
            first, second = noise(0.731), noise(0.4, seed=2)
            await say(show.output, first)
            await say(show.output, second)
            await show.output.wait_for_playout()
            await until(lambda: len(show.heard.finished) == 2)
            assert show.sound == first + second
            assert show.heard.num_started == 2
            told = [(one.playback_position, one.interrupted) for one in show.heard.finished]
            assert told == [(len(first) / 2 / RATE, False), (len(second) / 2 / RATE, False)]

    asyncio.run(play())


def test_pictures_come_with_their_sound_and_without_any(server: str) -> None:
    async def play() -> None:
        async with shown(server) as show:
            await until(lambda: len(show.made) >= 5)
            assert all(isinstance(one, rtc.VideoFrame) for one in show.made)
            assert {(one.width, one.height) for one in show.made} == {(64, 48)}
            await say(show.output, noise(0.8))
            await show.output.wait_for_playout()
            kinds = [isinstance(one, rtc.AudioFrame) for one in show.made]
            assert sum(kinds) == 20
            spoken = kinds[kinds.index(True) - 1 : len(kinds) - kinds[::-1].index(True)]
            # Each sound has its picture before it, but where the model was late.
            assert sum(spoken) >= 0.8 * (len(spoken) - sum(spoken)) > 0

    asyncio.run(play())


def test_an_interrupt_is_silent_at_once_and_tells_what_was_heard(server: str) -> None:
    async def play() -> None:
        async with shown(server) as show:
            old, new = noise(5.0), noise(0.3, seed=2)
            await say(show.output, old)
            await until(lambda: len(show.sound) >= RATE * 2)
            show.output.clear_buffer()
            assert show.runner._audio_source.queued_duration == 0
            num_out = len(show.sound) // 2
            await until(lambda: bool(show.heard.finished))
            (told,) = show.heard.finished
            assert told.interrupted
            heard = round(told.playback_position * RATE)
            # Heard is what was pushed, less what the source had not yet played (at most 100 ms and
            # the frame on its way).
            assert num_out - 0.145 * RATE <= heard <= num_out
            assert old.startswith(show.sound)
            await say(show.output, new)
            await show.output.wait_for_playout()
            assert show.sound == old[: num_out * 2] + new
            assert show.heard.finished[1].playback_position == len(new) / 2 / RATE
            assert show.heard.num_started == 2

    asyncio.run(play())


def test_an_interrupt_ends_every_segment_that_waits(server: str) -> None:
    async def play() -> None:
        async with shown(server) as show:
            await say(show.output, noise(2.0))
            await say(show.output, noise(1.0, seed=2))
            await until(lambda: bool(show.sound))
            show.output.clear_buffer()
            await until(lambda: len(show.heard.finished) == 2)
            assert [one.interrupted for one in show.heard.finished] == [True, True]
            assert show.heard.finished[1].playback_position == 0
            show.output.clear_buffer()  # in silence: nothing to tell
            await asyncio.sleep(0.1)
            assert len(show.heard.finished) == 2

    asyncio.run(play())


def test_other_rates_and_channels_are_brought_to_the_faces(server: str) -> None:
    async def play() -> None:
        async with shown(server) as show:
            left = np.frombuffer(noise(0.6, 24_000), np.int16)
            stereo = np.stack([left, left], axis=1).tobytes()
            for frame in frames(stereo, 24_000, 2):
                await show.runner._video_gen.push_audio(frame)
            await show.runner._generator._end_segment()
            await until(lambda: len(show.sound) >= 0.58 * RATE * 2)
            await asyncio.sleep(0.2)
            assert abs(len(show.sound) / 2 / RATE - 0.6) < 0.01

    asyncio.run(play())


def test_the_face_is_read_while_nobody_watches(server: str) -> None:
    async def play() -> None:
        async with shown(server, is_subscribed=False) as show:
            # Longer than a server lets one stop reading.
            await asyncio.sleep(11)
            assert not show.made
            show.hall.subscribed.set()
            pcm = noise(0.3)
            await say(show.output, pcm)
            await show.output.wait_for_playout()
            assert show.sound == pcm

    asyncio.run(play())


def test_a_face_that_is_lost_ends_the_runner() -> None:
    async def play() -> None:
        with contextlib.ExitStack() as server:
            address = await asyncio.to_thread(server.enter_context, viva_server())
            async with shown(address) as show:
                await until(lambda: bool(show.made))
                await asyncio.to_thread(server.close)
                with pytest.raises(FaceLost):
                    await show.runner.wait_for_complete()

    asyncio.run(play())
