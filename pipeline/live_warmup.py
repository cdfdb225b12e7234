"""Runs a model before anybody waits for it: everything is loaded then, and its time is known.

Shape legend: T = samples.
"""

import io
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from audio.chunk import AudioChunk
from pipeline.capacity import BUSY_SHARE, Capacity, capacity
from pipeline.live_face import Face, FaceMaker

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
        runs = [_one_chunk(face, index, clock_s, sleep) for index in range(NUM_WARM + NUM_TIMED)]
        face.stage_times()
    finally:
        face.close()
    timed = runs[NUM_WARM:]
    took_s, busy_s = (sorted(times)[len(timed) // 2] for times in zip(*timed, strict=True))
    chunk_s = float(face.chunk_frames / face.fps)
    found = capacity([took for took, _ in timed], chunk_s, share)
    return Warmth(took_s=took_s, busy_s=busy_s, capacity=found, warm_s=clock_s() - began_s)


def _one_chunk(
    face: Face, index: int, clock_s: Callable[[], float], sleep: Callable[[float], None]
) -> tuple[float, float]:
    """How long one chunk took until it was out, and until the face could be asked again."""
    count = face.chunk_frames + (0 if index else face.lookahead_frames)
    frame = int(face.sample_rate / face.fps)
    start = 0 if index == 0 else index * face.chunk_frames + face.lookahead_frames
    noise_T = np.random.default_rng(index).standard_normal(count * frame).astype(np.float32)
    sound = AudioChunk(samples_T=0.05 * noise_T, sample_rate=face.sample_rate, pts=start * frame)
    began_s = clock_s()
    num_out = sum(video.num_frames for video, _ in face.push(sound))
    pushed_s = clock_s()
    while num_out < face.chunk_frames:
        if clock_s() - began_s > STALL_S:
            raise ColdModel(f"no pictures came out of the model for {STALL_S:.0f} s")
        sleep(POLL_S)
        num_out += sum(video.num_frames for video, _ in face.collect())
    return clock_s() - began_s, pushed_s - began_s


def _portrait(size: tuple[int, int]) -> bytes:
    """A picture file of noise: what is in it changes no time."""
    width, height = (max(64, side) for side in size)
    pixels_HWC = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    stored = io.BytesIO()
    Image.fromarray(pixels_HWC).save(stored, "PNG")
    return stored.getvalue()
