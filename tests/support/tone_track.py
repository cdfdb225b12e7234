"""A microphone for tests: silence, and a tone while somebody speaks."""

import asyncio
from fractions import Fraction

import numpy as np
from aiortc import MediaStreamTrack
from av import AudioFrame


class ToneTrack(MediaStreamTrack):
    """20 ms of 48 kHz at a time, in real time; speaks between two seconds."""

    kind = "audio"

    def __init__(self, hz: float, *, speaks_s: tuple[float, float]) -> None:
        super().__init__()
        self.hz, self.speaks_s = hz, speaks_s
        self._count, self._began_s = 0, 0.0

    async def recv(self) -> AudioFrame:
        loop = asyncio.get_running_loop()
        self._began_s = self._began_s or loop.time()
        await asyncio.sleep(max(0.0, self._began_s + self._count * 0.02 - loop.time()))
        times = (self._count * 960 + np.arange(960)) / 48000
        speaks = (times >= self.speaks_s[0]) & (times < self.speaks_s[1])
        sound = np.where(speaks, 8000 * np.sin(2 * np.pi * self.hz * times), 0).astype(np.int16)
        frame = AudioFrame.from_ndarray(sound[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, self._count * 960, Fraction(1, 48000)
        self._count += 1
        return frame
