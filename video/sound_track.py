"""A film's sound as an MP4 of its own, encoded once, to be copied beside pictures later."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from video.mp4 import FAST_START, audio_stream, mp4_writer
from video.output_file import OutputFile
from video.record import SoundChunk


def write_sound_track(path: Path, sound: Iterable[SoundChunk], sample_rate: int) -> int:
    """Encode mono sound at a rate that AAC has; returns how many samples there were.

    Raises:
        OSError: the disk refused the data.
        Whatever `sound` raises.
    """
    num_samples = 0
    with (
        OutputFile(path) as output,
        mp4_writer(output, FAST_START, sample_rate) as container,
    ):
        stream = audio_stream(container, sample_rate)
        for chunk in sound:
            if chunk.samples_T.size == 0:
                continue
            samples_CT = np.ascontiguousarray(chunk.samples_T, dtype=np.float32)[None]
            frame = av.AudioFrame.from_ndarray(samples_CT, format="fltp", layout="mono")
            frame.sample_rate = sample_rate
            frame.pts, frame.time_base = num_samples, Fraction(1, sample_rate)
            container.mux(stream.encode(frame))
            output.check()
            num_samples += samples_CT.shape[1]
        container.mux(stream.encode(None))
        container.close()
        output.check()
    return num_samples
