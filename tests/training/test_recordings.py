"""Recordings become corpus shards: phones where they are spoken, and errors that name the cause."""

import difflib
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from training import aligner, espeak, flite
from training.aligner import AlignError, align, words_of
from training.corpus import read_corpus, read_shard
from training.espeak import SAMPLE_RATE, Utterance
from training.recordings import RecordingError, build, cuts, excerpt, find_recordings
from training.visemes import OPEN, PRESS

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[2]
needs_aligner = pytest.mark.skipif(
    importlib.util.find_spec("pocketsphinx") is None,
    reason="pocketsphinx is absent; install the extra recordings",
)
needs_flite = pytest.mark.skipif(
    not flite.is_available(), reason="flite is absent; install the Debian package flite"
)
needs_espeak = pytest.mark.skipif(
    not espeak.is_available(), reason="libespeak-ng is absent; install libespeak-ng1"
)
TEXT = "My puppy began to move, but papa kept a big cat on top of the boat."


def boundary_errors_s(found: Utterance, truth: Utterance) -> np.ndarray:
    """Differences of onset wherever the two say the same phonemes, the first one apart."""
    a, b = ([name for _, name in spoken.phonemes] for spoken in (found, truth))
    blocks = difflib.SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks()
    pairs = [(block.a + i, block.b + i) for block in blocks for i in range(block.size)]
    return np.array(
        [found.phonemes[i][0] - truth.phonemes[j][0] for i, j in pairs if j > 0], np.float64
    )


@needs_aligner
@needs_flite
@pytest.mark.parametrize("voice", ["slt", "rms", "awb"])
def test_phones_are_found_where_flite_spoke_them(voice: str) -> None:
    spoken = flite.synthesize(TEXT, voice)
    errors_s = boundary_errors_s(align(spoken.samples_T, words_of(TEXT)), spoken)
    assert len(errors_s) > 30
    assert np.median(np.abs(errors_s)) <= 0.016
    assert np.percentile(np.abs(errors_s), 90) < 0.05
    assert abs(np.median(errors_s)) < 0.010


@needs_aligner
@needs_espeak
def test_phones_are_found_where_espeak_spoke_them() -> None:
    # Its accent is not quite the dictionary's: fewer phones agree than with flite.
    spoken = espeak.synthesize(TEXT, "en-us", rate_wpm=140)
    errors_s = boundary_errors_s(align(spoken.samples_T, words_of(TEXT)), spoken)
    assert len(errors_s) > 20
    assert np.median(np.abs(errors_s)) < 0.030


@needs_aligner
@needs_flite
def test_noise_moves_few_boundaries() -> None:
    spoken = flite.synthesize(TEXT, "slt")
    noise_T = np.random.default_rng(0).standard_normal(len(spoken.samples_T)) * 0.01
    errors_s = boundary_errors_s(align(spoken.samples_T + noise_T, words_of(TEXT)), spoken)
    assert np.median(np.abs(errors_s)) < 0.025


@needs_aligner
@needs_flite
@pytest.mark.parametrize(
    "words",
    ["hello world", "my puppy began to move but papa", "nothing of this was ever said by anybody"],
)
def test_words_that_were_not_said_are_refused(words: str) -> None:
    spoken = flite.synthesize(TEXT, "slt")
    with pytest.raises(AlignError, match="does not fit the words"):
        align(spoken.samples_T, words.split())


@needs_aligner
@pytest.mark.parametrize(
    ("words", "num_samples", "complaint"),
    [
        (["hello", "blorptastic", "frumiously"], 16_000, "'blorptastic'.*dictionary"),
        (["42"], 16_000, "'42'.*numbers in words"),
        ([], 16_000, "no words"),
        (["hello"], 100, "shorter than"),
    ],
)
def test_what_cannot_be_aligned_is_named(
    words: list[str], num_samples: int, complaint: str
) -> None:
    with pytest.raises(AlignError, match=complaint):
        align(np.zeros(num_samples, np.float32), words)


def test_without_pocketsphinx_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    aligner._decoder.cache_clear()
    with pytest.raises(AlignError, match=r"\.\[recordings\]"):
        align(np.zeros(16_000, np.float32), ["hello"])
    aligner._decoder.cache_clear()


def test_transcripts_become_the_dictionary_s_words() -> None:
    text = "Don\N{RIGHT SINGLE QUOTATION MARK}t — don't!  'Well-known' _words_ (the), naïve: 42."
    expected = "don't don't well known words the naïve 42"
    assert words_of(text) == expected.split()
    assert words_of(" … '' \n") == []


@needs_aligner
@needs_flite
def test_a_folder_becomes_shards_that_training_reads(tmp_path: Path) -> None:
    audio, out = tmp_path / "audio", tmp_path / "out"
    audio.mkdir()
    slow = flite.synthesize(TEXT, "slt", stretch=1.2)
    native_T = np.repeat(slow.samples_T, 3)  # 48 kHz, two channels
    soundfile.write(audio / "a.flac", np.stack([native_T, native_T], axis=1), 48_000)
    # Three sentences with pauses: longer than an utterance may be.
    quick = flite.synthesize(TEXT, "rms")
    pause_T = np.zeros(16_000, np.float32)
    long_T = np.concatenate([quick.samples_T, pause_T] * 3)
    soundfile.write(audio / "b.wav", long_T, SAMPLE_RATE)
    (audio / "a.txt").write_text("\ufeff" + TEXT, encoding="utf-8")
    (audio / "b.txt").write_text(TEXT.upper() * 3, encoding="utf-8")
    assert build(audio, out) == 4
    utterances = read_corpus(out)
    assert len(utterances) == 4
    for samples_T, visemes_VT in utterances:
        assert len(samples_T) == 160 * visemes_VT.shape[1]
        assert 3.0 <= len(samples_T) / SAMPLE_RATE <= 8.1
        assert (visemes_VT[PRESS] > 0.97).sum() > 20  # the p, b and m of the sentence
        assert visemes_VT[OPEN].max() > 0.5
        loud_T = np.square(samples_T.reshape(-1, 160)).mean(axis=1) > 2.5e-5
        assert (loud_T == (visemes_VT.max(axis=0) > 0.05)).mean() > 0.75
    with np.load(out / "recordings-0000.npz") as shard:
        assert shard["voices"].tolist() == ["recording/a", *["recording/b"] * 3]
        assert shard["texts"][0] == TEXT


@needs_aligner
@needs_flite
def test_bad_recordings_stop_the_build_or_are_left_out(tmp_path: Path) -> None:
    spoken = flite.synthesize(TEXT, "slt")
    soundfile.write(tmp_path / "good.wav", spoken.samples_T, SAMPLE_RATE)
    (tmp_path / "good.txt").write_text(TEXT)
    soundfile.write(tmp_path / "alone.wav", spoken.samples_T, SAMPLE_RATE)
    with pytest.raises(RecordingError, match=r"alone.wav: no transcript; .* alone.txt"):
        build(tmp_path, tmp_path / "out")
    assert build(tmp_path, tmp_path / "out", skip_bad=True) == 1
    assert len(read_shard(tmp_path / "out" / "recordings-0000.npz")) == 1


@needs_aligner
@pytest.mark.parametrize(
    ("seconds", "transcript", "complaint"),
    [
        (121, b"Hello.", "lasts 121 s, the limit is 120 s"),
        (2, b"Hello gnorfblat.", "a.wav: word 'gnorfblat'"),
        (2, b"\xff\xfe\x00", "UTF-8"),
        (2, b"x" * 70_000, "longer than"),
        (2, b"  ", "holds no words"),
    ],
)
def test_a_recording_that_cannot_be_used_says_why(
    tmp_path: Path, seconds: int, transcript: bytes, complaint: str
) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(8_000 * seconds, np.float32), 8_000)
    (tmp_path / "a.txt").write_bytes(transcript)
    options = ["--audio", str(tmp_path), "--out", str(tmp_path / "out")]
    command = [sys.executable, "-m", "training.recordings", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert complaint in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_folders_without_recordings_or_with_twins_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="holds no"):
        find_recordings(tmp_path)
    for name in ("a.wav", "a.flac", "b.WAV"):
        (tmp_path / name).touch()
    with pytest.raises(RecordingError, match=r"a.flac: a.wav has the same transcript"):
        find_recordings(tmp_path)


def speech(*spans: tuple[float, str]) -> Utterance:
    """An utterance of silence whose phonemes have the lengths given."""
    phonemes, end_s = [], 0.0
    for length_s, name in spans:
        phonemes.append((end_s, name))
        end_s += length_s
    return Utterance(np.zeros(round(end_s * SAMPLE_RATE), np.float32), phonemes)


def test_recordings_are_cut_in_pauses() -> None:
    aligned = speech((1.0, "_:"), (4.0, "a"), (0.4, "_:"), (3.0, "i"), (0.4, "_:"), (4.0, "u"))
    assert cuts(aligned) == [pytest.approx((0.7, 8.6)), pytest.approx((8.6, 12.8))]
    short = speech((0.1, "_:"), (1.0, "a"), (2.0, "_:"))
    assert cuts(short) == [pytest.approx((0.0, 1.4))]
    assert cuts(speech((3.0, "_:"))) == []


def test_recordings_without_pauses_are_cut_between_phonemes_or_anywhere() -> None:
    letters = speech(*[(0.3, "a")] * 40)
    assert cuts(letters) == [pytest.approx((0.0, 7.8)), pytest.approx((7.8, 12.0))]
    assert [end for _, end in cuts(speech((20.0, "a")))] == pytest.approx([8.0, 16.0, 20.0])


def test_a_part_keeps_the_phoneme_that_was_sounding() -> None:
    part = excerpt(speech((1.0, "_:"), (1.0, "a"), (1.0, "m"), (1.0, "i")), 1.5, 3.0)
    assert part.phonemes == [(0.0, "a"), (0.5, "m")]
    assert part.duration_s == 1.5
