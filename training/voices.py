"""Who speaks the corpus: espeak's voices in thirteen languages and flite's American ones.

Validation has voices of its own: espeak's variants are split by a checksum of their names, of
flite's voices one is held out.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from training import espeak, flite
from training.espeak import Utterance
from training.texts import Split

_HELD_OUT_ONE_IN = 8

_FLITE = "flite/"

# espeak's voices by language of the word lists; the weight is the language's share.
_BASES: dict[str, tuple[float, tuple[str, ...]]] = {
    "en": (8.0, ("en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-029", "en-us-nyc")),
    "de": (2.0, ("de",)),
    "fr": (2.0, ("fr", "fr-be", "fr-ch")),
    "es": (2.0, ("es", "es-419")),
    "it": (1.5, ("it",)),
    "pt": (1.5, ("pt", "pt-br")),
    "nl": (1.0, ("nl",)),
    "pl": (1.0, ("pl",)),
    "sv": (1.0, ("sv",)),
    "cs": (0.7, ("cs",)),
    "fi": (0.7, ("fi",)),
    "tr": (0.7, ("tr",)),
    "ro": (0.7, ("ro",)),
}
# Variants that sound like a person: robots, croaks and special effects are left out.
_VARIANT_NAMES = """
Alex Alicia Andrea Andy Annie Denis Diogo Gene Gene2 Henrique Hugo Lee Mario Michael Mike
Nguyen adam anika announcer antonio aunty belinda benjamin boris caleb david ed edward
edward2 f1 f2 f3 f4 f5 grandma grandpa gustave iven2 iven3 iven4 john kaukovalta klatt
klatt2 klatt3 klatt4 klatt5 klatt6 linda m1 m2 m3 m4 m5 m6 m7 m8 marcelo max michel miguel
norbert pablo paul pedro quincy rob robert sandro shelby steph steph2 steph3 travis victor
whisper zac
"""
VARIANTS = tuple(_VARIANT_NAMES.split())


@dataclass(frozen=True)
class Voice:
    """A voice that a corpus can use.

    Attributes:
        code: language of its sentences.
        name: espeak's name for it, or "flite/" and flite's.
    """

    code: str
    name: str

    def manner(self, rng: np.random.Generator) -> Callable[[str], Utterance]:
        """Draw how the voice speaks today (speed, pitch); the function returned speaks a text."""
        if self.name.startswith(_FLITE):
            return _flite_manner(self.name.removeprefix(_FLITE), rng)
        rate_wpm = int(rng.integers(120, 231))
        pitch = int(rng.integers(15, 86))
        pitch_range = int(rng.integers(20, 91))
        return lambda text: espeak.synthesize(
            text, self.name, rate_wpm=rate_wpm, pitch=pitch, pitch_range=pitch_range
        )


def is_held_out_variant(variant: str) -> bool:
    """Whether an espeak variant speaks in validation only: a checksum of its name decides."""
    return zlib.crc32(variant.encode()) % _HELD_OUT_ONE_IN == 0


def draw_voice(rng: np.random.Generator, split: Split, flite_share: float = 0.0) -> Voice:
    """Draw a voice of the split.

    Args:
        rng: the whole choice.
        split: training and validation share no voice.
        flite_share: chance of a flite voice, 0 to 1; with 0 nothing of flite is needed.
    """
    if flite_share > 0.0 and rng.random() < flite_share:
        held_out = split == "validation"
        names = [name for name in flite.VOICES if (name == flite.HELD_OUT_VOICE) == held_out]
        return Voice("en", f"{_FLITE}{names[int(rng.integers(len(names)))]}")
    codes = list(_BASES)
    weights = np.array([weight for weight, _ in _BASES.values()])
    code = codes[int(rng.choice(len(codes), p=weights / weights.sum()))]
    bases = _BASES[code][1]
    base = bases[int(rng.integers(len(bases)))]
    variants = [v for v in VARIANTS if is_held_out_variant(v) == (split == "validation")]
    # In training, one voice in ten is the language's own.
    if split == "train" and rng.random() < 0.1:
        return Voice(code, base)
    return Voice(code, f"{base}+{variants[int(rng.integers(len(variants)))]}")


def _flite_manner(voice: str, rng: np.random.Generator) -> Callable[[str], Utterance]:
    # The range of speeds is that of espeak's: 120 to 230 words a minute about 165.
    stretch = float(rng.uniform(0.72, 1.38))
    pitch_hz = flite.VOICE_PITCH_HZ[voice] * float(rng.uniform(0.8, 1.3))
    return lambda text: flite.synthesize(text, voice, stretch=stretch, pitch_hz=pitch_hz)
