"""Flite's voices: phone times that fit the sound, mouths that close, voices kept apart."""

from pathlib import Path

import numpy as np
import pytest

from training import flite
from training.arpabet import PAUSE, mnemonic
from training.corpus import build, speak
from training.espeak import SAMPLE_RATE, SpeechError, Utterance, is_available
from training.texts import is_held_out
from training.visemes import OPEN, PRESS, letters
from training.voices import draw_voice

pytestmark = pytest.mark.unit

needs_flite = pytest.mark.skipif(
    not flite.is_available(), reason="flite is absent; install the Debian package flite"
)
needs_espeak = pytest.mark.skipif(
    not is_available(), reason="libespeak-ng is absent; install libespeak-ng1 and espeak-ng-data"
)
TEXT = "My puppy began to move, but papa kept a big cat on top of the boat."
OPEN_VOWELS = {"A:", "a", "V", "O:", "E", "aI", "aU"}


def spans(spoken: Utterance) -> list[tuple[float, float, str]]:
    onsets = [onset for onset, _ in spoken.phonemes]
    ends = [*onsets[1:], spoken.duration_s]
    names = [name for _, name in spoken.phonemes]
    return list(zip(onsets, ends, names, strict=True))


def power(spoken: Utterance, start_s: float, end_s: float) -> float:
    part = spoken.samples_T[round(max(start_s, 0.0) * SAMPLE_RATE) : round(end_s * SAMPLE_RATE)]
    return float(np.mean(np.square(part, dtype=np.float64)))


def contrast_db(spoken: Utterance, shift_s: float) -> float:
    """How much louder open vowels are than the closures of p, t and k, all moved in time."""
    vowels, closures = [], []
    for start, end, name in spans(spoken):
        if name in OPEN_VOWELS:
            vowels.append(power(spoken, start + shift_s, end + shift_s))
        if name in {"p", "t", "k"}:
            held = (start + 0.2 * (end - start) + shift_s, start + 0.7 * (end - start) + shift_s)
            closures.append(power(spoken, *held))
    return float(10.0 * np.log10(np.median(vowels) / np.median(closures)))


@needs_flite
@pytest.mark.parametrize("voice", flite.VOICES)
@pytest.mark.parametrize("stretch", [0.8, 1.3])
def test_vowels_sound_and_closures_do_not_where_the_phones_say_so(
    voice: str, stretch: float
) -> None:
    spoken = flite.synthesize(TEXT, voice, stretch=stretch)
    shifts_ms = range(-80, 81, 20)
    contrasts = [contrast_db(spoken, shift / 1000) for shift in shifts_ms]
    assert contrasts[shifts_ms.index(0)] > 17.0
    assert abs(shifts_ms[int(np.argmax(contrasts))]) <= 20


@needs_flite
@pytest.mark.parametrize("voice", flite.VOICES)
def test_pauses_are_silent(voice: str) -> None:
    spoken = flite.synthesize(TEXT, voice)
    pauses = [part for part in spans(spoken) if part[2] == PAUSE]
    assert len(pauses) >= 3  # before, within and after
    sound = power(spoken, 0.0, spoken.duration_s)
    for start, end, _ in pauses:
        middle = (start + 0.4 * (end - start), start + 0.8 * (end - start))
        assert power(spoken, *middle) < 0.01 * sound


@needs_flite
def test_speed_and_pitch_are_what_was_asked_for() -> None:
    own, slow = (flite.synthesize(TEXT, "slt", stretch=factor) for factor in (1.0, 1.3))
    assert slow.duration_s == pytest.approx(1.3 * own.duration_s, rel=0.05)
    low, high = (flite.synthesize("Oh.", "slt", pitch_hz=pitch) for pitch in (120.0, 240.0))
    periods = [int(np.argmax(autocorrelation(spoken)[50:200])) + 50 for spoken in (low, high)]
    assert periods[0] > 1.5 * periods[1]


def autocorrelation(spoken: Utterance) -> np.ndarray:
    loudest = int(np.argmax(np.abs(spoken.samples_T)))
    part = spoken.samples_T[max(loudest - 800, 0) : loudest + 800].astype(np.float64)
    return np.asarray(np.correlate(part, part, "full")[len(part) - 1 :])


@needs_flite
@pytest.mark.parametrize(
    ("text", "voice", "stretch", "complaint"),
    [
        ("Hello.", "hal", 1.0, "'hal'.*awb, kal"),
        ("", "slt", 1.0, "no sound"),
        ("Hello.", "slt", 9.0, "0.5 to 2"),
    ],
)
def test_what_flite_cannot_say_is_refused(
    text: str, voice: str, stretch: float, complaint: str
) -> None:
    with pytest.raises(SpeechError, match=complaint):
        flite.synthesize(text, voice, stretch=stretch)


def test_without_the_program_the_package_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    flite._program.cache_clear()
    assert not flite.is_available()
    with pytest.raises(SpeechError, match="Debian package flite"):
        flite.synthesize("Hello.", "slt")
    with pytest.raises(SpeechError, match="--flite-share 0"):
        build(tmp_path / "corpus", count=1, seed=0, flite_share=0.5)
    flite._program.cache_clear()


@needs_flite
def test_a_flite_utterance_has_closed_lips_at_every_closure() -> None:
    closures = 0
    for seed in range(4):
        spoken = speak(np.random.default_rng(seed), flite_share=1.0)
        assert spoken.voice.startswith("flite/")
        assert spoken.samples_T.size == 160 * spoken.visemes_VT.shape[1]
        ends = [onset for onset, _ in spoken.phonemes[1:]] + [spoken.samples_T.size / SAMPLE_RATE]
        for (onset_s, name), end_s in zip(spoken.phonemes, ends, strict=True):
            if name in ("p", "b", "m"):
                middle = round(100 * ((onset_s + end_s) / 2 - 0.03))
                assert spoken.visemes_VT[OPEN, middle] < 0.02
                assert spoken.visemes_VT[PRESS, middle] > 0.97
                closures += 1
    assert closures > 10


@needs_flite
def test_the_held_out_voice_speaks_held_out_sentences_only() -> None:
    trained, held = (
        [speak(np.random.default_rng(seed), split, flite_share=1.0) for seed in range(5)]
        for split in ("train", "validation")
    )
    assert {spoken.voice for spoken in held} == {f"flite/{flite.HELD_OUT_VOICE}"}
    assert f"flite/{flite.HELD_OUT_VOICE}" not in {spoken.voice for spoken in trained}
    assert all(is_held_out(text) for spoken in held for text in spoken.texts)
    assert not any(is_held_out(text) for spoken in trained for text in spoken.texts)


def test_the_share_of_flite_is_the_share_asked_for() -> None:
    rng = np.random.default_rng(0)
    names = [draw_voice(rng, "train", 0.25).name for _ in range(2000)]
    share = np.mean([name.startswith("flite/") for name in names])
    assert share == pytest.approx(0.25, abs=0.03)
    assert {name for name in names if name.startswith("flite/")} == {
        f"flite/{voice}" for voice in flite.VOICES if voice != flite.HELD_OUT_VOICE
    }


def test_every_phone_has_a_mouth_and_no_other_name_has() -> None:
    phones = (
        "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH "
        "UW V W Y Z ZH SIL"
    )
    for phone in phones.split():
        assert letters(mnemonic(phone))
        assert mnemonic(phone) == mnemonic(phone.lower())
    assert mnemonic("AH0") == "V"
    with pytest.raises(ValueError, match="'xx'"):
        mnemonic("xx")
