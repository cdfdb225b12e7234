"""Speech of any length for measurements: a short recording over and over, written in pieces."""

import wave
from pathlib import Path

import numpy as np

from audio.source import FileSource


def write_tiled_speech(recording: Path, path: Path, seconds: int) -> None:
    """Write `seconds` of the recording, repeated, as a 16-bit WAV."""
    source = FileSource(recording)
    once_T = np.concatenate([chunk.samples_T for chunk in source.chunks()])
    once = (np.clip(once_T, -1, 1) * 32767).astype("<i2").tobytes()
    missing_bytes = 2 * seconds * source.sample_rate
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(source.sample_rate)
        while missing_bytes > 0:
            file.writeframes(once[:missing_bytes])
            missing_bytes -= len(once)
