"""The speech corpus: real espeak-ng speech, exact mouths, a split that shares nothing."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from training.augment import augment, shift_throat
from training.corpus import make_utterance, read_shard, speak, write_shard
from training.espeak import SAMPLE_RATE, SpeechError, is_available, synthesize
from training.texts import is_held_out, languages, sentence
from training.visemes import OPEN, PRESS, letters
from training.voices import VARIANTS, is_held_out_variant

pytestmark = pytest.mark.unit

needs_espeak = pytest.mark.skipif(
    not is_available(), reason="libespeak-ng is absent; install libespeak-ng1 and espeak-ng-data"
)
ROOT = Path(__file__).resolve().parents[2]


def energy(samples_T: np.ndarray) -> np.ndarray:
    power = np.square(samples_T.reshape(-1, 160), dtype=np.float64).mean(axis=1)
    return np.asarray(np.sqrt(power))


@needs_espeak
def test_phonemes_come_in_order_within_the_sound() -> None:
    spoken = synthesize("My baby puppy moved.", "en-us", rate_wpm=150)
    onsets = [onset for onset, _ in spoken.phonemes]
    assert onsets == sorted(onsets)
    assert onsets[0] >= 0.0
    assert onsets[-1] <= spoken.duration_s
    assert [name for _, name in spoken.phonemes].count("b") == 2
    assert spoken.samples_T.dtype == np.float32
    slower = synthesize("My baby puppy moved.", "en-us", rate_wpm=100)
    assert slower.duration_s > 1.2 * spoken.duration_s


@needs_espeak
def test_an_unknown_voice_or_empty_text_is_refused() -> None:
    with pytest.raises(SpeechError, match="atlantean"):
        synthesize("Hello.", "atlantean")
    with pytest.raises(SpeechError, match="no sound"):
        synthesize("", "en-us")


@needs_espeak
def test_utterances_are_short_speech_with_mouths_and_silent_ends() -> None:
    silence = []
    for seed in range(12):
        spoken = speak(np.random.default_rng(seed))
        num_frames = spoken.visemes_VT.shape[1]
        assert spoken.samples_T.shape == (160 * num_frames,)
        assert 3.0 <= num_frames / 100 <= 8.1
        assert spoken.visemes_VT.dtype == np.float32
        assert spoken.texts
        loud_T = energy(spoken.samples_T) > 0.005
        open_T = spoken.visemes_VT.max(axis=0) > 0.05
        silence.append(1.0 - open_T.mean())
        # The mouth moves when there is sound: at most some stops and the lead differ.
        assert (loud_T == open_T).mean() > 0.75
    assert 0.05 < np.mean(silence) < 0.4


@needs_espeak
def test_every_closure_of_real_speech_reaches_zero_opening() -> None:
    num_closures = 0
    for seed in range(8):
        spoken = speak(np.random.default_rng(seed))
        ends = [onset for onset, _ in spoken.phonemes[1:]] + [spoken.samples_T.size / SAMPLE_RATE]
        for (onset_s, mnemonic), end_s in zip(spoken.phonemes, ends, strict=True):
            if mnemonic in ("p", "b", "m"):
                middle = round(100 * ((onset_s + end_s) / 2 - 0.03))
                assert spoken.visemes_VT[OPEN, middle] < 0.02
                assert spoken.visemes_VT[PRESS, middle] > 0.97
                num_closures += 1
    assert num_closures > 20


@needs_espeak
@pytest.mark.parametrize("code", sorted(languages()))
def test_every_phoneme_of_every_language_has_a_mouth(code: str) -> None:
    voice = {"en": "en-us"}.get(code, code)
    rng = np.random.default_rng(0)
    silent = {"_!", "_|", "!", "?"}
    for _ in range(6):
        for _, mnemonic in synthesize(sentence(rng, code), voice).phonemes:
            assert letters(mnemonic) or mnemonic in silent or mnemonic.startswith("("), mnemonic


@needs_espeak
def test_the_split_shares_neither_voices_nor_sentences() -> None:
    for seed in range(6):
        train = speak(np.random.default_rng(seed), "train")
        held = speak(np.random.default_rng(seed), "validation")
        assert not any(is_held_out(text) for text in train.texts)
        assert all(is_held_out(text) for text in held.texts)
        assert is_held_out_variant(held.voice.partition("+")[2])
        assert not is_held_out_variant(train.voice.partition("+")[2] or "none")


def test_voices_are_held_out_in_a_useful_number() -> None:
    held = [variant for variant in VARIANTS if is_held_out_variant(variant)]
    assert 6 <= len(held) <= len(VARIANTS) // 4


@needs_espeak
def test_what_is_drawn_follows_from_the_seed() -> None:
    one, same = (speak(np.random.default_rng(11)) for _ in range(2))
    assert (one.voice, one.texts) == (same.voice, same.texts)
    other = speak(np.random.default_rng(12))
    assert other.texts != one.texts
    samples_T, visemes_VT = make_utterance(np.random.default_rng(11))
    assert abs(len(samples_T) - len(one.samples_T)) <= 800
    assert len(samples_T) == 160 * visemes_VT.shape[1]


@needs_espeak
def test_a_new_process_makes_the_same_shards(tmp_path: Path) -> None:
    for name in ("one", "two"):
        command = [sys.executable, "-m", "training.corpus", "--out", str(tmp_path / name)]
        options = ["--count", "3", "--seed", "5", "--per-shard", "2", "--flite-share", "0"]
        subprocess.run([*command, *options], check=True, cwd=ROOT, capture_output=True)
    shards = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert shards == ["0000.npz", "0001.npz"]
    for shard in shards:
        with np.load(tmp_path / "one" / shard) as one, np.load(tmp_path / "two" / shard) as two:
            for key in one:
                np.testing.assert_array_equal(one[key], two[key])


@needs_espeak
def test_a_shard_returns_what_was_written(tmp_path: Path) -> None:
    spoken = [speak(np.random.default_rng(seed)) for seed in (1, 2)]
    write_shard(tmp_path / "s.npz", spoken)
    for (samples_T, visemes_VT), wrote in zip(read_shard(tmp_path / "s.npz"), spoken, strict=True):
        np.testing.assert_allclose(samples_T, wrote.samples_T, atol=1 / 32767)
        np.testing.assert_allclose(visemes_VT, wrote.visemes_VT, atol=1e-3)


def test_sentences_follow_from_the_seed_and_know_their_languages() -> None:
    one, same = (sentence(np.random.default_rng(3), "de") for _ in range(2))
    assert one == same
    with pytest.raises(ValueError, match="choose one of cs, de"):
        sentence(np.random.default_rng(0), "xx")


def test_augmented_speech_keeps_length_and_follows_from_the_seed() -> None:
    tone_T = (0.1 * np.sin(np.arange(31_999) * 0.05)).astype(np.float32)
    for seed in range(20):
        one, same = (augment(tone_T, np.random.default_rng(seed)) for _ in range(2))
        np.testing.assert_array_equal(one, same)
        assert one.shape == tone_T.shape
        assert one.dtype == np.float32
        assert np.isfinite(one).all()
        assert np.abs(one).max() <= 1.0
    assert np.isfinite(augment(np.zeros(1600, np.float32), np.random.default_rng(0))).all()
    assert augment(np.zeros(0, np.float32), np.random.default_rng(0)).shape == (0,)
    with pytest.raises(ValueError, match="16000"):
        augment(tone_T, np.random.default_rng(0), sample_rate=22_050)


@needs_espeak
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_another_throat_speaks_at_the_same_time(seed: int) -> None:
    samples_T = speak(np.random.default_rng(4)).samples_T
    moved_T = shift_throat(samples_T, np.random.default_rng(seed))
    before_T, after_T = energy(samples_T)[20:-20], energy(moved_T)
    likeness = [
        np.corrcoef(before_T, after_T[20 + lag : len(after_T) - 20 + lag])[0, 1]
        for lag in range(-4, 5)
    ]
    assert abs(int(np.argmax(likeness)) - 4) <= 1
    assert max(likeness) > 0.9
