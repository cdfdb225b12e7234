"""What a mouth does while espeak's phonemes are spoken: six numbers, 100 times a second.

V is `VISEMES`; T is 100 Hz frames (or samples, where said).

A consonant leaves the lips' width and rounding undecided, so that they glide from vowel to vowel
(coarticulation); lips are ahead of the sound by `VISUAL_LEAD_S`; and a closure is really closed for
more than one frame of 25 fps video, however short espeak's phoneme was.
"""

import math
from collections.abc import Sequence

import numpy as np

from training.smoothing import gaussian

VISEMES = ("open", "wide", "round", "tuck", "press", "tongue")
OPEN, WIDE, ROUND, TUCK, PRESS, TONGUE = range(6)
RATE_HZ = 100
VISUAL_LEAD_S = 0.030

_SMOOTHING_S = 0.033
_CONTACT_SMOOTHING_S = 0.018
# Contacts last at least this long, and are amplified and clipped after smoothing: the plateau of
# full contact is then over 40 ms wide and no phase of 25 fps video can miss it.
_CONTACT_MIN_S = 0.070
_CONTACT_GAIN = 1.3
_PAUSE_MIN_S = 0.060
_FREE = math.nan  # decided by the neighbours

# (open, wide, round, tongue) by IPA-like letter of espeak's notation.
_VOWELS: dict[str, tuple[float, float, float, float]] = {
    "a": (1.00, 0.30, 0.00, 0.0),
    "A": (0.95, 0.10, 0.05, 0.0),
    "&": (0.75, 0.45, 0.00, 0.0),
    "V": (0.70, 0.20, 0.00, 0.0),
    "0": (0.75, 0.00, 0.40, 0.0),
    "O": (0.65, 0.00, 0.65, 0.0),
    "o": (0.45, 0.00, 0.85, 0.0),
    "U": (0.30, 0.00, 0.75, 0.0),
    "u": (0.22, 0.00, 1.00, 0.0),
    "y": (0.22, 0.00, 0.95, 0.1),
    "Y": (0.38, 0.00, 0.80, 0.0),
    "W": (0.52, 0.00, 0.65, 0.0),
    "@": (0.40, 0.20, 0.05, 0.0),
    "3": (0.42, 0.10, 0.30, 0.1),
    "8": (0.40, 0.05, 0.45, 0.0),
    "E": (0.60, 0.60, 0.00, 0.0),
    "e": (0.45, 0.75, 0.00, 0.0),
    "I": (0.34, 0.70, 0.00, 0.1),
    "i": (0.24, 0.95, 0.00, 0.1),
}
# (open, wide, round, tongue); contacts of the lips are listed apart.
_CONSONANTS: dict[str, tuple[float, float, float, float]] = {
    "pF": (0.00, _FREE, _FREE, 0.0),
    "p": (0.00, _FREE, _FREE, 0.0),
    "b": (0.00, _FREE, _FREE, 0.0),
    "m": (0.00, _FREE, _FREE, 0.0),
    "B": (0.06, _FREE, _FREE, 0.0),
    "f": (0.12, _FREE, _FREE, 0.0),
    "v": (0.14, _FREE, _FREE, 0.0),
    "t": (0.20, _FREE, _FREE, 0.7),
    "d": (0.20, _FREE, _FREE, 0.7),
    "n": (0.22, _FREE, _FREE, 0.7),
    "l": (0.28, _FREE, _FREE, 0.9),
    "L": (0.28, _FREE, _FREE, 0.8),
    "T": (0.24, _FREE, _FREE, 1.0),
    "D": (0.24, _FREE, _FREE, 1.0),
    "s": (0.13, 0.45, _FREE, 0.3),
    "z": (0.14, 0.45, _FREE, 0.3),
    "ts": (0.13, 0.45, _FREE, 0.4),
    "dz": (0.14, 0.45, _FREE, 0.4),
    "S": (0.18, 0.00, 0.55, 0.2),
    "Z": (0.18, 0.00, 0.55, 0.2),
    "tS": (0.17, 0.00, 0.55, 0.3),
    "dZ": (0.18, 0.00, 0.55, 0.3),
    "sx": (0.18, 0.00, 0.50, 0.2),
    "s.": (0.18, 0.00, 0.50, 0.2),
    "r": (0.24, _FREE, 0.35, 0.4),
    "R": (0.28, _FREE, _FREE, 0.6),
    "*": (0.26, _FREE, _FREE, 0.6),
    "w": (0.14, 0.00, 1.00, 0.0),
    "j": (0.22, 0.80, _FREE, 0.2),
    ";": (0.22, 0.70, _FREE, 0.2),
    "C": (0.22, 0.60, _FREE, 0.2),
    "c": (0.22, 0.50, _FREE, 0.4),
    "J": (0.22, 0.50, _FREE, 0.4),
    "k": (0.30, _FREE, _FREE, 0.0),
    "g": (0.30, _FREE, _FREE, 0.0),
    "N": (0.28, _FREE, _FREE, 0.0),
    "x": (0.32, _FREE, _FREE, 0.0),
    "Q": (0.34, _FREE, _FREE, 0.0),
    "h": (_FREE, _FREE, _FREE, 0.0),
    "H": (0.20, 0.00, 0.90, 0.0),
}
_PRESS = {"p": 1.0, "b": 1.0, "m": 1.0, "B": 0.8}
_TUCK = {"f": 1.0, "v": 0.9, "pF": 1.0}
_LETTERS = _VOWELS | _CONSONANTS
# Reduced vowels whose mnemonic looks like a full one.
_REDUCED = {"a#": ["@"], "E#": ["@"], "I#": ["@"]}

# A part of the track: start, end (seconds) and the letter spoken, "_" for silence.
_Part = tuple[float, float, str]


def letters(mnemonic: str) -> list[str]:
    """Split an espeak mnemonic into the letters that have a mouth: "aI" into "a" and "I".

    Marks of length, nasality, stress and dialect are dropped; pauses give "_"; a language switch
    such as "(en)" or an unknown letter gives nothing.
    """
    if mnemonic.startswith("(") or not mnemonic:
        return []
    if mnemonic in ("_", "_:"):
        return ["_"]
    if mnemonic in _REDUCED:
        return _REDUCED[mnemonic]
    found: list[str] = []
    index = 0
    while index < len(mnemonic):
        pair, single = mnemonic[index : index + 2], mnemonic[index]
        letter = pair if pair in _LETTERS else single
        is_mark = single == ";" and index > 0
        if letter in _LETTERS and not is_mark and [letter] != found[-1:]:
            found.append(letter)
        index += len(letter)
    return found


def loudness(samples_T: np.ndarray, sample_rate: int) -> np.ndarray:
    """Loudness relative to the loud parts of the same recording, about 0..1, at 100 Hz.

    Args:
        samples_T: float32 mono samples.
        sample_rate: a multiple of 100.
    """
    hop = sample_rate // RATE_HZ
    num_frames = -(-len(samples_T) // hop)
    padded = np.zeros(num_frames * hop, np.float64)
    padded[: len(samples_T)] = samples_T
    power_T = np.square(padded).reshape(num_frames, hop).mean(axis=1)
    rms_T = np.sqrt(gaussian(power_T, 0.06 * RATE_HZ))
    loud = np.percentile(rms_T, 90) if num_frames else 0.0
    relative_T: np.ndarray = np.clip(rms_T / max(float(loud), 1e-4), 0.0, 1.2).astype(np.float32)
    return relative_T


def viseme_track(
    phonemes: Sequence[tuple[float, str]],
    duration_s: float,
    *,
    loudness_T: np.ndarray | None = None,
) -> np.ndarray:
    """The mouth's targets while `phonemes` are spoken; silence is a closed mouth, all zeros.

    Args:
        phonemes: (onset in seconds, espeak mnemonic); each lasts until the next onset.
        duration_s: length of the sound; the track has round(100 * duration_s) frames, frame t
            describing the instant t / 100 s.
        loudness_T: from `loudness`: quiet speech opens the mouth less.

    Returns:
        float32 [6, T], each row of `VISEMES` within 0..1.

    Raises:
        ValueError: the loudness is of another length than the track.
    """
    num_frames = round(duration_s * RATE_HZ)
    parts = _parts(phonemes, duration_s)
    times_T = np.arange(num_frames) / RATE_HZ + VISUAL_LEAD_S
    track_VT = np.zeros((len(VISEMES), num_frames), np.float64)
    track_VT[[OPEN, WIDE, ROUND, TONGUE]] = _shapes(parts, times_T)
    track_VT[PRESS] = _contact(parts, _PRESS, times_T)
    track_VT[TUCK] = _contact(parts, _TUCK, times_T)
    if loudness_T is not None:
        if len(loudness_T) != num_frames:
            raise ValueError(f"loudness_T: {len(loudness_T)} frames; {num_frames} fit duration_s")
        track_VT[OPEN] *= 0.6 + 0.4 * loudness_T
    # Lips that touch leave no opening between them.
    track_VT[OPEN] *= 1.0 - track_VT[PRESS]
    track_VT[OPEN] *= 1.0 - 0.6 * track_VT[TUCK]
    clipped: np.ndarray = np.clip(track_VT, 0.0, 1.0).astype(np.float32)
    return clipped


def _parts(phonemes: Sequence[tuple[float, str]], duration_s: float) -> list[_Part]:
    parts: list[_Part] = []
    ends = [*(onset for onset, _ in phonemes[1:]), duration_s]
    for (onset, mnemonic), end in zip(phonemes, ends, strict=False):
        spoken = letters(mnemonic)
        if spoken == ["_"] and end - onset < _PAUSE_MIN_S:
            continue
        edges = np.linspace(onset, max(end, onset), len(spoken) + 1)
        parts += [(float(edges[i]), float(edges[i + 1]), letter) for i, letter in enumerate(spoken)]
    return parts


def _shapes(parts: list[_Part], times_T: np.ndarray) -> np.ndarray:
    """Open, wide, round and tongue: stepwise targets, gaps bridged, then smoothed."""
    free_4T = np.full((4, len(times_T)), _FREE)
    first = parts[0][0] if parts else math.inf
    free_4T[:, times_T < first] = 0.0
    for start, end, letter in parts:
        during_T = (times_T >= start) & (times_T < end)
        free_4T[:, during_T] = np.reshape(_LETTERS.get(letter, (0.0,) * 4), (4, 1))
    if parts:
        free_4T[:, times_T >= parts[-1][1]] = 0.0
    bridged_4T = np.stack([_bridge(row_T) for row_T in free_4T])
    return gaussian(bridged_4T, _SMOOTHING_S * RATE_HZ)


def _bridge(row_T: np.ndarray) -> np.ndarray:
    known_T = ~np.isnan(row_T)
    if not known_T.any():
        return np.zeros_like(row_T)
    index_T = np.arange(len(row_T))
    bridged: np.ndarray = np.interp(index_T, index_T[known_T], row_T[known_T])
    return bridged


def _contact(parts: list[_Part], strengths: dict[str, float], times_T: np.ndarray) -> np.ndarray:
    """How firmly the lips touch: 1 on a plateau wider than a video frame."""
    target_T = np.zeros(len(times_T))
    for start, end, letter in parts:
        if letter in strengths:
            centre, half = (start + end) / 2, max(end - start, _CONTACT_MIN_S) / 2
            during_T = np.abs(times_T - centre) <= half
            target_T[during_T] = np.maximum(target_T[during_T], strengths[letter])
    smooth_T = gaussian(target_T, _CONTACT_SMOOTHING_S * RATE_HZ)
    contact: np.ndarray = np.minimum(smooth_T * _CONTACT_GAIN, 1.0)
    return contact
