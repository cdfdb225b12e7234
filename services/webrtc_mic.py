"""Reads what the far end sends, always: a track that nobody reads grows without end in aiortc."""

import numpy as np
import numpy.typing as npt
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError
from av import AudioFrame

from services.mic import MIC_RATE, Mirror


async def drain(track: MediaStreamTrack) -> None:
    """Read a track to its end and forget it."""
    try:
        while True:
            await track.recv()
    except MediaStreamError:
        return


async def mirror(track: MediaStreamTrack, mic: Mirror) -> None:
    """Read a microphone to its end; at the end of it what is begun ends, too."""
    try:
        while True:
            frame = await track.recv()
            if isinstance(frame, AudioFrame) and frame.sample_rate == MIC_RATE:
                mic.push(mono(frame), frame.pts)
    except MediaStreamError:
        return
    finally:
        mic.close()


def mono(frame: AudioFrame) -> npt.NDArray[np.int16]:
    """A decoded frame's channels (int16, interleaved) as their mean."""
    samples = frame.to_ndarray().reshape(-1, frame.layout.nb_channels)
    return np.asarray(samples.astype(np.int32).mean(1), np.int16)
