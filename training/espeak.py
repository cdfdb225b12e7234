"""Speech with exact phoneme times, from libespeak-ng (the library, not the program).

T is samples at 16 kHz.
"""

import ctypes
import ctypes.util
import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import soxr

SAMPLE_RATE = 16_000

# From espeak-ng's speak_lib.h.
_OUTPUT_SYNCHRONOUS = 2
_INITIALIZE_PHONEME_EVENTS = 0x0001
_INITIALIZE_DONT_EXIT = 0x8000
_CHARS_UTF8 = 1
_PARAMETER_RATE, _PARAMETER_PITCH, _PARAMETER_RANGE = 1, 3, 4
_EVENT_TERMINATED, _EVENT_PHONEME = 0, 7


class SpeechError(ValueError):
    """Speech could not be made: the library is missing, or refused the voice or the text."""


@dataclass(frozen=True)
class Utterance:
    """Speech and the times of its phonemes.

    Attributes:
        samples_T: float32 mono at 16 kHz, about -1..1.
        phonemes: (onset in seconds, espeak mnemonic), ascending; the next onset ends a phoneme.
    """

    samples_T: np.ndarray
    phonemes: list[tuple[float, str]]

    @property
    def duration_s(self) -> float:
        """Length of the sound in seconds."""
        return len(self.samples_T) / SAMPLE_RATE


class _EventId(ctypes.Union):
    # `string` holds up to 8 bytes without a terminator, so it must not be read as a C string.
    _fields_ = [
        ("number", ctypes.c_int),
        ("name", ctypes.c_void_p),
        ("string", ctypes.c_uint8 * 8),
    ]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    ]


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


class _Library:
    """The initialised library: it keeps global state, so a process has exactly one."""

    def __init__(self) -> None:
        name = ctypes.util.find_library("espeak-ng") or "libespeak-ng.so.1"
        try:
            self._lib: Any = ctypes.CDLL(name)
        except OSError as error:
            raise SpeechError(
                "libespeak-ng: not found; install the Debian package libespeak-ng1"
            ) from error
        options = _INITIALIZE_PHONEME_EVENTS | _INITIALIZE_DONT_EXIT
        self.sample_rate = int(self._lib.espeak_Initialize(_OUTPUT_SYNCHRONOUS, 0, None, options))
        if self.sample_rate <= 0:
            raise SpeechError(
                "libespeak-ng: found no voices; install the Debian package espeak-ng-data"
            )
        self._pcm = bytearray()
        self._events: list[tuple[int, str]] = []
        # Kept on the instance: the library calls it for as long as the process lives.
        self._callback = _Callback(self._receive)
        self._lib.espeak_SetSynthCallback(self._callback)

    def _receive(self, pcm: Any, num_samples: int, events: Any) -> int:
        if pcm and num_samples > 0:
            self._pcm += ctypes.string_at(pcm, 2 * num_samples)
        index = 0
        while events and events[index].type != _EVENT_TERMINATED:
            if events[index].type == _EVENT_PHONEME:
                mnemonic = bytes(events[index].id.string).split(b"\0")[0].decode("utf-8", "replace")
                self._events.append((int(events[index].sample), mnemonic))
            index += 1
        return 0

    def select(self, voice: str, parameters: dict[int, int]) -> None:
        """Choose the voice, then the speed and pitch (a voice resets them)."""
        if self._lib.espeak_SetVoiceByName(voice.encode()) != 0:
            raise SpeechError(
                f"voice {voice!r}: unknown to espeak-ng; `espeak-ng --voices` lists the names"
            )
        for parameter, value in parameters.items():
            self._lib.espeak_SetParameter(parameter, value, 0)

    def speak(self, text: str) -> tuple[np.ndarray, list[tuple[int, str]]]:
        """Speak `text` with what was selected: int16 samples and (sample, mnemonic) onsets."""
        self._pcm, self._events = bytearray(), []
        data = text.encode() + b"\0"
        status = self._lib.espeak_Synth(
            data, ctypes.c_size_t(len(data)), 0, 1, 0, _CHARS_UTF8, None, None
        )
        if status != 0 or not any(name.strip("_:") for _, name in self._events):
            raise SpeechError(f"text {text[:40]!r}: espeak-ng made no sound; give it words to say")
        return np.frombuffer(bytes(self._pcm), dtype=np.int16), list(self._events)


@functools.cache
def _library() -> _Library:
    return _Library()


def is_available() -> bool:
    """Whether the library and its voices are installed."""
    try:
        _library()
    except SpeechError:
        return False
    return True


def synthesize(
    text: str, voice: str, *, rate_wpm: int = 165, pitch: int = 50, pitch_range: int = 50
) -> Utterance:
    """Speak `text` and say when each phoneme begins.

    Args:
        text: what to say.
        voice: an espeak voice, with or without a variant: "en-us", "de+f3".
        rate_wpm: speed in words a minute, 80 to 450.
        pitch: base pitch, 0 to 100.
        pitch_range: liveliness of the pitch, 0 (monotone) to 100.

    Raises:
        SpeechError: the library or the voice is missing, or the text holds nothing to say.
    """
    library = _library()
    library.select(
        voice, {_PARAMETER_RATE: rate_wpm, _PARAMETER_PITCH: pitch, _PARAMETER_RANGE: pitch_range}
    )
    pcm_T, events = library.speak(text)
    native_T = pcm_T.astype(np.float32) / 32768.0
    samples_T = np.asarray(soxr.resample(native_T, library.sample_rate, SAMPLE_RATE), np.float32)
    phonemes = [(sample / library.sample_rate, mnemonic) for sample, mnemonic in events]
    return Utterance(samples_T=samples_T, phonemes=phonemes)
