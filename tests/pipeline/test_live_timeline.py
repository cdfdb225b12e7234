"""What a live session hears: nothing lost, nothing doubled, one utterance after the other."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.live_timeline import FrameSound, Timeline, TimelineFull, TimelineSettings

pytestmark = pytest.mark.unit

RATE, FRAME = 48_000, 1920


def timeline(**options: int) -> Timeline:
    return Timeline(frame_samples=FRAME, sample_rate=RATE, settings=TimelineSettings(**options))


def sound(num_frames: float, first: int = 1) -> np.ndarray:
    """Samples that are all different and none of them silent."""
    count = round(num_frames * FRAME)
    return (1 + (first + np.arange(count)) % 30_000).astype(np.int16)


def names(frames: list[FrameSound]) -> str:
    """A letter a frame, a dot for silence."""
    return "".join(frame.utterance or "." for frame in frames)


def heard(frames: list[FrameSound], name: str) -> np.ndarray:
    parts = [frame.samples_T for frame in frames if frame.utterance == name]
    return np.concatenate([*parts, np.zeros(0, np.int16)])


def test_silence_is_what_is_heard_when_nothing_is_said() -> None:
    frames = timeline().take(3)
    assert names(frames) == "..."
    assert all(len(frame.samples_T) == FRAME and not frame.samples_T.any() for frame in frames)


def test_an_utterance_begins_so_that_it_lasts_through_the_chunk() -> None:
    line = timeline(reserve_ms=60)
    line.speak("a", 0, sound(7))
    # Seven frames wait, one and a half are kept in reserve.
    assert names(line.take(12)) == ".......aaaaa"
    assert line.num_samples == 2 * FRAME


def test_lateness_is_kept_in_reserve_as_well() -> None:
    line = timeline(reserve_ms=60)
    line.speak("a", 0, sound(7))
    assert names(line.take(12, extra_ms=80)) == ".........aaa"


def test_too_little_sound_waits_unless_its_end_is_known() -> None:
    line = timeline(first_ms=100)
    line.speak("a", 0, sound(2))
    assert names(line.take(12)) == "." * 12
    line.end("a", 0)
    frames = line.take(4)
    assert names(frames) == "aa.."
    assert [frame.ends_utterance for frame in frames] == [False, True, False, False]


def test_an_end_within_a_frame_is_filled_with_silence() -> None:
    line = timeline()
    said_T = sound(1.25)
    line.speak("a", 0, said_T)
    line.end("a", 0)
    frames = line.take(3)
    assert names(frames) == "aa."
    assert np.array_equal(heard(frames, "a")[: len(said_T)], said_T)
    assert not heard(frames, "a")[len(said_T) :].any()


def test_an_utterance_that_runs_dry_pauses_until_enough_is_there() -> None:
    line = timeline(reserve_ms=0, first_ms=0, resume_ms=200)
    line.speak("a", 0, sound(3.5))
    assert names(line.take(3)) == "aaa"
    assert names(line.take(3)) == "..."
    line.speak("a", 0, sound(4))
    assert names(line.take(2)) == ".."
    line.speak("a", 0, sound(1))
    assert names(line.take(8)) == "...aaaaa"
    line.end("a", 0)
    frames = line.take(3)
    assert names(frames) == "a.."
    assert frames[0].ends_utterance


def test_an_end_that_comes_after_all_was_heard_is_a_frame_of_its_own() -> None:
    line = timeline(reserve_ms=0, first_ms=0)
    line.speak("a", 0, sound(2))
    assert names(line.take(2)) == "aa"
    line.end("a", 0)
    (frame,) = line.take(1)
    assert (frame.utterance, frame.ends_utterance) == ("a", True)
    assert not frame.samples_T.any()


def test_the_next_utterance_ends_the_one_before_and_follows_it() -> None:
    line = timeline(reserve_ms=0)
    line.speak("a", 0, sound(2))
    line.speak("b", 0, sound(3))
    line.end("b", 0)
    assert names(line.take(6)) == "aabbb."


def test_an_interrupt_drops_what_is_older_and_refuses_what_comes_of_it_later() -> None:
    line = timeline()
    line.speak("a", 0, sound(20))
    assert names(line.take(3)) == "aaa"
    line.interrupt(2)
    line.speak("a", 1, sound(20))
    line.end("a", 1)
    assert names(line.take(3)) == "..."
    line.speak("b", 2, sound(2))
    line.end("b", 2)
    frames = line.take(3)
    assert names(frames) == "bb."
    assert {frame.epoch for frame in frames} == {2}


def test_sound_of_a_later_epoch_interrupts() -> None:
    line = timeline()
    line.speak("a", 0, sound(20))
    line.speak("b", 1, sound(1))
    line.end("b", 1)
    assert names(line.take(2)) == "b."


def test_more_sound_than_is_kept_is_refused_whole() -> None:
    line = timeline(max_queued_s=1)
    line.speak("a", 0, sound(20))
    with pytest.raises(TimelineFull, match="more than 1 s"):
        line.speak("a", 0, sound(6))
    assert line.num_samples == 20 * FRAME


@pytest.mark.parametrize("options", [{"reserve_ms": -1}, {"first_ms": 70_000}, {"max_queued_s": 0}])
def test_times_that_are_none_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        TimelineSettings(**options)


@settings(max_examples=60, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 3 * FRAME), min_size=1, max_size=12),
    takes=st.lists(st.integers(1, 12), min_size=1, max_size=12),
)
def test_however_sound_comes_it_is_heard_once_and_in_order(
    cuts: list[int], takes: list[int]
) -> None:
    line, frames, at = timeline(), [], 0
    whole_T = sound(sum(cuts) / FRAME)
    for index, count in enumerate(cuts):
        line.speak("a", 0, whole_T[at : at + count])
        at += count
        frames += line.take(takes[index % len(takes)])
    line.end("a", 0)
    frames += line.take(sum(cuts) // FRAME + 2)
    heard_T = heard(frames, "a")
    assert np.array_equal(heard_T[: len(whole_T)], whole_T)
    assert not heard_T[len(whole_T) :].any()
    assert sum(frame.ends_utterance for frame in frames) == 1
    assert not line.queue
