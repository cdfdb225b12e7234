"""Sentences to speak: drawn from word lists in thirteen languages, not meant to inform anyone.

Sentences exist to visit sounds, so they are assembled (subject, verb, object, place or time) or,
now and then, are mere lists of words and numbers. `is_held_out` splits all sentences once and for
all by a checksum, so that a validation sentence can never also be a training one.
"""

import functools
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

Split = Literal["train", "validation"]

_WORDS_PATH = Path(__file__).with_name("words.json")
_HELD_OUT_ONE_IN = 10
# The share of each kind of sentence; the rest are two clauses joined.
_CHANCE_WORD_LIST, _CHANCE_NUMBER, _CHANCE_SHORT = 0.12, 0.08, 0.30


@dataclass(frozen=True)
class Language:
    """The word lists of one language, in its own word order (subject, verb, object, adverbial)."""

    subjects: tuple[str, ...]
    verbs: tuple[str, ...]
    objects: tuple[str, ...]
    adverbials: tuple[str, ...]
    conjunctions: tuple[str, ...]
    interjections: tuple[str, ...]

    @property
    def words(self) -> tuple[str, ...]:
        """Every phrase that can stand in a list of words."""
        return self.subjects + self.objects + self.adverbials


@functools.cache
def languages() -> dict[str, Language]:
    """The word lists by language code ("en", "de", ...)."""
    table = json.loads(_WORDS_PATH.read_text(encoding="utf-8"))
    return {
        code: Language(**{kind: tuple(words) for kind, words in lists.items()})
        for code, lists in table.items()
    }


def is_held_out(sentence: str) -> bool:
    """Whether `sentence` belongs to validation: a checksum of it decides, about one in ten."""
    return zlib.crc32(sentence.encode()) % _HELD_OUT_ONE_IN == 0


def sentence(rng: np.random.Generator, code: str, split: Split = "train") -> str:
    """Draw one sentence in language `code` that belongs to `split`.

    Raises:
        ValueError: no word lists for this language.
    """
    if code not in languages():
        known = ", ".join(sorted(languages()))
        raise ValueError(f"language {code!r}: no word lists; choose one of {known}")
    while True:
        candidate = _draw(rng, languages()[code])
        if is_held_out(candidate) == (split == "validation"):
            return candidate


def _draw(rng: np.random.Generator, language: Language) -> str:
    kind = rng.random()
    if kind < _CHANCE_WORD_LIST:
        body = ", ".join(_pick(rng, language.words) for _ in range(rng.integers(3, 7)))
    elif kind < _CHANCE_WORD_LIST + _CHANCE_NUMBER:
        body = ", ".join(str(rng.integers(0, 10_000)) for _ in range(rng.integers(1, 4)))
    elif kind < _CHANCE_WORD_LIST + _CHANCE_NUMBER + _CHANCE_SHORT:
        body = _clause(rng, language)
    else:
        joint = _pick(rng, language.conjunctions)
        body = f"{_clause(rng, language)}{joint} {_clause(rng, language)}"
    if rng.random() < 0.2:
        body = f"{_pick(rng, language.interjections)}, {body}"
    return body[0].upper() + body[1:] + _pick(rng, (".", ".", ".", "!", "?"))


def _clause(rng: np.random.Generator, language: Language) -> str:
    parts = [_pick(rng, language.subjects), _pick(rng, language.verbs)]
    parts.append(_pick(rng, language.objects))
    if rng.random() < 0.6:
        parts.append(_pick(rng, language.adverbials))
    return " ".join(parts)


def _pick(rng: np.random.Generator, choices: tuple[str, ...]) -> str:
    return choices[int(rng.integers(len(choices)))]
