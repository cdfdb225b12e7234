"""Phoneme times in a recording whose words are known, by pocketsphinx's American English model.

Two passes: the first finds where each word lies and how it was pronounced, the second finds the
phones within the words. T is samples at 16 kHz. The model ships in pocketsphinx's package; the
extra `recordings` installs it.
"""

import functools
import importlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from training.arpabet import PAUSE, mnemonic
from training.espeak import SAMPLE_RATE, Utterance

_FRAME_S = 0.01
# A frame's window reaches beyond the frame; half a frame later fits known boundaries best.
_BIAS_S = 0.005
_MIN_DURATION_S = 0.3
_MAX_PHONE_S = 1.0
# Pauses of a noisy recording stay below; left-out words of a clean one lie above.
_MAX_PAUSE_POWER = 0.25
_MISFIT = "the sound does not fit the words; check that the transcript says what is spoken"
_APOSTROPHE = "\N{RIGHT SINGLE QUOTATION MARK}"
_DASHES_AND_MARKS = re.compile(r"[^\w']+|_+")


class AlignError(ValueError):
    """Words and sound could not be brought together."""


def words_of(text: str) -> list[str]:
    """The words of a transcript as the dictionary spells them: small letters, apostrophes kept."""
    plain = text.lower().replace(_APOSTROPHE, "'")
    parts = _DASHES_AND_MARKS.sub(" ", plain).split()
    return [word for part in parts if (word := part.strip("'"))]


def align(samples_T: np.ndarray, words: Sequence[str]) -> Utterance:
    """Say when each phoneme of `words` begins in the recording, as espeak mnemonics.

    Args:
        samples_T: float32 mono at 16 kHz, about -1..1, a minute or two at most.
        words: from `words_of`.

    Raises:
        AlignError: pocketsphinx is not installed, a word is not in its dictionary, or the sound
            cannot be these words.
    """
    decoder = _decoder()
    if not words:
        raise AlignError("the transcript holds no words")
    unknown = next((word for word in words if decoder.lookup_word(word) is None), None)
    if unknown is not None:
        raise AlignError(
            f"word {unknown!r}: not in the dictionary of American English; spell it as spoken "
            "(numbers in words), or leave this recording out"
        )
    if len(samples_T) < _MIN_DURATION_S * SAMPLE_RATE:
        raise AlignError(f"the sound is shorter than {_MIN_DURATION_S} s")
    phones = _two_passes(decoder, samples_T, words)
    phonemes = [
        (start * _FRAME_S + _BIAS_S * (start > 0), mnemonic(name)) for start, name in phones
    ]
    spoken = Utterance(samples_T=np.asarray(samples_T, np.float32), phonemes=phonemes)
    _check_fit(spoken)
    return spoken


@functools.cache
def _decoder() -> Any:
    try:
        pocketsphinx = importlib.import_module("pocketsphinx")
    except ImportError as error:
        raise AlignError(
            "pocketsphinx: not installed; install the extra: pip install -e '.[recordings]'"
        ) from error
    # The best-path search would add a sentence end of one frame, which the second pass refuses.
    return pocketsphinx.Decoder(lm=None, bestpath=False, cmn="batch", loglevel="FATAL")


def _two_passes(decoder: Any, samples_T: np.ndarray, words: Sequence[str]) -> list[tuple[int, str]]:
    """(First frame, phone) of everything spoken, pauses included."""
    # Digital silence has no logarithm: a noise floor far below hearing stands in for it.
    floor_T = np.random.default_rng(0).standard_normal(len(samples_T)) * 1e-4
    pcm = (np.clip(samples_T + floor_T, -1.0, 1.0) * 32767.0).astype(np.int16).tobytes()
    try:
        decoder.set_align_text(" ".join(words))
        _decode(decoder, pcm)
        decoder.set_alignment()
        _decode(decoder, pcm)
        alignment = decoder.get_alignment()
        if alignment is None:
            raise RuntimeError
        return [(phone.start, phone.name) for word in alignment for phone in word]
    except RuntimeError:
        raise AlignError(_MISFIT) from None


def _decode(decoder: Any, pcm: bytes) -> None:
    decoder.start_utt()
    decoder.process_raw(pcm, full_utt=True)
    decoder.end_utt()


def _check_fit(spoken: Utterance) -> None:
    """Refuse an alignment that no speaker made: endless phones, or pauses as loud as speech."""
    power = {True: [0.0, 0.0], False: [0.0, 0.0]}  # of pauses and of speech: energy, length
    ends = [*(onset for onset, _ in spoken.phonemes[1:]), spoken.duration_s]
    for (onset_s, name), end_s in zip(spoken.phonemes, ends, strict=True):
        part_T = spoken.samples_T[round(onset_s * SAMPLE_RATE) : round(end_s * SAMPLE_RATE)]
        sums = power[name == PAUSE]
        sums[0] += float(np.square(part_T, dtype=np.float64).sum())
        sums[1] += max(end_s - onset_s, 1e-6)
        if name != PAUSE and end_s - onset_s > _MAX_PHONE_S:
            raise AlignError(f"{_MISFIT} (at {onset_s:.1f} s one sound would last too long)")
    pause, speech = (energy / max(length, 1e-6) for energy, length in power.values())
    if pause > _MAX_PAUSE_POWER * speech:
        raise AlignError(f"{_MISFIT} (much of what is spoken is not in it)")
