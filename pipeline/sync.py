"""Pairs pictures and sound by pts: the only place where the two clocks meet.

Shape legend: T = samples or frames.
"""

from collections import deque
from fractions import Fraction

import numpy as np
import torch

from audio.align import num_frames
from audio.chunk import AudioChunk
from pipeline.session_state import SessionState
from video.chunk import VideoChunk

Pair = tuple[VideoChunk, AudioChunk]


class AVSynchronizer:
    """Holds the sound until the pictures that go with it are there.

    Frame j is shown from j / fps on; it takes the samples whose time lies before (j + 1) / fps.
    After `finish`, pictures beyond the sound are dropped, so `num_frames(sound)` remain.
    """

    def __init__(self, sample_rate: int, fps: Fraction) -> None:
        """Pair sound of this rate, starting at pts 0, with pictures of this rate."""
        self.sample_rate = sample_rate
        self.fps = fps
        self._waiting: deque[AudioChunk] = deque()
        self._end = 0
        self._taken = 0
        self._finished = False

    @property
    def num_samples(self) -> int:
        """Samples heard so far."""
        return self._end

    @property
    def total_frames(self) -> int:
        """Pictures that the sound heard so far lasts."""
        return num_frames(self._end, self.sample_rate, self.fps)

    def hear(self, sound: AudioChunk) -> None:
        """Take the next sound; it is put on the clock right after the last."""
        self._waiting.append(
            AudioChunk(samples_T=sound.samples_T, sample_rate=self.sample_rate, pts=self._end)
        )
        self._end += sound.num_samples

    def finish(self) -> None:
        """Declare that no sound follows: from now on pictures beyond it are dropped."""
        self._finished = True

    def pair(self, video: VideoChunk) -> Pair | None:
        """The pictures with their sound; None if none of the pictures lies within the sound."""
        count = video.num_frames
        if self._finished:
            count = min(count, self.total_frames - video.pts)
        if count <= 0:
            return None
        end_frame = video.pts + count
        end = min(self._first_sample(end_frame), self._end)
        trimmed = VideoChunk(
            frames_THWC=video.frames_THWC[:count], pts=video.pts, time_base=video.time_base
        )
        return trimmed, self._take(end)

    def _first_sample(self, frame: int) -> int:
        """Index of the first sample that is not before the frame's time."""
        seconds = frame / self.fps
        return -(-seconds.numerator * self.sample_rate // seconds.denominator)

    def _take(self, end: int) -> AudioChunk:
        """The sound from where the last pair stopped up to sample `end`."""
        start, self._taken = self._taken, max(end, self._taken)
        parts = []
        while self._waiting and self._waiting[0].pts < end:
            chunk = self._waiting.popleft()
            cut = min(end, chunk.end_pts) - chunk.pts
            parts.append(chunk.samples_T[:cut])
            if cut < chunk.num_samples:
                rest_T = chunk.samples_T[cut:]
                self._waiting.appendleft(
                    AudioChunk(samples_T=rest_T, sample_rate=self.sample_rate, pts=end)
                )
        samples_T = np.concatenate(parts) if parts else np.zeros(0, np.float32)
        return AudioChunk(samples_T=samples_T, sample_rate=self.sample_rate, pts=start)

    def export_state(self) -> SessionState:
        """The waiting sound and the positions."""
        waiting = [chunk.samples_T for chunk in self._waiting]
        samples_T = np.concatenate(waiting) if waiting else np.zeros(0, np.float32)
        return SessionState(
            tensors={"samples_T": torch.from_numpy(samples_T)},
            numbers={"end": self._end, "taken": self._taken, "finished": int(self._finished)},
        )

    def import_state(self, state: SessionState) -> None:
        """Go on from an export of a synchronizer with the same rates."""
        self._end, self._taken = state.numbers["end"], state.numbers["taken"]
        self._finished = bool(state.numbers["finished"])
        samples_T = state.tensors["samples_T"].numpy().copy()
        self._waiting.clear()
        self._waiting.append(
            AudioChunk(samples_T=samples_T, sample_rate=self.sample_rate, pts=self._taken)
        )
