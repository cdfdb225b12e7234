"""Faces that flash, for a real engine and a real process: `python -m tests.support.flash_face`.

The bar code holds the frame's number in this process and the session; a face knows no epochs.

Shape legend: T = samples or frames, H, W = rows and columns, C = channels.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np
import torch

from audio.chunk import AudioChunk
from pipeline.live_engine import LiveEngine
from pipeline.live_face import FaceRefused, StageTime
from pipeline.session_state import SessionState
from pipeline.sync import Pair
from services.model_engine import engine_of
from services.model_process import add_serving_options, run
from services.model_server import Tell
from tests.support.flash_picture import Code, draw, has_beep, session_number
from video.chunk import VideoChunk

FPS = Fraction(25)
CHUNK_FRAMES, LOOKAHEAD_FRAMES = 12, 3


class FlashFace:
    """Draws a chunk as soon as its sound and three frames more are there, in `work_s`."""

    fps, chunk_frames, lookahead_frames = FPS, CHUNK_FRAMES, LOOKAHEAD_FRAMES
    rungs: tuple[int, ...] = ()

    def __init__(
        self, session: str, *, size: tuple[int, int], sample_rate: int, work_s: float
    ) -> None:
        self.size, self.sample_rate = size, sample_rate
        self._session, self._work_s = session, work_s
        self._heard_T = np.zeros(0, np.float32)
        self._num_chunks = 0
        self._times: list[StageTime] = []

    def push(self, sound: AudioChunk) -> Iterator[Pair]:
        self._heard_T = np.concatenate([self._heard_T, sound.samples_T])
        frame = int(self.sample_rate / FPS)
        while len(self._heard_T) >= (CHUNK_FRAMES + LOOKAHEAD_FRAMES) * frame:
            chunk_T = self._heard_T[: CHUNK_FRAMES * frame]
            self._heard_T = self._heard_T[CHUNK_FRAMES * frame :]
            yield self._chunk(chunk_T)

    def collect(self) -> Iterator[Pair]:
        return iter(())

    def save_time(self, rung: int) -> None:
        del rung  # nothing here can be left out

    def stage_times(self) -> Sequence[StageTime]:
        times, self._times = self._times, []
        return times

    def export_state(self) -> SessionState:
        return SessionState(
            tensors={"heard_T": torch.from_numpy(self._heard_T.copy())},
            numbers={"num_chunks": self._num_chunks},
        )

    def import_state(self, state: SessionState) -> None:
        self._heard_T = state.tensors["heard_T"].numpy().copy()
        self._num_chunks = state.numbers["num_chunks"]

    def close(self) -> None:
        pass

    def _chunk(self, sound_T: np.ndarray) -> Pair:
        """A chunk's pictures with its sound."""
        began_s = time.monotonic()
        number, first = self._num_chunks, self._num_chunks * CHUNK_FRAMES
        self._num_chunks += 1
        (width, height), session = self.size, session_number(self._session)
        parts = np.split(sound_T * 32768, CHUNK_FRAMES)
        frames_THWC = np.stack(
            [
                draw(
                    Code(first + n, 0, session),
                    is_flash=has_beep(part_T),
                    height=height,
                    width=width,
                )
                for n, part_T in enumerate(parts)
            ]
        )
        time.sleep(max(0.0, began_s + self._work_s - time.monotonic()))
        times_ms = {"began_ms": 1e3 * began_s, "ended_ms": 1e3 * time.monotonic()}
        self._times.append(StageTime(stage="flash", chunk=number, **times_ms))
        video = VideoChunk(frames_THWC=frames_THWC, pts=first, time_base=1 / FPS)
        frame = int(self.sample_rate / FPS)
        return video, AudioChunk(samples_T=sound_T, sample_rate=self.sample_rate, pts=first * frame)


class FlashFaces:
    """Opens faces that flash; an empty portrait is refused."""

    name, plan_name, fps, chunk_frames = "flash", "flash", FPS, CHUNK_FRAMES

    def __init__(self, *, side: int = 256, work_s: float = 0.02) -> None:
        self.native_size, self._work_s = (side, side), work_s

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
    ) -> FlashFace:
        del seed, crop, plan
        if not portrait:
            raise FaceRefused("portrait", "portrait: is empty; give a picture")
        size = size or self.native_size
        return FlashFace(session, size=size, sample_rate=sample_rate, work_s=self._work_s)

    def close(self) -> None:
        pass


def main() -> int:
    parser = argparse.ArgumentParser()
    add_serving_options(parser)
    parser.set_defaults(capacity=8)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--work-ms", type=float, default=20.0, help="how long a chunk takes")
    arguments = parser.parse_args()

    def make(tell: Tell) -> LiveEngine:
        faces = FlashFaces(side=arguments.side, work_s=arguments.work_ms / 1000)
        return engine_of(faces, tell, capacity=arguments.capacity)

    return run(arguments, make)


if __name__ == "__main__":
    sys.exit(main())
