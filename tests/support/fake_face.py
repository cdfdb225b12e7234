"""Faces without a model: pictures say what was heard, and making them takes virtual time.

Shape legend: T = samples or frames, H, W = rows and columns, C = channels.
"""

import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch

from audio.chunk import AudioChunk
from pipeline.live_face import FaceRefused, StageTime
from pipeline.session_state import SessionState
from pipeline.sync import Pair
from video.chunk import VideoChunk

FPS = Fraction(25)
CHUNK_FRAMES = 12
LOOKAHEAD_FRAMES = 3
SIZE = (8, 4)


@dataclass(slots=True)
class FakeClock:
    """Time that passes only where somebody says so; `each` is called every `every_s` of it."""

    now_s: float = 0.0
    every_s: float = 0.04
    each: Callable[[], None] | None = None
    num_ticks: int = 0

    def __call__(self) -> float:
        return self.now_s

    def advance(self, by_s: float) -> None:
        """Let time pass, and the world go on meanwhile."""
        until_s = self.now_s + by_s
        while self.each is not None and self.num_ticks * self.every_s <= until_s + 1e-9:
            self.now_s = max(self.now_s, self.num_ticks * self.every_s)
            self.num_ticks += 1
            self.each()
        self.now_s = max(self.now_s, until_s)


class FakeFace:
    """Pictures whose first pixel is a checksum of all that was heard, the second the rung.

    `cost_s` of virtual time a chunk, less on higher rungs; with `num_held` that many chunks stay
    under way, as in a chain of stages.
    """

    fps, size, sample_rate = FPS, SIZE, 48_000
    chunk_frames, lookahead_frames = CHUNK_FRAMES, LOOKAHEAD_FRAMES

    def __init__(self, maker: "FakeFaces", session: str, seed: int) -> None:
        self.maker, self.session, self.seed = maker, session, seed
        self.rungs: tuple[int, ...] = (1, 2)
        self.heard_T = np.zeros(0, np.float32)
        self.num_chunks = 0
        self.check = seed
        self.rung = 0
        self.under_way: deque[Pair] = deque()
        self.ready_s: deque[float] = deque()
        self.is_closed = False
        self.times: list[StageTime] = []

    def push(self, sound: AudioChunk) -> Iterator[Pair]:
        if self.session in self.maker.broken:
            raise RuntimeError("the model broke")
        self.heard_T = np.concatenate([self.heard_T, sound.samples_T])
        frame = int(self.sample_rate / self.fps)
        needed = (CHUNK_FRAMES + LOOKAHEAD_FRAMES) * frame
        while len(self.heard_T) >= needed:
            self.under_way.append(self._chunk(self.heard_T[: CHUNK_FRAMES * frame]))
            self.heard_T = self.heard_T[CHUNK_FRAMES * frame :]
        yield from self.collect()

    def _chunk(self, sound_T: np.ndarray) -> Pair:
        began_s, cost_s = self.maker.clock.now_s, self.maker.cost_s / (1 + self.rung)
        if self.maker.num_held:
            # Stages elsewhere: each takes its time, the asker none.
            first_s = began_s + cost_s * (1 + self.maker.num_held)
            self.ready_s.append(max([first_s, *(at_s + cost_s for at_s in self.ready_s)]))
        else:
            self.maker.clock.advance(cost_s)
            self.ready_s.append(self.maker.clock.now_s)
        time = StageTime(
            stage="0-fake",
            chunk=self.num_chunks,
            began_ms=1000 * began_s,
            ended_ms=1000 * self.maker.clock.now_s,
        )
        self.times.append(time)
        width, height = self.size
        frames_THWC = np.zeros((CHUNK_FRAMES, height, width, 3), np.uint8)
        for index, part_T in enumerate(np.split(sound_T, CHUNK_FRAMES)):
            self.check = zlib.crc32(part_T.tobytes(), self.check)
            frames_THWC[index, 0, 0] = np.frombuffer(self.check.to_bytes(4, "little"), np.uint8)[:3]
            frames_THWC[index, 0, 1] = self.rung
            frames_THWC[index, 1:] = min(255, int(np.abs(part_T).max() * 255))
        pts = self.num_chunks * CHUNK_FRAMES
        self.num_chunks += 1
        video = VideoChunk(frames_THWC=frames_THWC, pts=pts, time_base=1 / FPS)
        return video, AudioChunk(samples_T=sound_T, sample_rate=self.sample_rate, pts=0)

    def collect(self) -> Iterator[Pair]:
        while self.under_way and self.ready_s[0] <= self.maker.clock.now_s + 1e-9:
            self.ready_s.popleft()
            yield self.under_way.popleft()

    def save_time(self, rung: int) -> None:
        self.rung = rung

    def stage_times(self) -> Sequence[StageTime]:
        times, self.times = self.times, []
        return times

    def export_state(self) -> SessionState:
        assert not self.under_way
        return SessionState(
            tensors={"heard_T": torch.from_numpy(self.heard_T.copy())},
            numbers={"num_chunks": self.num_chunks, "check": self.check},
        )

    def import_state(self, state: SessionState) -> None:
        self.heard_T = state.tensors["heard_T"].numpy().copy()
        self.num_chunks, self.check = state.numbers["num_chunks"], state.numbers["check"]

    def close(self) -> None:
        self.is_closed = True


class FakeFaces:
    """Opens fake faces; a portrait of `b"bad"` is refused."""

    name, plan_name, fps, native_size = "fake", "plain", FPS, SIZE
    chunk_frames = CHUNK_FRAMES

    def __init__(
        self, clock: FakeClock | None = None, *, cost_s: float = 0.0, num_held: int = 0
    ) -> None:
        self.clock = clock or FakeClock()
        self.cost_s, self.num_held = cost_s, num_held
        self.broken: set[str] = set()
        self.opened: list[FakeFace] = []

    def open(
        self,
        portrait: bytes,
        *,
        session: str,
        seed: int,
        sample_rate: int,
        size: tuple[int, int] | None = None,
        crop: str = "",
        plan: str = "",
    ) -> FakeFace:
        del sample_rate, size, crop, plan
        if portrait == b"bad":
            raise FaceRefused("portrait", "portrait: is text, not a PNG, JPEG or WebP picture")
        face = FakeFace(self, session, seed)
        self.opened.append(face)
        return face

    def close(self) -> None:
        for face in self.opened:
            face.close()
