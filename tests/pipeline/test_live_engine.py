"""The live engine in virtual time: order, interrupts, isolation, lateness, states."""

import threading

import numpy as np
import pytest
from viva.v1.messages import (
    AnyMessage,
    CloseSession,
    ExportState,
    Hello,
    ImportState,
    Interrupt,
    ModelReady,
    OpenSession,
    Ping,
    Pong,
    SessionClosed,
    SessionFailed,
    SessionOpened,
    SessionState,
    SliceMade,
    StageTrace,
)

from pipeline.live_timeline import TimelineSettings
from tests.support.live_viewer import FRAME, RATE, Viewer, contents, tone

pytestmark = pytest.mark.stream


def opened(*names: str, **options: object) -> Viewer:
    """A viewer that plays sessions of these names from tick 10 on."""
    viewer = Viewer(**options)  # type: ignore[arg-type]  # the viewer's own
    for name in names or ("a",):
        viewer.open(name, seed=ord(name))
        viewer.start(name)
    return viewer


def spoken(viewer: Viewer, name: str = "a") -> list[SliceMade]:
    return [one for one in viewer.slices(name) if one.utterance]


def require_gapless(viewer: Viewer, name: str = "a") -> None:
    slices = viewer.slices(name)
    assert [one.index for one in slices] == list(range(len(slices)))


def waited_s(viewer: Viewer, tick: int) -> float:
    """How long after the tick the first spoken slice is played."""
    return viewer.zero_s["a"] + spoken(viewer)[0].index * 0.04 - tick * 0.04


def test_slices_go_on_without_gaps_as_long_as_they_are_wanted_and_no_further() -> None:
    viewer = Viewer()
    viewer.open("a")
    viewer.run(20)
    assert viewer.slices("a") == []
    viewer.start("a")
    viewer.run(120)
    require_gapless(viewer)
    slices = viewer.slices("a")
    assert all(not one.utterance and not any(one.pcm) for one in slices)
    shown = round((viewer.clock.now_s - viewer.zero_s["a"]) / 0.04)
    assert shown <= len(slices) <= shown + viewer.ahead
    viewer.zero_s.clear()
    viewer.run(200)
    assert len(viewer.slices("a")) <= shown + viewer.ahead


def test_speech_that_comes_as_it_is_spoken_is_heard_whole_and_soon() -> None:
    viewer = opened()
    sound_T = tone(100 * FRAME)
    viewer.speak_live("a", "u", sound_T, tick=31)
    viewer.run(180)
    assert np.array_equal(viewer.sound("a", "u"), sound_T)
    said = spoken(viewer)
    # No pause within: the indexes follow each other.
    assert [one.index for one in said] == list(range(said[0].index, said[0].index + 100))
    assert [one.last_of_utterance for one in said] == [False] * 99 + [True]
    assert viewer.rungs("a") == []


@pytest.mark.parametrize("cost_s", [0.1, 0.25, 0.35])
def test_where_in_a_chunk_speech_begins_makes_no_difference_to_its_latency(cost_s: float) -> None:
    waits = []
    for start in range(30, 43, 3):
        viewer = opened(cost_s=cost_s)
        viewer.speak_live("a", "u", tone(60 * FRAME), tick=start)
        viewer.run(start + 90)
        assert np.array_equal(viewer.sound("a", "u"), tone(60 * FRAME))
        assert len(spoken(viewer)) == 60
        waits.append(waited_s(viewer, start))
    # A chunk's sound, the look-ahead, a chunk's making, and what waits in reserve.
    expected_s = 0.48 + 0.12 + 1.15 * cost_s + 0.05 + 0.06
    assert expected_s - 0.1 <= min(waits)
    assert max(waits) <= expected_s + 0.09


def test_a_whole_sentence_at_once_begins_with_the_next_chunk() -> None:
    for start in range(30, 43):
        viewer = opened()
        viewer.say("a", "u", tone(20 * FRAME + 7), tick=start)
        viewer.run(start + 60)
        said = spoken(viewer)
        assert len(said) == 21
        assert said[-1].last_of_utterance
        assert np.array_equal(viewer.sound("a", "u")[: 20 * FRAME + 7], tone(20 * FRAME + 7))
        assert 0.12 < waited_s(viewer, start) < 0.48 + 0.12 + 0.28 + 0.08


@pytest.mark.parametrize("held", [0, 1, 3])
@pytest.mark.parametrize("at", range(45, 58, 4))
def test_nothing_of_an_interrupted_utterance_comes_afterwards(held: int, at: int) -> None:
    viewer = opened(cost_s=0.1, held=held)
    viewer.say("a", "old", tone(200 * FRAME, level=9000), tick=30)
    before: list[int] = []
    viewer.at(at, lambda: before.append(len(viewer.slices("a"))))
    viewer.at(at, lambda: viewer.engine.post(Interrupt(session="a", epoch=1)))
    viewer.say("a", "stale", tone(50 * FRAME), tick=at)
    viewer.say("a", "new", tone(30 * FRAME), tick=at + 30, epoch=1)
    viewer.run(at + 130)
    require_gapless(viewer)
    slices = viewer.slices("a")
    after = slices[before[0] :]
    assert {one.utterance for one in slices[: before[0]]} >= {"old"}
    assert {one.utterance for one in after} == {"", "new"}
    assert {one.epoch for one in after} == {1}
    assert all(not any(one.pcm) for one in after if not one.utterance)
    # The picture's lower rows show how loud the sound was that it was made from.
    assert all(one.rgb[-1] == 0 for one in after if not one.utterance)
    assert np.array_equal(viewer.sound("a", "new"), tone(30 * FRAME))


def test_each_session_gets_what_it_would_get_alone() -> None:
    names = ["a", "b", "c"]

    def viewed(*shown: str) -> Viewer:
        viewer = opened(*shown, cost_s=0.1)
        for name in shown:
            sound_T = tone(40 * FRAME + ord(name), level=1000 * (ord(name) - 96))
            viewer.speak(name, "u", sound_T)
            viewer.end(name, "u")
        viewer.run(120)
        return viewer

    together = viewed(*names)
    for name in names:
        alone, shared = contents(viewed(name).slices(name)), contents(together.slices(name))
        both = alone.keys() & shared.keys()
        assert len(both) > 110
        assert all(alone[index] == shared[index] for index in both)
        assert together.rungs(name) == []


def test_speech_of_several_sessions_at_once_comes_without_pauses() -> None:
    viewer = opened("a", "b", "c", cost_s=0.1)
    for number, name in enumerate("abc"):
        viewer.speak_live(name, "u", tone(100 * FRAME, level=1000 * number), tick=40 + 5 * number)
    viewer.run(240)
    for number, name in enumerate("abc"):
        assert np.array_equal(viewer.sound(name, "u"), tone(100 * FRAME, level=1000 * number))
        assert len(spoken(viewer, name)) == 100
        indexes = [one.index for one in spoken(viewer, name)]
        assert indexes == list(range(indexes[0], indexes[0] + 100))
        assert viewer.rungs(name) == []


def test_sessions_take_turns_when_there_is_too_much_to_do() -> None:
    viewer = opened("a", "b", "c", cost_s=0.3)
    viewer.run(300)
    made = [face.num_chunks for face in viewer.faces.opened]
    assert max(made) - min(made) <= 3
    for name in "abc":
        require_gapless(viewer, name)


def test_a_session_that_fails_takes_nobody_with_it() -> None:
    viewer = opened("a", "b")
    viewer.run(40)
    viewer.faces.broken.add("a")
    viewer.run(120)
    failed = [one for one in viewer.said if isinstance(one, SessionFailed)]
    assert [(one.session, one.reason, one.detail) for one in failed] == [
        ("a", "failed", "the model broke")
    ]
    assert viewer.faces.opened[0].is_closed
    assert len(viewer.slices("b")) > 105


def test_a_session_that_is_late_climbs_down_and_up_again() -> None:
    viewer = opened(cost_s=0.4)
    viewer.run(80)
    assert viewer.rungs("a") == []
    viewer.faces.cost_s = 0.8
    viewer.run(200)
    assert viewer.rungs("a")[:1] == [1]
    require_gapless(viewer)
    viewer.faces.cost_s = 0.1
    viewer.run(1600)
    assert viewer.rungs("a")[-1] == 0


def test_a_hopeless_session_holds_its_picture_and_keeps_its_sound() -> None:
    viewer = opened(cost_s=0.1)
    sound_T = tone(300 * FRAME)
    viewer.say("a", "u", sound_T, tick=30)
    viewer.at(31, lambda: setattr(viewer.faces, "cost_s", 2.0))
    viewer.run(400)
    assert 4 in viewer.rungs("a")
    assert np.array_equal(viewer.sound("a", "u"), sound_T)
    require_gapless(viewer)


def test_sessions_are_opened_refused_and_closed_by_name() -> None:
    viewer = Viewer(sessions=2)
    for name in ("a", "b", "c", "a"):
        viewer.open(name)
    viewer.open("d", portrait=b"bad")
    viewer.settle()
    assert [type(one) for one in viewer.said] == [SessionOpened] * 2 + [SessionFailed] * 3
    reasons = [one.reason for one in viewer.said if isinstance(one, SessionFailed)]
    assert reasons == ["capacity", "session", "capacity"]
    viewer.engine.post(CloseSession(session="a"))
    viewer.engine.post(CloseSession(session="a"))
    viewer.open("d", portrait=b"bad")
    viewer.open("c")
    viewer.settle()
    assert [type(one) for one in viewer.said[5:]] == [
        SessionClosed,
        SessionClosed,
        SessionFailed,
        SessionOpened,
    ]
    refused = viewer.said[7]
    assert isinstance(refused, SessionFailed)
    assert refused.reason == "portrait"


def test_it_says_what_it_is_and_that_it_lives() -> None:
    viewer = Viewer(sessions=3)
    viewer.engine.post(Hello())
    viewer.engine.post(Ping(nonce=7))
    viewer.settle()
    ready, pong = viewer.said
    assert isinstance(ready, ModelReady)
    assert (ready.model, ready.capacity, ready.chunk_frames) == ("fake", 3, 12)
    assert pong == Pong(nonce=7)


def test_every_chunk_leaves_a_trace_of_its_stages() -> None:
    viewer = opened()
    viewer.run(60)
    traces = [one for one in viewer.said if isinstance(one, StageTrace)]
    assert [one.chunk for one in traces] == list(range(len(traces)))
    assert len(traces) == viewer.faces.opened[0].num_chunks
    assert all(abs(one.ended_ms - one.began_ms - 200) < 1e-6 for one in traces)


@pytest.mark.parametrize("held", [0, 2])
@pytest.mark.parametrize("at", [38, 47, 55])
def test_a_session_goes_on_in_another_engine_as_if_nothing_had_happened(at: int, held: int) -> None:
    def speaking() -> Viewer:
        viewer = opened(cost_s=0.1, held=held)
        viewer.say("a", "u", tone(50 * FRAME + 3), tick=30)
        return viewer

    whole, first = speaking(), speaking()
    whole.run(130)
    first.at(at, lambda: first.engine.post(ExportState(session="a")))
    first.run(at + 20)
    (state,) = (one for one in first.said if isinstance(one, SessionState))
    got = [one for one in first.said[: first.said.index(state)] if isinstance(one, SliceMade)]
    second = Viewer(cost_s=0.1, held=held)
    second.open("a", seed=ord("a"))
    second.engine.post(ImportState(session="a", state=state.state))
    second.settle()
    second.said += got
    second.clock.now_s, second.clock.num_ticks = at * 0.04, at + 1
    second.zero_s["a"] = first.zero_s["a"]
    second.run(130)
    made, expected = contents(second.slices("a")), contents(whole.slices("a"))
    assert len(made.keys() & expected.keys()) > 115
    assert all(made[index] == expected[index] for index in made.keys() & expected.keys())


@pytest.mark.parametrize("state", [b"", b"\x80", b"x" * 100, b"\x81\xa6format\x02"])
def test_a_damaged_state_ends_the_session_with_one_line(state: bytes) -> None:
    viewer = Viewer()
    viewer.open("a")
    viewer.engine.post(ImportState(session="a", state=state))
    viewer.settle()
    failed = viewer.said[-1]
    assert isinstance(failed, SessionFailed)
    assert failed.reason == "state"
    assert "\n" not in failed.detail


def test_a_thread_of_its_own_works_and_ends() -> None:
    viewer = Viewer()
    said, answered = viewer.said, threading.Event()

    def heard(message: AnyMessage) -> None:
        said.append(message)
        answered.set()

    viewer.engine._on_message = heard
    viewer.engine.start()
    viewer.engine.post(Ping(nonce=1))
    assert answered.wait(10)
    viewer.engine.close()
    assert said == [Pong(nonce=1)]
    assert not [one for one in threading.enumerate() if one.name == "live-engine"]


def test_too_much_sound_ends_the_session() -> None:
    viewer = Viewer(timeline=TimelineSettings(max_queued_s=2))
    viewer.open("a")
    viewer.speak("a", "u", tone(RATE))
    viewer.speak("a", "u", tone(RATE + 1))
    viewer.settle()
    failed = viewer.said[-1]
    assert isinstance(failed, SessionFailed)
    assert failed.reason == "too_much_sound"
    assert isinstance(viewer.said[0], SessionOpened)
    viewer.engine.post(OpenSession(session="a", portrait=b"x", seed=0, sample_rate=RATE))
    viewer.settle()
    assert isinstance(viewer.said[-1], SessionOpened)
