"""Renders for jobs: a small model, a picture, some seconds of sound, and who looks on."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import soundfile

from services.job_states import Progress

RATE = 16_000


class Stopped(Exception):
    """The test has seen enough."""


class Onlooker:
    """Hears everything, and stops the render when told to."""

    def __init__(self, stop_when: Callable[["Onlooker"], bool] = lambda _: False) -> None:
        self.stop_when = stop_when
        self.reports: list[Progress] = []
        self.num_checks = 0
        self.num_borders = 0

    def check(self) -> None:
        self.num_checks += 1
        if self.stop_when(self):
            raise Stopped

    def at_border(self) -> None:
        self.num_borders += 1

    def report(self, progress: Progress) -> None:
        self.reports.append(progress)


def write_sound(path: Path, seconds: float, rate: int = RATE) -> Path:
    """Noise that swells and fades, so that mouths and meters have something to do."""
    time_T = np.arange(int(seconds * rate)) / rate
    noise_T = np.random.default_rng(5).standard_normal(len(time_T))
    soundfile.write(path, 0.1 * noise_T * (1 + np.sin(6 * time_T)), rate)
    return path


def frame_digest(path: Path) -> tuple[int, str]:
    """How many pictures a film has, and a checksum over all of them as decoded."""
    digest, count = hashlib.sha256(), 0
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            digest.update(frame.to_ndarray().tobytes())
            count += 1
    return count, digest.hexdigest()


def sound_of(path: Path) -> np.ndarray:
    """A film's sound as decoded."""
    with av.open(str(path)) as container:
        return np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])
