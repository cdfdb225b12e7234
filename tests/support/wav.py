"""Sound files that a browser can play as its microphone."""

import wave
from pathlib import Path

import av
import numpy as np

from tests.support.flash_picture import Sound

_SPEECH = Path(__file__).parents[2] / "configs" / "models" / "pocket" / "speech.flac"


def write_wav(path: Path, sound_T: Sound, sample_rate: int) -> Path:
    """Write 16-bit mono."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(sound_T.astype("<i2").tobytes())
    return path


def speech_wav(path: Path, sample_rate: int = 48_000) -> Path:
    """Write the model's own speech sample."""
    resampler = av.AudioResampler("s16", "mono", sample_rate)
    with av.open(str(_SPEECH)) as container:
        frames = [*container.decode(audio=0), None]
        pieces = [piece.to_ndarray() for frame in frames for piece in resampler.resample(frame)]
    return write_wav(path, np.concatenate(pieces, axis=1)[0], sample_rate)


def tone(sample_rate: int, seconds: float, hertz: float = 440.0) -> Sound:
    """A sine loud enough for the fake model to flash all the time."""
    times_s = np.arange(round(sample_rate * seconds)) / sample_rate
    return np.round(0.4 * 32767 * np.sin(2 * np.pi * hertz * times_s)).astype(np.int16)
