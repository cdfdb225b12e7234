"""Mouth tracks: closures close, lips lead, silence is shut, every mnemonic has a mouth."""

import numpy as np
import pytest

from training.visemes import (
    OPEN,
    PRESS,
    ROUND,
    TONGUE,
    TUCK,
    VISEMES,
    VISUAL_LEAD_S,
    WIDE,
    letters,
    loudness,
    viseme_track,
)

pytestmark = pytest.mark.unit


def syllables(*mnemonics: str, each_s: float = 0.12) -> tuple[list[tuple[float, str]], float]:
    """A pause, the mnemonics at even spacing, a pause; and the whole length."""
    names = ["_:", *mnemonics, "_:"]
    return [(each_s * index, name) for index, name in enumerate(names)], each_s * len(names)


@pytest.mark.parametrize("consonant", ["p", "b", "m"])
@pytest.mark.parametrize("each_s", [0.03, 0.06, 0.12])
def test_a_closure_shuts_the_lips_in_every_phase_of_25_fps(consonant: str, each_s: float) -> None:
    phonemes, length_s = syllables("a", "a", consonant, "a", "a", each_s=each_s)
    track_VT = viseme_track(phonemes, length_s)
    middle = round((each_s * 3.5 - VISUAL_LEAD_S) * 100)
    around_VT = track_VT[:, middle - 6 : middle + 7]
    shut_T = (around_VT[PRESS] > 0.97) & (around_VT[OPEN] < 0.02)
    # Four frames of 10 ms in a row: video at 25 fps meets one whatever its phase.
    runs = "".join("#" if shut else "." for shut in shut_T).split(".")
    assert max(map(len, runs)) >= 4
    assert track_VT[OPEN].max() > 0.3


def test_without_a_closure_the_lips_stay_apart() -> None:
    phonemes, length_s = syllables("a", "a", "k", "a", "a")
    track_VT = viseme_track(phonemes, length_s)
    assert track_VT[PRESS].max() == 0.0
    assert track_VT[OPEN, 30:45].min() > 0.2


def test_lips_lead_the_sound_by_30_ms() -> None:
    track_VT = viseme_track([(0.0, "_:"), (1.0, "a"), (1.5, "_:")], 2.0)
    rises_at = int(np.argmax(track_VT[OPEN] > 0.5)) / 100
    assert rises_at == pytest.approx(1.0 - VISUAL_LEAD_S, abs=0.011)


def test_silence_is_a_closed_mouth() -> None:
    assert viseme_track([(0.0, "_:")], 1.0).max() == 0.0
    assert viseme_track([], 1.0).shape == (len(VISEMES), 100)
    phonemes, length_s = syllables("m", "a", "S", "u", "f", "i", each_s=0.3)
    track_VT = viseme_track(phonemes, length_s)
    assert track_VT[:, -8:].max() < 0.01


@pytest.mark.parametrize(
    ("mnemonic", "row", "other"),
    [
        ("u:", ROUND, WIDE),
        ("i:", WIDE, ROUND),
        ("a", OPEN, ROUND),
        ("f", TUCK, PRESS),
        ("T", TONGUE, TUCK),
    ],
)
def test_a_long_sound_shows_its_own_shape(mnemonic: str, row: int, other: int) -> None:
    phonemes, length_s = syllables(mnemonic, each_s=0.4)
    at_VT = viseme_track(phonemes, length_s)[:, 57]
    assert at_VT[row] > 0.85
    assert at_VT[other] < 0.5


def test_a_diphthong_moves_from_its_first_half_to_its_second() -> None:
    track_VT = viseme_track([(0.0, "aU"), (0.4, "_:")], 0.6)
    assert track_VT[OPEN, 8] > track_VT[OPEN, 28] + 0.3
    assert track_VT[ROUND, 28] > track_VT[ROUND, 8] + 0.4


def test_a_consonant_keeps_the_rounding_of_its_vowels() -> None:
    phonemes, length_s = syllables("u", "t", "u")
    assert viseme_track(phonemes, length_s)[ROUND, 25] > 0.9


def test_quiet_speech_opens_less() -> None:
    phonemes, length_s = syllables("a", "a", each_s=0.2)
    loud = viseme_track(phonemes, length_s, loudness_T=np.ones(80))
    quiet = viseme_track(phonemes, length_s, loudness_T=np.full(80, 0.2))
    assert quiet[OPEN].max() < 0.75 * loud[OPEN].max()


def test_loudness_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="80 fit"):
        viseme_track([], 0.8, loudness_T=np.ones(79))


def test_loudness_is_relative_to_the_recording() -> None:
    rng = np.random.default_rng(0)
    noise_T = rng.standard_normal(16000) * np.repeat([0.1, 1.0], 8000)
    loud_T = loudness(noise_T.astype(np.float32), 16000)
    assert loud_T.shape == (100,)
    assert loud_T[60:90].mean() == pytest.approx(1.0, abs=0.15)
    assert loud_T[10:40].mean() < 0.15
    np.testing.assert_allclose(loudness(0.1 * noise_T, 16000), loud_T, atol=1e-5)


@pytest.mark.parametrize(
    ("mnemonic", "expected"),
    [
        ("aI@", ["a", "I", "@"]),
        ("tS", ["tS"]),
        ("A~", ["A"]),
        ("i:", ["i"]),
        ("a#", ["@"]),
        ("dz;", ["dz"]),
        (";", [";"]),
        ("_:", ["_"]),
        ("_|", []),
        ("(en)", []),
        ("", []),
        ("\N{SNOWMAN}", []),
    ],
)
def test_mnemonics_split_into_letters(mnemonic: str, expected: list[str]) -> None:
    assert letters(mnemonic) == expected
