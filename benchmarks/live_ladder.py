"""What each rung of the live ladder saves: a chunk's time, rungs taken in turns on one session.

    OMP_NUM_THREADS=1 python benchmarks/live_ladder.py --rounds 6 --sizes 256 512

Processor time of one thread, so that other work on the machine counts for little; medians.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from audio.chunk import AudioChunk
from pipeline.ladder import HOLD, RUNG_NAMES
from pipeline.live_face import FaceRefused
from pipeline.model import load_model
from pipeline.model_face import ModelFace, ModelFaces
from pipeline.plan_parse import load_plan

RATE = 48_000
PORTRAIT = Path("configs/models/pocket/portraits/ada.png")


class Heard:
    """A face with its place in a stream of quiet noise."""

    def __init__(self, face: ModelFace) -> None:
        """Begin before the first sound."""
        self._face, self._at = face, 0

    def chunk_ms(self, rung: int) -> dict[str, float]:
        """Processor time of one more chunk on a rung, and the stages' shares of its wall time."""
        face = self._face
        count = face.chunk_frames + (0 if self._at else face.lookahead_frames)
        frame = int(RATE / face.fps)
        noise_T = np.random.default_rng(self._at).standard_normal(count * frame)
        sound = AudioChunk(
            samples_T=(0.05 * noise_T).astype(np.float32), sample_rate=RATE, pts=self._at * frame
        )
        self._at += count
        face.save_time(rung)
        began_s, wall_s = time.process_time(), time.perf_counter()
        made = list(face.push(sound))
        took = {"cpu": 1000 * (time.process_time() - began_s)}
        took["wall"] = 1000 * (time.perf_counter() - wall_s)
        if sum(video.num_frames for video, _ in made) != face.chunk_frames:
            raise SystemExit("a chunk of sound gave no chunk of pictures")
        return took | {one.stage: one.ended_ms - one.began_ms for one in face.stage_times()}


def measured(face: ModelFace, rounds: int) -> dict[int, dict[str, float]]:
    """Median times by rung."""
    heard = Heard(face)
    for _ in range(6):  # until the rings are full: nothing is left out before
        heard.chunk_ms(0)
    rungs = [rung for rung in range(HOLD) if rung == 0 or rung in face.rungs]
    times: dict[int, list[dict[str, float]]] = {rung: [] for rung in rungs}
    for _ in range(rounds):
        for rung in rungs:
            times[rung].append(heard.chunk_ms(rung))
    return {
        rung: {key: statistics.median(one[key] for one in found) for key in found[0]}
        for rung, found in times.items()
    }


def main() -> None:
    """Measure and print a table a size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--plan", default="live")
    options = parser.parse_args()
    faces = ModelFaces(load_model("pocket"), load_plan(options.plan))
    print(f"plan {options.plan}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for side in options.sizes:
        try:
            face = faces.open(
                PORTRAIT.read_bytes(),
                session=f"s{side}",
                seed=0,
                sample_rate=RATE,
                size=(side, side),
                crop="none",
            )
        except FaceRefused as error:
            raise SystemExit(str(error)) from error
        for rung, found in measured(face, options.rounds).items():
            parts = ", ".join(f"{key} {value:.0f} ms" for key, value in found.items())
            print(f"{side} px, rung {rung} ({RUNG_NAMES[rung]}): {parts}")
        face.close()


if __name__ == "__main__":
    main()
