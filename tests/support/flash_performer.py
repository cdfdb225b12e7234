"""A performer for tests of media: real-time beats, a tone per session, flashes with beeps."""

import asyncio
from collections import deque
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from services.beat import Beat


class FlashQueue:
    """A subscription; drops the oldest pictures and never sound."""

    def __init__(self, performer: "FlashPerformer") -> None:
        self._performer = performer
        self._waiting: deque[Beat | None] = deque()
        self._ready = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, beat: Beat | None) -> None:
        self._waiting.append(beat)
        self._ready.set()

    async def get(self) -> Beat | None:
        while not self._waiting:
            self._ready.clear()
            await self._ready.wait()
        return self._waiting.popleft()

    def close(self) -> None:
        self._performer.queues.discard(self)


class FlashPerformer:
    """Every `every` ticks three white pictures with a beep; else grey ones with `hum_hz`."""

    def __init__(
        self,
        *,
        hum_hz: float = 0.0,
        beep_hz: float = 1000.0,
        every: int = 15,
        flash_late: int = 0,
        side: int = 64,
        sample_rate: int = 48000,
        fps: Fraction = Fraction(25),
    ) -> None:
        self.fps, self.sample_rate = fps, sample_rate
        self.hum_hz, self.beep_hz, self.every, self.flash_late = hum_hz, beep_hz, every, flash_late
        self.side = side
        self._lit = range(every // 2, every // 2 + 3)
        self.queues: set[FlashQueue] = set()
        self.spoken: list[tuple[str, npt.NDArray[np.int16]]] = []
        self.ended: list[str] = []
        self._task: asyncio.Task[None] | None = None

    def subscribe(self) -> FlashQueue:
        queue = FlashQueue(self)
        self.queues.add(queue)
        return queue

    def speak(self, utterance: str, pcm_T: npt.NDArray[np.int16]) -> None:
        self.spoken.append((utterance, pcm_T))

    def end(self, utterance: str) -> None:
        self.ended.append(utterance)

    def beat(self, tick: int) -> Beat:
        begin = int(tick * self.sample_rate / self.fps)
        end = int((tick + 1) * self.sample_rate / self.fps)
        times = np.arange(begin, end) / self.sample_rate
        sound = np.zeros(end - begin)
        if self.hum_hz:
            sound += 3000 * np.sin(2 * np.pi * self.hum_hz * times)
        if tick % self.every in self._lit:
            sound += 20000 * np.sin(2 * np.pi * self.beep_hz * times)
        is_flash = (tick - self.flash_late) % self.every in self._lit
        picture = np.full((self.side, self.side, 3), 235 if is_flash else 40, np.uint8)
        picture[: self.side // 2, : self.side // 4] = tick * 5 % 256
        return Beat(
            tick=tick,
            picture_HWC=picture,
            sound_T=sound.astype(np.int16),
            epoch=0,
            utterance=None,
        )

    async def __aenter__(self) -> "FlashPerformer":
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        began_s, tick = loop.time(), 0
        while True:
            beat = self.beat(tick)
            for queue in list(self.queues):
                queue.put(beat)
            tick += 1
            await asyncio.sleep(max(0.0, began_s + float(tick / self.fps) - loop.time()))
