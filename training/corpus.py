"""A corpus of speech with exact mouths: random voices and sentences, 3 to 8 s at a time.

T is 16 kHz samples or 100 Hz frames, V the six visemes. `viva data speech` writes shards
that hold utterances one after another: `samples` int16 [all samples], `visemes` float16 [6, all
frames], `frame_ends` int64 [utterances] (a frame is 160 samples), `voices` and `texts`.

Validation shares nothing with training: its voices are held out (`training/voices.py`), its
sentences by a checksum of the sentence (`texts.is_held_out`), whatever the seeds.

Everything drawn follows from the seed. The library's oscillators, however, run on from one
utterance to the next, so sound is reproduced bit by bit only by a new process that draws the same
sequence.
"""

import argparse
import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training import flite
from training.errors import InputError
from training.espeak import SAMPLE_RATE, SpeechError, Utterance
from training.stored import read_arrays, require_shapes
from training.texts import Split, sentence
from training.visemes import RATE_HZ, loudness, viseme_track
from training.voices import draw_voice

MIN_DURATION_S, MAX_DURATION_S = 3.0, 8.0
# One utterance in four is a flite voice's: another synthesiser, not only another espeak.
FLITE_SHARE = 0.25
SAMPLES_PER_FRAME = SAMPLE_RATE // RATE_HZ

_SPEECH_RMS = 0.08
# Float32 samples at 16 kHz, and visemes [6, T] with 160 samples for each of their frames.
Heard = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Spoken:
    """An utterance of the corpus.

    Attributes:
        samples_T: float32 mono at 16 kHz, 160 for each frame of visemes.
        visemes_VT: float32 [6, T] at 100 Hz.
        phonemes: (onset in seconds, espeak mnemonic).
        voice: who spoke, as `voices.Voice` names it.
        texts: what it said, sentence by sentence.
    """

    samples_T: np.ndarray
    visemes_VT: np.ndarray
    phonemes: list[tuple[float, str]]
    voice: str
    texts: tuple[str, ...]


def make_utterance(
    rng: np.random.Generator, split: Split = "train"
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one utterance: float32 samples at 16 kHz and float32 visemes [6, T] at 100 Hz."""
    spoken = speak(rng, split)
    return spoken.samples_T, spoken.visemes_VT


def speak(rng: np.random.Generator, split: Split = "train", *, flite_share: float = 0.0) -> Spoken:
    """Draw one utterance of 3 to 8 s, about a fifth of it silence at the two ends.

    Args:
        rng: everything drawn.
        split: which voices and sentences.
        flite_share: chance that one of flite's voices speaks, 0 to 1.

    Raises:
        SpeechError: libespeak-ng, its voices or flite are needed and not installed.
    """
    voice = draw_voice(rng, split, flite_share)
    duration_s = rng.uniform(MIN_DURATION_S, MAX_DURATION_S)
    silence_s = duration_s * rng.beta(2.0, 8.0)
    say = voice.manner(rng)
    texts: list[str] = []
    pieces: list[Utterance] = []
    spoken_s = 0.0
    for _ in range(12):
        text = sentence(rng, voice.code, split)
        piece = _without_tail(say(text))
        gap_s = float(rng.uniform(0.12, 0.9)) if pieces else 0.0
        # One sentence may always be said, if it fits the longest utterance.
        room_s = (duration_s if pieces else MAX_DURATION_S) - silence_s
        if spoken_s + gap_s + piece.duration_s > room_s:
            continue
        if pieces:
            pieces.append(_silence(gap_s))
        pieces.append(piece)
        texts.append(text)
        spoken_s += gap_s + piece.duration_s
        if spoken_s > 0.8 * (duration_s - silence_s):
            break
    lead_s = silence_s * rng.random()
    samples_T, phonemes = _join([_silence(lead_s), *pieces, _silence(silence_s - lead_s)])
    return finish(samples_T, phonemes, voice.name, tuple(texts))


def _without_tail(utterance: Utterance) -> Utterance:
    """Cut the pause that espeak adds after a sentence, so that pauses are ours to draw."""
    phonemes = list(utterance.phonemes)
    end_s = utterance.duration_s
    while phonemes and phonemes[-1][1] in ("_", "_:"):
        end_s = phonemes.pop()[0] + 0.05
    num_samples = min(round(end_s * SAMPLE_RATE), len(utterance.samples_T))
    return Utterance(samples_T=utterance.samples_T[:num_samples], phonemes=phonemes)


def _silence(duration_s: float) -> Utterance:
    num_samples = max(round(duration_s * SAMPLE_RATE), 0)
    return Utterance(samples_T=np.zeros(num_samples, np.float32), phonemes=[(0.0, "_:")])


def _join(pieces: list[Utterance]) -> tuple[np.ndarray, list[tuple[float, str]]]:
    phonemes: list[tuple[float, str]] = []
    num_samples = 0
    for piece in pieces:
        start_s = num_samples / SAMPLE_RATE
        phonemes += [(start_s + onset_s, mnemonic) for onset_s, mnemonic in piece.phonemes]
        num_samples += len(piece.samples_T)
    return np.concatenate([piece.samples_T for piece in pieces]), phonemes


def finish(
    samples_T: np.ndarray, phonemes: list[tuple[float, str]], voice: str, texts: tuple[str, ...]
) -> Spoken:
    """Bring the voice to the common level, the length to whole frames of at least 3 s."""
    num_frames = max(-(-len(samples_T) // SAMPLES_PER_FRAME), round(MIN_DURATION_S * RATE_HZ))
    padded_T = np.zeros(num_frames * SAMPLES_PER_FRAME, np.float32)
    padded_T[: len(samples_T)] = samples_T
    sounding_T = padded_T[np.abs(padded_T) > 1e-3]
    if len(sounding_T):
        padded_T *= _SPEECH_RMS / float(np.sqrt(np.mean(np.square(sounding_T, dtype=np.float64))))
    padded_T = np.clip(padded_T, -0.98, 0.98)
    visemes_VT = viseme_track(
        phonemes, num_frames / RATE_HZ, loudness_T=loudness(padded_T, SAMPLE_RATE)
    )
    return Spoken(padded_T, visemes_VT, phonemes, voice, texts)


def write_shard(path: Path, utterances: list[Spoken]) -> None:
    """Write utterances as one .npz: int16 samples, float16 visemes, where each ends, who, what."""
    samples_T = np.concatenate([spoken.samples_T for spoken in utterances])
    partial = path.with_name(f".{path.name}.part")
    with partial.open("wb") as file:
        np.savez(
            file,
            samples=np.round(samples_T * 32767.0).astype(np.int16),
            visemes=np.concatenate([s.visemes_VT for s in utterances], axis=1).astype(np.float16),
            frame_ends=np.cumsum([s.visemes_VT.shape[1] for s in utterances], dtype=np.int64),
            voices=np.array([spoken.voice for spoken in utterances]),
            texts=np.array([" | ".join(spoken.texts) for spoken in utterances]),
        )
    partial.replace(path)


def read_shard(path: Path) -> list[Heard]:
    """Read a shard: (float32 samples at 16 kHz, float32 visemes [6, T]) of each utterance.

    Raises:
        InputError: the file is damaged, or its arrays do not belong together.
    """
    arrays = read_arrays(path, ("samples", "visemes", "frame_ends"))
    samples_T = arrays["samples"].astype(np.float32) / 32767.0
    visemes_VT = arrays["visemes"].astype(np.float32)
    ends = [int(end) for end in arrays["frame_ends"]]
    shapes = {name: array.shape for name, array in arrays.items()}
    frames = ends[-1] if ends else 0
    wanted = {"samples": (frames * SAMPLES_PER_FRAME,), "visemes": (6, frames)}
    require_shapes(shapes, wanted | {"frame_ends": (None,)}, path)
    if any(end <= start for start, end in zip([0, *ends[:-1]], ends, strict=True)):
        raise InputError(f"{path}: frame_ends do not ascend: make it again")
    return [
        (samples_T[start * SAMPLES_PER_FRAME : end * SAMPLES_PER_FRAME], visemes_VT[:, start:end])
        for start, end in zip([0, *ends[:-1]], ends, strict=True)
    ]


def read_corpus(folder: Path) -> list[Heard]:
    """Return all utterances of the shards in a folder and its subfolders.

    Raises:
        InputError: there are none, or a shard is damaged.
    """
    paths = sorted(folder.rglob("*.npz"))
    if not paths:
        raise InputError(f"{folder} holds no shards of speech: make some with viva data speech")
    return [utterance for path in paths for utterance in read_shard(path)]


def build(
    out: Path,
    *,
    count: int,
    seed: int,
    split: Split = "train",
    per_shard: int = 250,
    flite_share: float = 0.0,
    minutes: float = math.inf,
) -> None:
    """Make `count` utterances into shards `NNNN.npz` under the folder `out`, but for those there.

    Raises:
        SpeechError: a synthesiser that the share needs is not installed.
    """
    if flite_share > 0.0 and not flite.is_available():
        raise SpeechError(
            "flite: not found; install the Debian package flite, or do without: --flite-share 0"
        )
    out.mkdir(parents=True, exist_ok=True)
    deadline_s = time.monotonic() + minutes * 60.0
    for shard, first in enumerate(range(0, count, per_shard)):
        indices = range(first, min(first + per_shard, count))
        path = out / f"{shard:04d}.npz"
        if path.exists() and len(read_shard(path)) == len(indices):
            continue
        if time.monotonic() >= deadline_s:
            return
        utterances = [
            speak(np.random.default_rng((seed, index)), split, flite_share=flite_share)
            for index in indices
        ]
        write_shard(path, utterances)
        _LOG.info("%s: %d of %d utterances", out, indices.stop, count)


def run(options: argparse.Namespace) -> None:
    """Make the corpus that the options describe."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    build(
        options.out,
        count=options.count,
        seed=options.seed,
        split=options.split,
        per_shard=options.per_shard,
        flite_share=options.flite_share,
        minutes=options.minutes,
    )


if __name__ == "__main__":
    from training.commands import main

    main("data", "speech")
