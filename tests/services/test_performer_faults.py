"""What goes wrong at once with something else: interrupts of lost models, readers that stop."""

import asyncio

import numpy as np
import pytest

from services.beat import Beat
from services.sound_packets import SoundPacker
from tests.support.fake_model import FakeSettings
from tests.support.stage_play import RATE, Play, pause, play, sound

pytestmark = pytest.mark.unit


def test_an_interrupt_while_the_model_is_gone_stops_the_sound_and_the_next_is_spoken() -> None:
    async def script(one: Play) -> None:
        one.performer.speak("old", sound(10 * RATE))
        await pause(1500)
        killing = asyncio.create_task(one.model.kill(back_after_ms=2000))
        await pause(1000)
        assert one.performer.interrupt().played_samples == len(one.heard("old"))
        one.performer.speak("new", sound(RATE, seed=2))
        one.performer.end("new")
        await killing
        await one.performer.played("new")

    one = play(script)
    assert (one.heard("new") == sound(RATE, seed=2)).all()
    last = max(beat.tick for beat in one.beats if beat.utterance == "old")
    first = min(beat.tick for beat in one.beats if beat.utterance == "new")
    silent_T = np.concatenate([beat.sound_T for beat in one.beats[last + 1 : first]])
    assert not silent_T[720:].any()
    assert one.beats[-1].epoch == 1


def test_an_interrupt_right_after_the_model_is_back() -> None:
    async def script(one: Play) -> None:
        one.performer.speak("old", sound(10 * RATE))
        await pause(1500)
        await one.model.kill(back_after_ms=500)
        await pause(1)
        one.performer.interrupt()
        one.performer.speak("new", sound(RATE, seed=2))
        one.performer.end("new")
        await one.performer.played("new")

    one = play(script, FakeSettings(work_ms=300))
    assert (one.heard("new") == sound(RATE, seed=2)).all()
    assert [kind for kind, _ in one.kinds()][1] == "speak_interrupted"


def test_two_deaths_in_one_utterance() -> None:
    async def script(one: Play) -> None:
        one.performer.speak("u", sound(8 * RATE))
        one.performer.end("u")
        await pause(1500)
        await one.model.kill(back_after_ms=700)
        await pause(100)
        await one.model.kill(back_after_ms=700)
        await one.performer.played("u")
        await pause(1000)

    one = play(script, FakeSettings(work_ms=200))
    spoken = [beat.tick for beat in one.beats if beat.utterance]
    assert spoken == list(range(spoken[0], spoken[-1] + 1))
    assert (one.heard("u") == sound(8 * RATE)).all()
    assert not one.beats[-1].is_held


def test_on_the_lowest_rung_sound_goes_on_and_pictures_that_missed_it_are_left_out() -> None:
    async def script(one: Play) -> None:
        one.performer.speak("u", sound(8 * RATE))
        one.performer.end("u")
        await pause(1500)
        one.stream.degrade(4, "too slow")
        one.stream.stall(1500)
        await pause(2500)
        one.stream.degrade(0, "")
        await one.performer.played("u")
        await pause(500)

    one = play(script)
    spoken = [beat.tick for beat in one.beats if beat.utterance]
    assert spoken == list(range(spoken[0], spoken[-1] + 1))
    assert (one.heard("u") == sound(8 * RATE)).all()
    assert one.performer.playback.num_stale > 0
    assert one.degraded() == [4, 0]
    late = [beat for beat in one.beats if beat.tick > spoken[-1] - 50]
    assert not any(beat.is_held for beat in late)


def test_a_subscriber_that_stops_reading_loses_pictures_only_and_holds_nobody_up() -> None:
    slow: list[Beat] = []

    async def script(one: Play) -> None:
        queue = one.performer.subscribe()
        one.performer.speak("u", sound(3 * RATE))
        one.performer.end("u")
        await one.performer.played("u")
        queue.close()
        slow.extend([beat async for beat in queue])

    one = play(script)
    heard_T = np.concatenate([beat.sound_T for beat in slow])
    assert (heard_T[heard_T != 0] == sound(3 * RATE)).all()
    assert sum(beat.picture_HWC is not None for beat in slow) == 12
    assert np.diff(one.times_ms) == pytest.approx(40)


def test_a_subscriber_that_is_gone_for_a_minute_is_sent_away() -> None:
    async def script(one: Play) -> None:
        queue = one.performer.subscribe()
        await pause(61_000)
        assert queue.is_too_slow
        assert await queue.get() is None

    play(script, FakeSettings(width=32, height=32))


@pytest.mark.parametrize("rate", [48_000, 16_000])
def test_packets_of_20_ms_hold_the_sound_exactly(rate: int) -> None:
    said_T = sound(2 * rate)

    async def script(one: Play) -> None:
        one.performer.speak("u", said_T)
        one.performer.end("u")
        await one.performer.played("u")
        await pause(400)

    one = play(script, rate=rate)
    packer = SoundPacker(rate, one.performer.fps)
    packets = [packet for beat in one.beats for packet in packer.push(beat.tick, beat.sound_T)]
    assert [packet.pts for packet in packets] == [960 * n for n in range(len(packets))]
    assert {len(packet.samples_T) for packet in packets} == {960}
    if rate == 48_000:
        packed_T = np.concatenate([packet.samples_T for packet in packets])
        assert (packed_T[packed_T != 0] == said_T).all()
        assert len(packed_T) == sum(len(beat.sound_T) for beat in one.beats) // 960 * 960
