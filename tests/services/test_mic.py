"""A microphone cut into utterances, in virtual time: samples are the clock."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.mic import MIC_RATE, Heard, Microphone, MicSettings, Mirror

pytestmark = pytest.mark.unit


def hiss(ms: int) -> np.ndarray:
    noise = np.random.default_rng(ms).standard_normal(MIC_RATE * ms // 1000)
    return (20 * noise).astype(np.int16)


def speech(ms: int, level: int = 6000) -> np.ndarray:
    times = np.arange(MIC_RATE * ms // 1000) / MIC_RATE
    return (level * np.sin(2 * np.pi * 300 * times)).astype(np.int16)


def hear(microphone: Microphone, sound: np.ndarray, cut: int = 960) -> list[Heard]:
    return [
        piece
        for start in range(0, len(sound), cut)
        for piece in microphone.push(sound[start : start + cut])
    ]


def length_of(heard: list[Heard], name: str) -> int:
    return sum(len(piece.sound_T) for piece in heard if piece.utterance == name)


def test_speech_is_found_with_what_came_before_and_ends_after_silence() -> None:
    microphone = Microphone(MIC_RATE)
    heard = hear(microphone, np.concatenate([hiss(1000), speech(800), hiss(900)]))
    assert {piece.utterance for piece in heard} == {"mic-1"}
    assert [piece.is_last for piece in heard].count(True) == 1
    assert heard[-1].is_last
    sound = np.concatenate([piece.sound_T for piece in heard])
    begin = int(np.argmax(np.abs(sound) > 1000))
    assert abs(begin - MIC_RATE // 5) <= 480 + 20
    assert abs(len(sound) - MIC_RATE * 1500 // 1000) < MIC_RATE // 20
    assert not microphone.speaking


def test_speech_goes_out_while_it_is_spoken() -> None:
    microphone = Microphone(16000)
    hear(microphone, hiss(500))
    heard = hear(microphone, speech(300))
    assert length_of(heard, "mic-1") > 16000 * 0.3
    assert microphone.speaking


def test_two_sentences_are_two_utterances_and_a_breath_is_none() -> None:
    microphone = Microphone(16000, prefix="ada")
    parts = [hiss(400), speech(500), hiss(200), speech(500), hiss(800), speech(400), hiss(800)]
    heard = hear(microphone, np.concatenate(parts))
    assert [piece.utterance for piece in heard if piece.is_last] == ["ada-1", "ada-2"]


@settings(max_examples=12)
@given(cut=st.integers(40, 5000))
def test_the_cut_of_the_stream_changes_nothing(cut: int) -> None:
    sound = np.concatenate([hiss(300), speech(200), hiss(600)])
    whole = hear(Microphone(16000), sound, cut=len(sound))
    parts = hear(Microphone(16000), sound, cut=cut)
    first, second = (np.concatenate([p.sound_T for p in heard]) for heard in (whole, parts))
    # The resampler dithers, from cut to cut otherwise.
    assert len(first) == len(second)
    assert np.abs(first.astype(int) - second).max() <= 2


@pytest.mark.parametrize("rate", [16000, 24000, 48000])
def test_nothing_of_an_utterance_is_lost_in_resampling(rate: int) -> None:
    native, other = Microphone(MIC_RATE), Microphone(rate)
    sound = np.concatenate([hiss(300), speech(700), hiss(700)])
    length = length_of(hear(native, sound), "mic-1")
    assert abs(length_of(hear(other, sound), "mic-1") - length * rate / MIC_RATE) <= 1


def test_a_click_or_steady_noise_is_no_speech() -> None:
    click = hiss(400)
    click[9600:9800] = 20000
    assert not hear(Microphone(16000), click)
    assert not hear(Microphone(16000), np.tile(hiss(500) * 4, 8))


def test_one_who_never_pauses_is_cut_and_goes_on() -> None:
    microphone = Microphone(16000, settings=MicSettings(longest_ms=400))
    heard = hear(microphone, np.concatenate([hiss(300), speech(1100)]))
    assert [piece.utterance for piece in heard if piece.is_last][:2] == ["mic-1", "mic-2"]


def test_lost_packets_are_silence_and_repeated_ones_are_left_out() -> None:
    sound = np.concatenate([hiss(500), speech(600), hiss(900)])
    whole, holes = Microphone(MIC_RATE), Microphone(MIC_RATE)
    expected = hear(whole, sound)
    heard: list[Heard] = []
    for start in range(0, len(sound), 960):
        if start in (28800, 29760):
            continue
        heard += holes.push(sound[start : start + 960], start)
        heard += holes.push(sound[start : start + 960], start)
    assert length_of(heard, "mic-1") == length_of(expected, "mic-1")
    gap = np.concatenate([p.sound_T for p in heard]) == 0
    assert gap.sum() >= 1920


def test_a_new_count_of_the_far_end_is_no_hour_of_silence() -> None:
    microphone = Microphone(16000)
    microphone.push(hiss(20), 0)
    assert microphone.push(hiss(20), 1 << 31) == []
    assert microphone.push(hiss(20), 0) == []


class Listening:
    sample_rate = 16000

    def __init__(self) -> None:
        self.said: list[str] = []

    def speak(self, utterance: str, pcm_T: np.ndarray) -> None:
        assert pcm_T.dtype == np.int16
        assert len(pcm_T)
        self.said.append(f"{utterance} speaks")

    def end(self, utterance: str) -> None:
        self.said.append(f"{utterance} ends")


def test_the_performer_says_what_is_heard_and_a_visitor_who_leaves_ends_it() -> None:
    listener = Listening()
    mirror = Mirror(listener, Microphone(16000))
    for start in range(0, MIC_RATE // 2, 960):
        mirror.push(np.concatenate([hiss(300), speech(200)])[start : start + 960], start)
    mirror.close()
    mirror.close()
    assert listener.said[0] == "mic-1 speaks"
    assert listener.said.count("mic-1 ends") == 1
    assert listener.said[-1] == "mic-1 ends"


def test_what_the_performer_does_not_take_is_left_out_to_the_end_of_the_utterance() -> None:
    class Full(Listening):
        def speak(self, utterance: str, pcm_T: np.ndarray) -> None:
            if utterance == "mic-1":
                raise ValueError("too much waits")
            super().speak(utterance, pcm_T)

    listener = Full()
    mirror = Mirror(listener, Microphone(16000))
    sound = np.concatenate([hiss(300), speech(300), hiss(700), speech(300), hiss(700)])
    for start in range(0, len(sound), 960):
        mirror.push(sound[start : start + 960], start)
    assert listener.said[0] == "mic-1 ends"
    assert listener.said[1] == "mic-2 speaks"
    assert mirror.num_lost > 16000 * 0.4


@pytest.mark.parametrize("bad", [{"silence_ms": 0}, {"preroll_ms": -1}])
def test_settings_that_cut_nothing_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        MicSettings(**bad)
