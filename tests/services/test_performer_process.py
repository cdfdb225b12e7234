"""A performer over a real engine in a real process: in time, to the sample, through its death."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from viva.v1.messages import OpenSession

from services.beat import Beat, Event
from services.model_client import ModelClient
from services.model_worker import spawned
from services.performer import Performer
from tests.support.flash_picture import beeps, is_flash, read, session_number

pytestmark = [
    pytest.mark.unit,
    pytest.mark.skipif(sys.platform != "linux", reason="processes are found by /proc"),
]

RATE = 48_000
ROOT = Path(__file__).parents[2]


async def watched(performer: Performer, beats: list[Beat]) -> None:
    async for beat in performer.subscribe():
        beats.append(beat)


def workers() -> list[int]:
    return [child.pid for child in psutil.Process().children()]


def test_speech_through_a_process_that_is_killed_is_heard_without_a_gap() -> None:
    said_T = beeps(RATE, 5.0, every_s=0.5)
    said_T[said_T == 0] = 3
    beats: list[Beat] = []
    events: list[Event] = []

    def at_ticks(kind: str) -> list[int]:
        return [event.at_tick for event in events if event.kind == kind]

    async def whole() -> None:
        source = spawned(["-m", "tests.support.flash_face", "--side", "64"])
        client = await ModelClient.start(source, has_spare=False)
        stream = await client.open(
            OpenSession(session="s", portrait=b"face", seed=1, sample_rate=RATE)
        )
        performer = Performer(stream, chunk_frames=12, on_event=events.append)
        watching = asyncio.create_task(watched(performer, beats))
        performer.start()
        await performer.started()
        performer.speak("old", said_T)
        await asyncio.sleep(1.5)
        position = performer.interrupt()
        assert position.played_samples == sum(len(b.sound_T) for b in beats if b.utterance)
        performer.speak("u", said_T)
        performer.end("u")
        await asyncio.sleep(2.0)
        for pid in workers():
            os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(60):
            await performer.played("u")
            async for beat in performer.subscribe():
                if at_ticks("restarted") and not beat.is_held:
                    break
        await performer.close()
        await watching
        await client.close()

    asyncio.run(whole())
    spoken = [beat for beat in beats if beat.utterance == "u"]
    assert (np.concatenate([beat.sound_T for beat in spoken])[: len(said_T)] == said_T).all()
    killed, restarted = at_ticks("degraded")[0], at_ticks("restarted")[0]
    ticks = [beat.tick for beat in spoken if beat.tick >= killed]
    until = min(restarted, spoken[-1].tick + 1)
    assert ticks[: until - killed] == list(range(killed, until))
    for beat in spoken:
        code = read(np.asarray(beat.picture_HWC))
        if code is not None and not beat.is_held and beat.tick < killed:
            assert code.session == session_number("s")
            is_loud = bool(np.abs(beat.sound_T.astype(int)).max() > 8000)
            assert is_flash(np.asarray(beat.picture_HWC)) == is_loud
