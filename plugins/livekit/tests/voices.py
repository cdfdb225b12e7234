"""Sound for tests of rooms, and what an output was told of it."""

import asyncio
from collections.abc import Callable

import numpy as np
from livekit import rtc
from livekit.agents.voice.io import AudioOutput, PlaybackFinishedEvent

RATE = 16_000


def noise(seconds: float, rate: int = RATE, seed: int = 1) -> bytes:
    """Sound in which no sample can be lost unseen."""
    random = np.random.default_rng(seed)
    return random.integers(1, 9000, int(seconds * rate), dtype=np.int16).tobytes()


def frames(pcm: bytes, rate: int = RATE, channels: int = 1) -> list[rtc.AudioFrame]:
    """It in frames of 50 ms."""
    step = rate // 20 * 2 * channels
    pieces = [pcm[begin : begin + step] for begin in range(0, len(pcm), step)]
    return [rtc.AudioFrame(one, rate, channels, len(one) // 2 // channels) for one in pieces]


async def say(output: AudioOutput, pcm: bytes) -> None:
    """A segment, as an agent speaks it."""
    for frame in frames(pcm):
        await output.capture_frame(frame)
    output.flush()


class Heard:
    """What an output tells of playback."""

    def __init__(self, output: AudioOutput) -> None:
        self.num_started = 0
        self.finished: list[PlaybackFinishedEvent] = []
        output.on("playback_started", self._started)
        output.on("playback_finished", self.finished.append)

    def _started(self, event: object) -> None:
        del event
        self.num_started += 1


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for something that nobody tells."""
    async with asyncio.timeout(30):
        while not is_so():  # noqa: ASYNC110 - it is asked for, nobody tells it
            await asyncio.sleep(0.005)
