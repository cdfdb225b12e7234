"""Whatever is interrupted, lost and held up: what is heard is what was said, once, in order."""

import asyncio
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.ledger import UtteranceOver
from tests.support.fake_model import FakeSettings
from tests.support.flash_picture import Sound
from tests.support.stage_play import Play, pause, play, sound
from tests.support.virtual_time import leap

pytestmark = pytest.mark.unit

RATE = 16_000
names = st.sampled_from("abcd")
acts = st.one_of(
    st.tuples(st.just("speak"), names, st.integers(0, 2 * RATE)),
    st.tuples(st.just("end"), names),
    st.tuples(st.just("interrupt")),
    st.tuples(st.just("interrupt up to"), names),
    st.tuples(st.just("kill"), st.integers(0, 1500)),
    st.tuples(st.just("stall"), st.integers(0, 900)),
    st.tuples(st.just("rung"), st.integers(0, 4)),
    st.tuples(st.just("leap"), st.integers(0, 800)),
    st.tuples(st.just("pause"), st.integers(0, 1500)),
)


def speak(one: Play, said: dict[str, list[Sound]], name: str, size: int) -> None:
    """Say something, and remember what was accepted."""
    pcm_T = sound(size, seed=len(said.setdefault(name, [])) + ord(name))
    before = one.performer.num_unheard
    try:
        one.performer.speak(name, pcm_T)
    except UtteranceOver:
        return
    if one.performer.num_unheard == before:
        said[name].append(pcm_T)


def act(one: Play, said: dict[str, list[Sound]], what: tuple[object, ...]) -> None:
    """Do one thing; what takes time is done by the caller."""
    match what:
        case ("speak", str(name), int(size)):
            speak(one, said, name, size)
        case ("end", str(name)):
            one.performer.end(name)
        case ("interrupt",):
            position = one.performer.interrupt()
            if position.utterance is not None:
                assert position.played_samples <= position.num_samples
        case ("interrupt up to", str(name)):
            one.performer.interrupt(name)
        case ("stall", int(ms)):
            one.stream.stall(ms)
        case ("rung", int(level)):
            one.stream.degrade(level, "so it is")
        case ("leap", int(ms)):
            leap(ms / 1000)


@given(
    script=st.lists(acts, max_size=14),
    fps=st.sampled_from([Fraction(25), Fraction(30000, 1001)]),
    work_ms=st.sampled_from([10, 300]),
    old_slices=st.booleans(),
)
@settings(max_examples=200)
def test_what_is_heard_is_what_was_said(
    script: list[tuple[object, ...]], fps: Fraction, work_ms: float, old_slices: bool
) -> None:
    said: dict[str, list[Sound]] = {}

    async def run(one: Play) -> None:
        killings: list[asyncio.Task[None]] = []
        for what in script:
            act(one, said, what)
            if what[0] == "kill" and not any(not each.done() for each in killings):
                back_after_ms = float(str(what[1]))
                kill = one.model.kill(back_after_ms=back_after_ms)
                killings.append(asyncio.create_task(kill))
            await pause(float(str(what[1])) if what[0] == "pause" else 1)
        await asyncio.gather(*killings)
        for name in said:
            one.performer.end(name)
        one.stream.degrade(0, "")
        async with asyncio.timeout(45):
            for name in one.performer.positions:
                await one.performer.played(name)
        stalled_ms = sum(float(str(what[1])) for what in script if what[0] == "stall")
        await pause(1500 + stalled_ms)

    options = FakeSettings(fps=fps, work_ms=work_ms, old_slices=old_slices, width=32, height=32)
    one = play(run, options, rate=RATE)
    check_sound(one, said)
    check_events(one)
    assert [beat.tick for beat in one.beats] == list(range(len(one.beats)))
    epochs = [beat.epoch for beat in one.beats]
    assert epochs == sorted(epochs)
    assert not one.beats[-1].is_held


def check_sound(one: Play, said: dict[str, list[Sound]]) -> None:
    """Each utterance was heard from its beginning on, to its position, and nothing else was."""
    none_T = np.zeros(0, np.int16)
    for name, position in one.performer.positions.items():
        said_T = np.concatenate([none_T, *said.get(name, [])])
        assert position.is_over
        assert position.num_samples == len(said_T)
        assert position.was_interrupted or position.played_samples == len(said_T)
        heard_T = one.heard(name)
        heard_T = heard_T[heard_T != 0]
        missing = position.played_samples - len(heard_T)
        assert 0 <= missing <= 2 * (one.performer.fps.denominator > 1)
        assert (heard_T[: position.played_samples] == said_T[: len(heard_T)]).all()


def check_events(one: Play) -> None:
    """Every utterance has one end, and a beginning before it if anything of it was heard."""
    for name, position in one.performer.positions.items():
        kinds = [kind for kind, which in one.kinds() if which == name]
        end = "speak_interrupted" if position.was_interrupted else "speak_ended"
        began = bool(position.played_samples) or not position.was_interrupted
        assert kinds[-1] == end
        assert kinds[:-1] in ([["speak_started"]] if began else [[], ["speak_started"]])
        last = [event for event in one.events if event.utterance == name][-1]
        assert last.position_samples == position.played_samples
