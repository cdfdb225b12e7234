"""A slow reader loses pictures, oldest first, and no sound; a dead one is sent away."""

import asyncio
import json

import numpy as np
import pytest

from services.beat import Beat, Event
from services.beat_queue import BeatQueue
from tests.support.virtual_time import run_virtual

pytestmark = pytest.mark.unit


def beat(tick: int) -> Beat:
    picture_HWC = np.full((2, 2, 3), tick, np.uint8)
    sound_T = np.full(4, tick, np.int16)
    return Beat(tick=tick, picture_HWC=picture_HWC, sound_T=sound_T, epoch=0, utterance=None)


def queue(max_beats: int = 100, max_pictures: int = 3) -> BeatQueue:
    return BeatQueue(max_beats=max_beats, max_pictures=max_pictures, forget=lambda: None)


async def drain(one: BeatQueue) -> list[Beat]:
    one.close()
    return [each async for each in one]


def test_the_latest_pictures_and_all_sound_are_kept() -> None:
    async def script() -> None:
        one = queue()
        for tick in range(50):
            one.put(beat(tick))
        assert len(one) == 50
        beats = await drain(one)
        assert [each.tick for each in beats] == list(range(50))
        assert [int(each.sound_T[0]) for each in beats] == list(range(50))
        assert [each.tick for each in beats if each.picture_HWC is not None] == [47, 48, 49]
        assert one.num_dropped == 47

    run_virtual(script())


def test_a_reader_that_comes_back_gets_pictures_again() -> None:
    async def script() -> None:
        one = queue()
        for tick in range(5):
            one.put(beat(tick))
        seen = [await one.get() for _ in range(4)]
        for tick in range(5, 7):
            one.put(beat(tick))
        seen += await drain(one)
        dropped = [each.tick for each in seen if each and each.picture_HWC is None]
        assert dropped == [0, 1]

    run_virtual(script())


def test_a_reader_that_is_gone_costs_no_more_memory() -> None:
    async def script() -> None:
        forgotten: list[bool] = []
        one = BeatQueue(max_beats=10, forget=lambda: forgotten.append(True))
        for tick in range(20):
            one.put(beat(tick))
        assert one.is_too_slow
        assert one.is_closed
        assert len(one) == 0
        assert await one.get() is None
        one.close()
        assert forgotten == [True]

    run_virtual(script())


def test_who_waits_is_woken_by_a_beat_and_by_the_end() -> None:
    async def script() -> None:
        one = queue()
        waiting = asyncio.create_task(one.get())
        await asyncio.sleep(1)
        one.put(beat(3))
        got = await waiting
        assert got is not None
        assert got.tick == 3
        waiting = asyncio.create_task(one.get())
        await asyncio.sleep(1)
        one.close()
        assert await waiting is None

    run_virtual(script())


def test_events_are_plain_records_with_names_that_clients_know() -> None:
    ended = Event(
        kind="speak_ended",
        at_tick=7,
        epoch=1,
        utterance="u",
        position_ms=1500.0,
        position_samples=72_000,
    )
    assert json.loads(json.dumps(ended.as_record())) == {
        "type": "agent.speak_ended",
        "at_tick": 7,
        "epoch": 1,
        "utterance": "u",
        "position_ms": 1500.0,
        "position_samples": 72_000,
    }
    assert ended.as_playback() == {"playback_position": 1.5, "interrupted": False}
    degraded = Event(kind="degraded", at_tick=0, level=0, why="well")
    assert degraded.as_record()["type"] == "session.degraded"
    assert degraded.as_record()["level"] == 0
    assert degraded.as_playback() is None
    stage = Event(kind="stage", at_tick=0, stage="a", chunk=0, began_ms=0.0, ended_ms=1.0)
    assert stage.as_record()["type"] == "chain.stage"
    assert stage.as_record()["chunk"] == 0
