"""Speech with exact phoneme times, from Debian's flite: the American voices it is built with.

T is samples at 16 kHz. The program runs once a sentence; it writes the sound to a file and says
where each phone ends (`-psdur`). The statistical voices end with the last phone; the diphone voices
kal and kal16 leave out the second half of the last pause.
"""

import functools
import shutil
import subprocess
import tempfile
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr

from training.arpabet import PAUSE, mnemonic
from training.espeak import SAMPLE_RATE, SpeechError, Utterance

# The mean pitch of each voice as recorded, in hertz. kal is kal16 over a telephone, at 8 kHz.
VOICE_PITCH_HZ = {"awb": 130.0, "kal": 100.0, "kal16": 100.0, "rms": 103.0, "slt": 174.0}
VOICES = tuple(VOICE_PITCH_HZ)
HELD_OUT_VOICE = "rms"
_TIMEOUT_S = 60.0
# What a phone's stated end may lie beyond the sound: a frame of the statistical voices.
_FRAME_S = 0.006


@dataclass(frozen=True)
class _Phone:
    end_s: float
    name: str


@functools.cache
def _program() -> str:
    found = shutil.which("flite")
    if found is None:
        raise SpeechError("flite: not found; install the Debian package flite")
    return found


def is_available() -> bool:
    """Whether the program is installed."""
    return shutil.which("flite") is not None


def synthesize(
    text: str, voice: str, *, stretch: float = 1.0, pitch_hz: float | None = None
) -> Utterance:
    """Speak English `text` and say when each phoneme begins, as espeak mnemonics.

    Args:
        text: what to say.
        voice: one of `VOICES`.
        stretch: length of everything relative to the voice's own, 0.5 to 2.
        pitch_hz: mean pitch; None keeps the voice's own.

    Raises:
        SpeechError: the program or the voice is missing, or the text holds nothing to say.
    """
    if voice not in VOICES:
        raise SpeechError(f"voice {voice!r}: unknown to flite; choose one of {', '.join(VOICES)}")
    if not 0.5 <= stretch <= 2.0:
        raise SpeechError(f"stretch {stretch}: give 0.5 to 2")
    settings = {"duration_stretch": stretch, "int_f0_target_mean": pitch_hz}
    samples_T, phones = _speak(text, voice, {k: v for k, v in settings.items() if v is not None})
    phonemes: list[tuple[float, str]] = []
    onset_s = 0.0
    for phone in phones:
        phonemes.append((onset_s, mnemonic(phone.name)))
        onset_s = phone.end_s
    if all(name == PAUSE for _, name in phonemes):
        raise SpeechError(f"text {text[:40]!r}: flite made no sound; give it words to say")
    return Utterance(samples_T=samples_T, phonemes=phonemes)


def _speak(text: str, voice: str, settings: dict[str, float]) -> tuple[np.ndarray, list[_Phone]]:
    options = [part for key, value in settings.items() for part in ("--setf", f"{key}={value:.4f}")]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        command = [_program(), "-voice", voice, *options, "-psdur", "-o", str(path), "-t", text]
        try:
            done = subprocess.run(  # noqa: S603 - an argument list: no shell reads the text
                command, capture_output=True, text=True, check=True, timeout=_TIMEOUT_S
            )
            samples_T = _read_wave(path)
        except (OSError, subprocess.SubprocessError, wave.Error, EOFError) as error:
            raise SpeechError(f"text {text[:40]!r}: flite failed to speak it: {error}") from error
    return samples_T, _read_phones(done.stdout, len(samples_T) / SAMPLE_RATE)


def _read_wave(path: Path) -> np.ndarray:
    with wave.open(str(path)) as sound:
        pcm_T = np.frombuffer(sound.readframes(sound.getnframes()), np.int16)
        rate = sound.getframerate()
    native_T = pcm_T.astype(np.float32) / 32768.0
    return np.asarray(soxr.resample(native_T, rate, SAMPLE_RATE), np.float32)


def _read_phones(report: str, duration_s: float) -> list[_Phone]:
    """Read "name:end name:end ..."; the last phone ends with the sound at the latest."""
    pairs = [item.rpartition(":") for item in report.split()]
    phones = [_Phone(min(float(end), duration_s), name) for name, _, end in pairs if name]
    if phones and phones[-1].end_s < duration_s - _FRAME_S:
        raise SpeechError(
            f"flite spoke {duration_s:.3f} s and gave phones for {phones[-1].end_s:.3f} s: "
            "install the flite of Debian"
        )
    return phones
