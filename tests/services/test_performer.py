"""A stream on time: everything that is said is heard once, with its picture, to the sample."""

import asyncio
from fractions import Fraction

import numpy as np
import pytest

from pipeline.pacing import samples_before
from services.ledger import LedgerFull, UtteranceOver
from tests.support.fake_model import FakeSettings
from tests.support.flash_picture import beeps, is_flash, read
from tests.support.stage_play import RATE, Play, pause, play, sound
from tests.support.virtual_time import leap

pytestmark = pytest.mark.unit


def in_pieces(one: Play, name: str, said_T: np.ndarray, size: int) -> None:
    for start in range(0, len(said_T), size):
        one.performer.speak(name, said_T[start : start + size])
    one.performer.end(name)


def test_without_speech_there_is_idle_motion_at_the_rate_and_silence() -> None:
    async def script(_: Play) -> None:
        await pause(10_000)

    one = play(script)
    assert [beat.tick for beat in one.beats] == list(range(251))
    assert np.diff(one.times_ms) == pytest.approx(40)
    assert not one.heard().any()
    assert not any(beat.is_held or beat.utterance for beat in one.beats)
    codes = [read(beat.picture_HWC) for beat in one.beats if beat.picture_HWC is not None]
    assert [code.index for code in codes if code] == list(range(251))
    assert one.events[0].kind == "stage"
    assert {event.kind for event in one.events} == {"stage"}


@pytest.mark.parametrize("size", [160, 1920, 4803, 144_001])
@pytest.mark.parametrize("work_ms", [20, 300, 450])
def test_what_is_said_is_heard_to_the_sample_and_the_mouth_is_with_it(
    size: int, work_ms: float
) -> None:
    said_T = beeps(RATE, 3.0)

    async def script(one: Play) -> None:
        await pause(700)
        in_pieces(one, "u", said_T, size)
        position = await one.performer.played("u")
        assert position.played_samples == position.num_samples == len(said_T)
        assert position.played_ms == 3000
        await pause(500)

    one = play(script, FakeSettings(work_ms=work_ms))
    assert (one.heard("u") == said_T).all()
    assert one.kinds() == [("speak_started", "u"), ("speak_ended", "u")]
    spoken = [beat for beat in one.beats if beat.utterance == "u"]
    flashes = [n for n, beat in enumerate(spoken) if is_flash(np.asarray(beat.picture_HWC))]
    assert flashes == [0, 1, 25, 26, 50, 51]
    assert [beat.tick for beat in one.beats] == list(range(len(one.beats)))
    assert not any(beat.is_held for beat in one.beats)
    assert one.max_ahead <= 12 + 2
    started, ended = (event.at_tick for event in one.events if event.kind.startswith("speak"))
    assert (started, ended) == (spoken[0].tick, spoken[-1].tick)


def test_utterances_are_heard_in_turn_even_if_they_come_mixed() -> None:
    said = {name: sound(RATE + 100 * n, seed=n) for n, name in enumerate("abc")}

    async def script(one: Play) -> None:
        for part in range(2):
            for name, said_T in said.items():
                one.performer.speak(name, said_T[part * 20_000 : (part + 1) * 20_000])
        for name, said_T in said.items():
            one.performer.speak(name, said_T[40_000:])
            one.performer.end(name)
        assert one.performer.queue_ms == pytest.approx(3 * 1000 + 300 / 48)
        await one.performer.played("c")
        await pause(100)

    one = play(script)
    order = [name for kind, name in one.kinds() if kind == "speak_started"]
    assert order == ["a", "b", "c"]
    for name, said_T in said.items():
        heard_T = one.heard(name)
        assert (heard_T[: len(said_T)] == said_T).all()
        assert not heard_T[len(said_T) :].any()


def test_a_sender_in_real_time_is_heard_whole_with_pauses() -> None:
    said_T = sound(2 * RATE)

    async def script(one: Play) -> None:
        for start in range(0, len(said_T), 960):
            one.performer.speak("u", said_T[start : start + 960])
            await pause(20 if start != 48_000 else 900)
        one.performer.end("u")
        await one.performer.played("u")

    one = play(script)
    assert (one.heard("u")[: len(said_T)] == said_T).all()
    assert one.degraded() == []


@pytest.mark.parametrize("fps", [Fraction(30000, 1001), Fraction(16), Fraction(24000, 1001)])
@pytest.mark.parametrize("rate", [48_000, 16_000, 44_100])
def test_any_frame_rate_keeps_exact_counts(fps: Fraction, rate: int) -> None:
    said = [sound(rate * 2 + 17, seed=1), sound(rate, seed=2)]

    async def script(one: Play) -> None:
        for n, said_T in enumerate(said):
            one.performer.speak(f"u{n}", said_T)
            one.performer.end(f"u{n}")
        await one.performer.played("u1")
        await pause(1000)

    one = play(script, FakeSettings(fps=fps), rate=rate)
    for beat in one.beats:
        here, after = (samples_before(beat.tick + n, rate, fps) for n in (0, 1))
        assert len(beat.sound_T) == after - here
    heard_T = one.heard()
    for said_T in said:
        start = int(np.flatnonzero(heard_T)[0])
        assert (heard_T[start : start + len(said_T)] == said_T).all()
        heard_T = heard_T[start + len(said_T) :]
    assert not heard_T.any()


@pytest.mark.parametrize("old_slices", [False, True])
def test_an_interrupt_fades_holds_and_blends_and_nothing_old_comes_after(old_slices: bool) -> None:
    said_T, next_T = sound(5 * RATE), sound(RATE, seed=2)

    async def script(one: Play) -> None:
        one.performer.speak("old", said_T)
        one.performer.speak("queued", next_T)
        await pause(2000)
        position = one.performer.interrupt()
        assert position == one.performer.positions["old"]
        assert position.was_interrupted
        assert position.played_samples == len(one.heard("old"))
        assert position.played_ms * 48 == position.played_samples
        one.performer.speak("old", said_T)  # a late sender
        one.performer.speak("new", next_T)
        one.performer.end("new")
        await one.performer.played("new")

    one = play(script, FakeSettings(old_slices=old_slices))
    assert one.kinds() == [
        ("speak_started", "old"),
        ("speak_interrupted", "old"),
        ("speak_interrupted", "queued"),
        ("speak_started", "new"),
        ("speak_ended", "new"),
    ]
    heard = len(one.heard("old"))
    assert (one.heard("old") == said_T[:heard]).all()
    last = max(beat.tick for beat in one.beats if beat.utterance == "old")
    after = one.beats[last + 1]
    assert after.is_held
    fade_T = after.sound_T[:720].astype(int)
    assert (fade_T <= said_T[heard : heard + 720]).all()
    assert fade_T[:300].any()
    assert not after.sound_T[719:].any()
    shown = [beat for beat in one.beats[last + 1 :] if not beat.is_held]
    assert all(beat.epoch == 1 for beat in one.beats[last + 1 :])
    assert [read(np.asarray(beat.picture_HWC)) for beat in shown][4].epoch == 1  # type: ignore[union-attr]  # a code that cannot be read fails here
    assert (one.heard("new")[:RATE] == next_T).all()
    assert one.degraded() == []
    num_held = sum(beat.is_held for beat in one.beats)
    assert num_held * 40 <= 120


def test_an_interrupt_twice_between_utterances_and_before_one() -> None:
    async def script(one: Play) -> None:
        performer = one.performer
        assert performer.interrupt().utterance is None
        performer.speak("early", sound(RATE))
        assert performer.interrupt().played_samples == 0
        assert performer.interrupt().utterance is None
        performer.speak("u", sound(RATE))
        performer.end("u")
        await performer.played("u")
        assert performer.interrupt().utterance is None
        assert performer.epoch == 1
        await pause(500)

    one = play(script)
    assert one.kinds() == [
        ("speak_interrupted", "early"),
        ("speak_started", "u"),
        ("speak_ended", "u"),
    ]
    assert (one.heard()[one.heard() != 0] == sound(RATE)).all()


def test_an_interrupt_up_to_an_utterance_leaves_those_behind_it() -> None:
    async def script(one: Play) -> None:
        for name in "abc":
            one.performer.speak(name, sound(2 * RATE, seed=ord(name)))
            one.performer.end(name)
        await pause(1500)
        assert one.performer.interrupt("b").utterance == "a"
        assert one.performer.interrupt("b").played_samples == 0
        await one.performer.played("c")

    one = play(script)
    assert [name for kind, name in one.kinds() if kind == "speak_interrupted"] == ["a", "b"]
    assert (one.heard("c") == sound(2 * RATE, seed=ord("c"))).all()


def test_a_late_model_makes_the_sound_wait_and_loses_nothing() -> None:
    said_T = sound(4 * RATE)

    async def script(one: Play) -> None:
        one.performer.speak("u", said_T)
        one.performer.end("u")
        await pause(1000)
        one.stream.stall(1500)
        await one.performer.played("u")
        await pause(1500)

    one = play(script)
    assert (one.heard("u") == said_T).all()
    spoken = [beat.tick for beat in one.beats if beat.utterance == "u"]
    assert max(np.diff(spoken)) * 40 > 900
    assert one.degraded() == [4, 0]
    assert not any(beat.is_held for beat in one.beats[spoken[-1] :])
    indices = [read(np.asarray(beat.picture_HWC)) for beat in one.beats if not beat.is_held]
    assert [code.index for code in indices if code] == list(range(len(indices)))
    assert min(one.stream.due_in_ms) < 0


@pytest.mark.parametrize("back_after_ms", [50, 700, 2500])
def test_a_model_that_dies_is_not_heard(back_after_ms: float) -> None:
    """Sound goes on without a gap; then the pictures of what was not played come."""
    said_T = beeps(RATE, 6.0, every_s=0.5)
    said_T[said_T == 0] = 3

    async def script(one: Play) -> None:
        await pause(400)
        one.performer.speak("u", said_T)
        one.performer.speak("v", said_T[:RATE])
        one.performer.end("u")
        one.performer.end("v")
        await pause(2000)
        await one.model.kill(back_after_ms=back_after_ms)
        await one.performer.played("v")
        await pause(1500)

    one = play(script)
    assert (one.heard("u") == said_T).all()
    assert (one.heard("v") == said_T[:RATE]).all()
    spoken = [beat for beat in one.beats if beat.utterance]
    assert [beat.tick for beat in spoken] == list(
        range(spoken[0].tick, spoken[0].tick + len(spoken))
    )
    assert [event.kind for event in one.events if event.kind in ("degraded", "restarted")] == [
        "degraded",
        "restarted",
        "degraded",
    ]
    held = [beat.tick for beat in one.beats if beat.is_held]
    assert len(held) * 40 <= back_after_ms + 700
    for beat in spoken:
        if not held or beat.tick > held[-1] + 4 or beat.tick < held[0]:
            is_loud = bool(np.abs(beat.sound_T.astype(int)).max() > 8000)
            assert is_flash(np.asarray(beat.picture_HWC)) == is_loud


def test_a_model_that_never_comes_back_fails_the_performance() -> None:
    async def script(one: Play) -> None:
        one.performer.speak("u", sound(3 * RATE))
        await pause(1000)
        one.stream.fail("worker_lost")
        assert (await one.performer.played("u")).was_interrupted
        one.performer.speak("u", sound(3))
        assert one.performer.is_closed
        assert await one.performer.subscribe().get() is None

    one = play(script)
    assert [(event.kind, event.why) for event in one.events][-1] == ("failed", "worker_lost")


def test_a_stall_of_the_process_is_caught_up_or_forgotten() -> None:
    async def script(one: Play) -> None:
        await pause(1000)
        leap(0.25)
        await pause(1000)
        assert one.performer.num_reanchors == 0
        leap(3.0)
        await pause(1000)
        assert one.performer.num_reanchors == 1

    one = play(script)
    assert [beat.tick for beat in one.beats] == list(range(len(one.beats)))
    assert len(one.beats) == pytest.approx(25 * 3.25, abs=2)


def test_too_much_speech_is_refused_and_nothing_of_it_kept() -> None:
    async def script(one: Play) -> None:
        minute_T = sound(60 * RATE)
        assert one.performer.room() == 60 * RATE
        one.performer.speak("u", minute_T)
        assert one.performer.room() == 0
        with pytest.raises(LedgerFull, match="60 s"):
            one.performer.speak("u", minute_T[:1])
        await pause(2000)
        assert one.performer.room() > RATE
        one.performer.speak("u", minute_T[:RATE])
        one.performer.end("u")
        with pytest.raises(UtteranceOver, match="'u'"):
            one.performer.speak("u", minute_T[:1])
        one.performer.interrupt()

    play(script)


def test_an_empty_utterance_is_over_in_its_turn() -> None:
    async def script(one: Play) -> None:
        one.performer.speak("u", sound(RATE))
        one.performer.end("empty")
        one.performer.end("u")
        assert (await one.performer.played("empty")).played_samples == 0
        with pytest.raises(KeyError):
            await one.performer.played("unknown")

    one = play(script)
    assert [kind for kind, _ in one.kinds()] == ["speak_started", "speak_ended"] * 2


def test_an_utterance_left_open_does_not_keep_the_next_one_waiting() -> None:
    async def script(one: Play) -> None:
        one.performer.speak("open", sound(RATE))
        one.performer.speak("next", sound(RATE, seed=2))
        one.performer.end("next")
        await one.performer.played("next")

    assert play(script).kinds()[1:3] == [("speak_ended", "open"), ("speak_started", "next")]


def test_a_listener_that_breaks_ends_the_performance() -> None:
    async def script(one: Play) -> None:
        one.performer._on_event = None
        one.performer.credit.came = None  # type: ignore[assignment, method-assign]  # broken on purpose
        queue = one.performer.subscribe()
        while await queue.get() is not None:
            pass
        assert one.performer.is_closed
        await asyncio.sleep(0)

    play(script)
