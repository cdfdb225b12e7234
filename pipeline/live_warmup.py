"""Runs a model before anybody waits for it: everything is loaded then, and its time is known.

Shape legend: T = samples.
"""

import io
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from audio.chunk import AudioChunk
from pipeline.capacity import BUSY_SHARE, Capacity, capacity
from pipeline.live_face import Face, FaceMaker
from pipeline.sync import Pair

NUM_WARM = 2
NUM_TIMED = 5
SAMPLE_RATE = 48_000
SESSION = "warm-up"
# How long to wait for a chunk that a chain elsewhere makes.
STALL_S = 120.0
POLL_S = 0.002


class ColdModel(RuntimeError):
    """A model that does not warm up: one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Warmth:
    """What a warm-up found: `took_s` from a chunk's sound to its pictures, of which `busy_s` keep
    whoever asked; what the chain carries; and how long all of it took."""

    took_s: float
    busy_s: float
    capacity: Capacity
    warm_s: float


def warm_up(
    faces: FaceMaker,
    *,
    share: float = BUSY_SHARE,
    clock_s: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Warmth:
    """Make a few chunks of a made-up portrait and time them.

    Raises:
        FaceRefused: the model makes no such session.
        ColdModel: no pictures come out.
    """
    began_s = clock_s()
    face = faces.open(
        _portrait(faces.native_size),
        session=SESSION,
        seed=0,
        sample_rate=SAMPLE_RATE,
        crop="center",
    )
    try:
        stream = _Stream(face, clock_s, sleep)
        runs = [stream.one_chunk() for _ in range(NUM_WARM + NUM_TIMED)]
        pace_s = stream.burst_s(NUM_TIMED)
        face.stage_times()
    finally:
        face.close()
    timed = runs[NUM_WARM:]
    took_s, busy_s = (statistics.median(times) for times in zip(*timed, strict=True))
    found = capacity([pace_s], float(face.chunk_frames / face.fps), share)
    return Warmth(took_s=took_s, busy_s=busy_s, capacity=found, warm_s=clock_s() - began_s)


class _Stream:
    """A face that hears noise, chunk by chunk."""

    def __init__(
        self, face: Face, clock_s: Callable[[], float], sleep: Callable[[float], None]
    ) -> None:
        self._face, self._clock_s, self._sleep = face, clock_s, sleep
        self._num_pushed = self._num_out = self._at = 0

    def one_chunk(self) -> tuple[float, float]:
        """How long one chunk took until it was out, and until the face could be asked again."""
        began_s = self._clock_s()
        self._push()
        pushed_s = self._clock_s()
        self._wait(self._num_pushed)
        return self._clock_s() - began_s, pushed_s - began_s

    def burst_s(self, count: int) -> float:
        """How long a chunk takes if others are under way, as far as stages work side by side."""
        began_s = self._clock_s()
        self._push()
        self._wait(self._num_pushed)
        alone_s = self._clock_s() - began_s
        began_s = self._clock_s()
        for _ in range(1 + count):
            self._push()
        self._wait(self._num_pushed)
        return max((self._clock_s() - began_s - alone_s) / count, 1e-6)

    def _push(self) -> None:
        face = self._face
        count = face.chunk_frames + (0 if self._num_pushed else face.lookahead_frames)
        frame = int(face.sample_rate / face.fps)
        noise_T = np.random.default_rng(self._num_pushed).standard_normal(count * frame)
        sound = AudioChunk(
            samples_T=(0.05 * noise_T).astype(np.float32),
            sample_rate=face.sample_rate,
            pts=self._at * frame,
        )
        self._at += count
        self._num_pushed += 1
        self._take(face.push(sound))

    def _take(self, pairs: Iterator[Pair]) -> None:
        self._num_out += sum(video.num_frames for video, _ in pairs)

    def _wait(self, num_chunks: int) -> None:
        """Until so many chunks are out."""
        began_s = self._clock_s()
        while self._num_out < num_chunks * self._face.chunk_frames:
            if self._clock_s() - began_s > STALL_S:
                raise ColdModel(f"no pictures came out of the model for {STALL_S:.0f} s")
            self._sleep(POLL_S)
            self._take(self._face.collect())


def _portrait(size: tuple[int, int]) -> bytes:
    """A picture file of noise: what is in it changes no time."""
    width, height = (max(64, side) for side in size)
    pixels_HWC = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    stored = io.BytesIO()
    Image.fromarray(pixels_HWC).save(stored, "PNG")
    return stored.getvalue()
