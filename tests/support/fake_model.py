"""A live model in this process without a network: it flashes when it hears a beep.

It honours credit and epochs like a real one, and fails on demand: `kill` is a model process that
dies and comes back, `fail` one that does not, `stall` one that is slow for a moment.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from fractions import Fraction

from viva.v1.messages import Degraded, ModelReady, OpenSession, SessionFailed, StageTrace

from pipeline.pacing import samples_of
from services.live_model import LiveEvent, ModelRefused, Restarted
from services.slice import Slice
from tests.support.fake_timeline import FakeTimeline, FrameSound
from tests.support.flash_picture import Code, Sound, draw, has_beep, session_number


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeSettings:
    """`work_ms` is for a chunk; pictures are `late_ms` later with their sound.

    With `old_slices` what was begun before an interrupt still comes out behind it.
    """

    fps: Fraction = Fraction(25)
    width: int = 256
    height: int = 256
    chunk_frames: int = 12
    capacity: int = 8
    work_ms: float = 20.0
    late_ms: float = 0.0
    first_ms: int = 480
    old_slices: bool = False


class FakeStream:
    """One session of a fake model."""

    def __init__(self, model: "FakeModel", spec: OpenSession) -> None:
        """Begin to make slices as soon as some are wanted."""
        self._settings = settings = model.settings
        self._model = model
        self.session, self.sample_rate, self.fps = spec.session, spec.sample_rate, settings.fps
        self.width, self.height = spec.width or settings.width, spec.height or settings.height
        self.until_index, self.next_index, self.epoch = 0, 0, 0
        self.due_in_ms: list[float] = []
        self._timeline = self._silent()
        self._out: asyncio.Queue[LiveEvent | None] = asyncio.Queue()
        self._wanted, self._stall_ms, self._is_closed = asyncio.Event(), 0.0, False
        self._work = asyncio.create_task(self._run(), name=f"fake model {spec.session}")

    def speak(self, utterance: str, epoch: int, pcm_T: Sound) -> None:
        """Give sound."""
        if epoch >= self.epoch:
            self._timeline.speak(utterance, epoch, pcm_T)

    def end(self, utterance: str, epoch: int) -> None:
        """Say that an utterance is whole."""
        if epoch >= self.epoch:
            self._timeline.end(utterance, epoch)

    def interrupt(self, epoch: int) -> None:
        """Drop what is older than the epoch."""
        self.epoch = max(self.epoch, epoch)
        self._timeline.interrupt(epoch)

    def want(self, until_index: int, due_in_ms: float) -> None:
        """Give credit."""
        self.due_in_ms.append(due_in_ms)
        self.until_index = max(self.until_index, until_index)
        self._wanted.set()

    async def events(self) -> AsyncIterator[LiveEvent]:
        """What is made, in order."""
        while (event := await self._out.get()) is not None:
            yield event

    async def close(self) -> None:
        """End the work."""
        self._stop()
        if self._work is not asyncio.current_task():
            await asyncio.gather(self._work, return_exceptions=True)

    def stall(self, stall_ms: float) -> None:
        """Make the next chunk so much slower."""
        self._stall_ms += stall_ms

    def degrade(self, level: int, why: str) -> None:
        """Report a rung of the ladder."""
        self._out.put_nowait(Degraded(session=self.session, level=level, why=why))

    def die(self) -> None:
        """Lose all that was said, as with the process that knew it."""
        self._work.cancel()
        self._timeline, self.until_index = self._silent(), 0
        self.degrade(4, "the model process is gone")

    def revive(self) -> None:
        """Go on with the next index, knowing nothing."""
        self._timeline, self.until_index = self._silent(), 0
        self._out.put_nowait(Restarted(session=self.session, next_index=self.next_index))
        self._work = asyncio.create_task(self._run(), name=f"fake model {self.session} again")

    def fail(self, reason: str) -> None:
        """End for good."""
        self._out.put_nowait(SessionFailed(session=self.session, reason=reason))
        self._stop()

    def _stop(self) -> None:
        """Free the place in the model."""
        if not self._is_closed:
            self._is_closed = True
            self._work.cancel()
            self._out.put_nowait(None)
            self._model.streams.pop(self.session, None)

    def _silent(self) -> FakeTimeline:
        """A timeline that knows of nothing."""
        return FakeTimeline(self.sample_rate, self._settings.first_ms)

    async def _run(self) -> None:
        """Make chunk after chunk while there is credit."""
        chunk = 0
        while True:
            while self.next_index >= self.until_index:
                self._wanted.clear()
                await self._wanted.wait()
            await self._make(chunk)
            chunk += 1

    async def _make(self, chunk: int) -> None:
        """Decide what is heard, work, and hand out the slices."""
        began_ms, epoch, first = _now_ms(), self.epoch, self.next_index
        count = min(self._settings.chunk_frames, self.until_index - first)
        heard = [self._hear(first + n) for n in range(count)]
        stall_ms, self._stall_ms = self._stall_ms, 0.0
        await asyncio.sleep((self._settings.work_ms + self._settings.late_ms + stall_ms) / 1000)
        trace = StageTrace(
            stage="fake", session=self.session, chunk=chunk, began_ms=began_ms, ended_ms=_now_ms()
        )
        self._out.put_nowait(trace)
        if epoch < self.epoch and not self._settings.old_slices:
            return
        self.next_index = first + count
        for n, frame in enumerate(heard):
            self._out.put_nowait(self._slice(first + n, epoch, frame))

    def _hear(self, index: int) -> FrameSound:
        """The sound under a frame."""
        return self._timeline.next_frame(samples_of(index, self.sample_rate, self.fps))

    def _slice(self, index: int, epoch: int, frame: FrameSound) -> Slice:
        """The picture that belongs to a sound."""
        code = Code(index, epoch, session_number(self.session))
        beep = has_beep(frame.sound_T)
        return Slice(
            index=index,
            epoch=epoch,
            utterance=frame.utterance,
            picture_HWC=draw(code, is_flash=beep, height=self.height, width=self.width),
            sound_T=frame.sound_T,
            ends_utterance=frame.ends,
        )


class FakeModel:
    """Where fake streams come from."""

    def __init__(self, settings: FakeSettings | None = None) -> None:
        """A model that is warm at once."""
        self.settings = settings = settings or FakeSettings()
        self.streams: dict[str, FakeStream] = {}
        self.ready = ModelReady(
            model="fake",
            plan="fake",
            fps_num=settings.fps.numerator,
            fps_den=settings.fps.denominator,
            width=settings.width,
            height=settings.height,
            capacity=settings.capacity,
            chunk_frames=settings.chunk_frames,
            warm_s=0.0,
        )

    async def open(self, spec: OpenSession) -> FakeStream:
        """A stream; refused like a real model does it.

        Raises:
            ModelRefused: `capacity`, `session` or `portrait` (an empty one).
        """
        if spec.session in self.streams:
            raise ModelRefused("session", f"session {spec.session} is there already")
        if len(self.streams) >= self.settings.capacity:
            raise ModelRefused("capacity", f"all {self.settings.capacity} places are taken")
        if not spec.portrait:
            raise ModelRefused("portrait", "the portrait is empty")
        stream = self.streams[spec.session] = FakeStream(self, spec)
        return stream

    async def close(self) -> None:
        """End all streams."""
        for stream in list(self.streams.values()):
            await stream.close()

    async def kill(self, *, back_after_ms: float) -> None:
        """Let the process die, and another one take over after so long."""
        streams = list(self.streams.values())
        for stream in streams:
            stream.die()
        await asyncio.sleep(back_after_ms / 1000)
        for stream in streams:
            if stream.session in self.streams:
                stream.revive()


def _now_ms() -> float:
    """The loop's time."""
    return asyncio.get_running_loop().time() * 1000
