"""A corpus from real recordings: `python -m training.recordings --audio DIR --out DIR`.

Every `NAME.wav` or `NAME.flac` needs a transcript `NAME.txt` of the American English spoken in it.
The words are aligned with the sound (`training/aligner.py`), the recording is cut at its pauses
into utterances of at most 8 s, and these are written as shards of the format of
`training/corpus.py`, named `recordings-NNNN.npz` so that they may lie beside synthetic ones.
Recordings for validation belong in another folder, spoken by other people.
"""

import argparse
import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import soxr

from audio.errors import AudioError
from audio.source import FileSource
from training.aligner import AlignError, align, words_of
from training.arpabet import PAUSE
from training.corpus import MAX_DURATION_S, Spoken, finish, write_shard
from training.espeak import SAMPLE_RATE, Utterance

MAX_RECORDING_S = 120.0
_SUFFIXES = (".wav", ".flac")
_MAX_TRANSCRIPT_BYTES = 64 * 1024
# A pause this long can be cut in its middle; a silent end keeps this much.
_CUT_PAUSE_S = 0.15
_KEPT_PAUSE_S = 0.3
_LOG = logging.getLogger(__name__)


class RecordingError(ValueError):
    """A recording or its transcript cannot be used."""


def find_recordings(folder: Path) -> list[Path]:
    """The sound files of a folder by name.

    Raises:
        RecordingError: there are none, or two share a name.
    """
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in _SUFFIXES)
    if not paths:
        raise RecordingError(f"{folder}: holds no .wav or .flac files")
    for path, following in itertools.pairwise(paths):
        if path.stem == following.stem:
            raise RecordingError(f"{path}: {following.name} has the same transcript; remove one")
    return paths


def read_recording(path: Path) -> tuple[np.ndarray, str]:
    """Samples at 16 kHz and the transcript of a sound file.

    Raises:
        RecordingError: the transcript is missing, or one of the two cannot be read or is too long.
    """
    text_path = path.with_suffix(".txt")
    if not text_path.is_file():
        raise RecordingError(f"{path}: no transcript; write what is said into {text_path.name}")
    if text_path.stat().st_size > _MAX_TRANSCRIPT_BYTES:
        raise RecordingError(f"{text_path}: longer than {MAX_RECORDING_S:.0f} s of speech can be")
    try:
        text = text_path.read_text(encoding="utf-8-sig")
        source = FileSource(path, max_seconds=MAX_RECORDING_S)
        native_T = np.concatenate([chunk.samples_T for chunk in source.chunks()])
    except (OSError, UnicodeDecodeError) as error:
        raise RecordingError(f"{text_path}: cannot be read as UTF-8 text: {error}") from error
    except AudioError as error:
        raise RecordingError(str(error)) from error
    return np.asarray(soxr.resample(native_T, source.sample_rate, SAMPLE_RATE), np.float32), text


def utterances_of(path: Path) -> list[Spoken]:
    """Align a recording and cut it into utterances; each carries the whole transcript.

    Raises:
        RecordingError: the recording or its transcript cannot be used; names the file.
    """
    samples_T, text = read_recording(path)
    try:
        aligned = align(samples_T, words_of(text))
    except AlignError as error:
        raise RecordingError(f"{path}: {error}") from error
    name, texts = f"recording/{path.stem}", (" ".join(text.split()),)
    parts = (excerpt(aligned, start_s, end_s) for start_s, end_s in cuts(aligned))
    return [finish(part.samples_T, part.phonemes, name, texts) for part in parts]


def cuts(aligned: Utterance) -> list[tuple[float, float]]:
    """Start and end of utterances of at most 8 s; they end in pauses wherever there is one.

    Silence beyond 0.3 s at either end of the recording is left out.
    """
    onsets = [onset for onset, _ in aligned.phonemes]
    ends = [*onsets[1:], aligned.duration_s]
    spans = list(zip(onsets, ends, (name for _, name in aligned.phonemes), strict=True))
    spoken = [span for span in spans if span[2] != PAUSE]
    if not spoken:
        return []
    start_s = max(spoken[0][0] - _KEPT_PAUSE_S, 0.0)
    last_s = min(spoken[-1][1] + _KEPT_PAUSE_S, aligned.duration_s)
    pauses = [(a + b) / 2 for a, b, name in spans if name == PAUSE and b - a >= _CUT_PAUSE_S]
    found: list[tuple[float, float]] = []
    while last_s - start_s > MAX_DURATION_S:
        end_s = _last_within(pauses, start_s) or _last_within(onsets, start_s)
        end_s = end_s or start_s + MAX_DURATION_S
        found.append((start_s, end_s))
        start_s = end_s
    return [*found, (start_s, last_s)]


def _last_within(times: Sequence[float], start_s: float) -> float | None:
    """The last time that makes an utterance from `start_s` long but not too long."""
    return max((t for t in times if 1.0 < t - start_s <= MAX_DURATION_S), default=None)


def excerpt(aligned: Utterance, start_s: float, end_s: float) -> Utterance:
    """The part of an utterance between two times, its phonemes with it."""
    samples_T = aligned.samples_T[round(start_s * SAMPLE_RATE) : round(end_s * SAMPLE_RATE)]
    begun = [name for onset, name in aligned.phonemes if onset <= start_s]
    later = [(onset - start_s, name) for onset, name in aligned.phonemes if start_s < onset < end_s]
    return Utterance(samples_T=samples_T, phonemes=[*((0.0, name) for name in begun[-1:]), *later])


def build(audio: Path, out: Path, *, per_shard: int = 250, skip_bad: bool = False) -> int:
    """Turn a folder of recordings into shards under `out`; return the number of utterances.

    Args:
        audio: folder of sound files and transcripts.
        out: folder for the shards.
        per_shard: utterances a shard.
        skip_bad: leave out a recording that cannot be used, with a line in the log.

    Raises:
        RecordingError: a recording cannot be used (without `skip_bad`), or none can.
    """
    paths = find_recordings(audio)
    num_made = 0
    for shard, utterances in enumerate(_batches(_spoken(paths, skip_bad), per_shard)):
        out.mkdir(parents=True, exist_ok=True)
        write_shard(out / f"recordings-{shard:04d}.npz", utterances)
        num_made += len(utterances)
        _LOG.info("%s: %d utterances", out, num_made)
    if not num_made:
        raise RecordingError(f"{audio}: none of its {len(paths)} recordings can be used")
    return num_made


def _spoken(paths: Iterable[Path], skip_bad: bool) -> Iterator[Spoken]:
    for path in paths:
        try:
            yield from utterances_of(path)
        except RecordingError as error:
            if not skip_bad:
                raise
            _LOG.warning("left out: %s", error)


def _batches(spoken: Iterator[Spoken], size: int) -> Iterator[list[Spoken]]:
    batch: list[Spoken] = []
    for one in spoken:
        batch.append(one)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def main() -> None:
    """Command line of `python -m training.recordings`."""
    parser = argparse.ArgumentParser(description="Make a corpus from real recordings.")
    parser.add_argument(
        "--audio", type=Path, required=True, help="folder of .wav or .flac files, each with a .txt"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the shards")
    parser.add_argument("--per-shard", type=int, default=250)
    parser.add_argument(
        "--skip-bad", action="store_true", help="leave out recordings that cannot be used"
    )
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        build(args.audio, args.out, per_shard=args.per_shard, skip_bad=args.skip_bad)
    except RecordingError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
