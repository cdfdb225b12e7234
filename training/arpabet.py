"""The phones of American speech tools, written as the espeak mnemonics that `visemes` knows.

Flite's US voices and pocketsphinx's `en-us` model name phones by ARPABET, in lower and upper case.
"""

_MNEMONICS: dict[str, str] = {
    "aa": "A:",
    "ae": "a",
    "ah": "V",
    "ao": "O:",
    "aw": "aU",
    "ax": "@",
    "axr": "3",
    "ay": "aI",
    "b": "b",
    "ch": "tS",
    "d": "d",
    "dh": "D",
    "dx": "*",
    "eh": "E",
    "el": "@l",
    "em": "m",
    "en": "n",
    "er": "3:",
    "ey": "eI",
    "f": "f",
    "g": "g",
    "hh": "h",
    "hv": "h",
    "ih": "I",
    "iy": "i:",
    "jh": "dZ",
    "k": "k",
    "l": "l",
    "m": "m",
    "n": "n",
    "nx": "n",
    "ng": "N",
    "ow": "oU",
    "oy": "OI",
    "p": "p",
    "r": "r",
    "s": "s",
    "sh": "S",
    "t": "t",
    "th": "T",
    "uh": "U",
    "uw": "u:",
    "v": "v",
    "w": "w",
    "y": "j",
    "z": "z",
    "zh": "Z",
}
# Silence, breath and noise: the mouth rests.
_PAUSES = frozenset({"pau", "sil", "ssil", "h#", "brth", "+spn+", "+nsn+", "+breath+", "(null)"})
PAUSE = "_:"


def mnemonic(phone: str) -> str:
    """The espeak mnemonic of an ARPABET phone, in any case, with or without a stress digit.

    Raises:
        ValueError: no such phone.
    """
    name = phone.lower()
    if name in _PAUSES:
        return PAUSE
    found = _MNEMONICS.get(name.rstrip("012"))
    if found is None:
        raise ValueError(f"phone {phone!r}: not an ARPABET phone of American English")
    return found
