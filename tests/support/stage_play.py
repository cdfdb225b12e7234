"""A performer over a fake model in virtual time, with everything it gave written down."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import numpy as np
from viva.v1.messages import OpenSession

from services.beat import Beat, Event
from services.performer import Performer
from tests.support.fake_model import FakeModel, FakeSettings, FakeStream
from tests.support.flash_picture import Sound
from tests.support.virtual_time import run_virtual

RATE = 48_000


@dataclass(slots=True, repr=False)  # asyncio prints what a main task returns
class Play:
    """What a play is made with, and what was seen and heard of it."""

    model: FakeModel
    stream: FakeStream
    performer: Performer
    beats: list[Beat] = field(default_factory=list)
    times_ms: list[float] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    max_ahead: int = 0

    def heard(self, utterance: str | None = None) -> Sound:
        """All sound, or that of an utterance, in the order in which it was heard."""
        parts = [beat.sound_T for beat in self.beats if utterance in (None, beat.utterance)]
        return np.concatenate([np.zeros(0, np.int16), *parts])

    def kinds(self) -> list[tuple[str, str | None]]:
        """Events of utterances."""
        return [(e.kind, e.utterance) for e in self.events if e.kind.startswith("speak")]

    def degraded(self) -> list[int | None]:
        """The rungs, one after the other."""
        return [event.level for event in self.events if event.kind == "degraded"]


Script = Callable[[Play], Awaitable[None]]


def play(script: Script, settings: FakeSettings | None = None, *, rate: int = RATE) -> Play:
    """Perform while the script runs; it begins with the first beat."""
    return run_virtual(_play(script, settings, rate))


def sound(num_samples: int, seed: int = 1) -> Sound:
    """Sound of which every sample is another one, and none is 0."""
    noise_T = np.random.default_rng(seed).integers(1, 9000, num_samples)
    return noise_T.astype(np.int16)


async def pause(ms: float) -> None:
    """Let the play go on for so long."""
    await asyncio.sleep(ms / 1000)


async def _play(script: Script, settings: FakeSettings | None, rate: int) -> Play:
    """Set the stage, run the script, clear the stage."""
    model = FakeModel(settings)
    spec = OpenSession(session="s", portrait=b"face", seed=1, sample_rate=rate)
    stream = await model.open(spec)
    events: list[Event] = []
    performer = Performer(stream, chunk_frames=model.ready.chunk_frames, on_event=events.append)
    one = Play(model, stream, performer, events=events)
    watching = asyncio.create_task(_watch(one))
    performer.start()
    await performer.started()
    try:
        await script(one)
    finally:
        await performer.close()
        await watching
        await model.close()
    return one


async def _watch(one: Play) -> None:
    """Write down every beat."""
    async for beat in one.performer.subscribe():
        one.beats.append(beat)
        one.times_ms.append(asyncio.get_running_loop().time() * 1000)
        one.max_ahead = max(one.max_ahead, one.performer.ahead_frames)
