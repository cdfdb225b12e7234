"""Measures the model's codec alone: pictures a second of the streaming decode, on 1 and 2 threads.

    python benchmarks/codec_decode.py [--model pocket] [--sizes 256 512] [--threads 1 2]

Latents come as they do in a session, a chunk of the plan at a time; they are those that a session
makes for the shipped speech, so that heads and lips move as usual.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from report import table, write_report

from audio.source import FileSource
from pipeline.catalog import model_path
from pipeline.model import Model, load_model
from pipeline.observe import open_observed
from pipeline.plan_parse import load_plan
from video.reference import load_portrait

GOAL_FPS = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """One measurement: the median of the chunks, and the processor's time over all of them."""

    side_px: int
    threads: int
    frames: int
    fps: float
    worst_chunk_ms: float
    cpu_ms_per_frame: float


def session_latents(model: Model, image_BCHW: torch.Tensor, chunks: int) -> list[torch.Tensor]:
    """Return the latents of the first chunks of a session with the shipped speech."""
    source = FileSource(model.folder / "speech.flac")
    latents: list[torch.Tensor] = []
    session = open_observed(
        model,
        load_plan(model.config.plan),
        image_BCHW,
        sample_rate=source.sample_rate,
        seed=0,
        on_latents=latents.append,
        pictures=False,
    )
    for _ in session.run(source.chunks()):
        if len(latents) >= chunks:
            break
    return latents


@torch.inference_mode()
def measure(
    model: Model, image_BCHW: torch.Tensor, latents: list[torch.Tensor], threads: int, repeat: int
) -> Speed:
    """Decode the chunks `repeat` times over in one session and time each of them."""
    torch.set_num_threads(threads)
    state = model.codec.start(image_BCHW)
    model.codec.decode(latents[0], state)
    seconds, began_cpu_s = [], time.process_time()
    for chunk in latents * repeat:
        began_s = time.perf_counter()
        model.codec.decode(chunk, state)
        seconds.append(time.perf_counter() - began_s)
    cpu_s = time.process_time() - began_cpu_s
    per_chunk = latents[0].shape[2] * model.codec.frames_per_latent
    frames = per_chunk * len(seconds)
    return Speed(
        side_px=image_BCHW.shape[-1],
        threads=threads,
        frames=frames,
        fps=per_chunk / sorted(seconds)[len(seconds) // 2],
        worst_chunk_ms=1000.0 * max(seconds),
        cpu_ms_per_frame=1000.0 * cpu_s / frames,
    )


def describe(model: Model, portrait: Path, speeds: list[Speed]) -> str:
    """The result as Markdown."""
    rows = [
        [
            f"{speed.side_px}x{speed.side_px}",
            str(speed.threads),
            f"**{speed.fps:.1f}**",
            f"{speed.cpu_ms_per_frame:.1f}",
            f"{speed.worst_chunk_ms:.0f}",
            str(speed.frames),
        ]
        for speed in speeds
    ]
    head = ["size", "threads", "fps (median)", "CPU ms a frame", "worst chunk ms", "frames"]
    at_goal = [s for s in speeds if s.side_px == 256 and s.threads == 2]
    verdict = "".join(
        f"At 256x256 on 2 threads: {s.fps:.1f} fps, goal {GOAL_FPS:.0f}: "
        f"{'reached' if s.fps >= GOAL_FPS else 'NOT reached'}.\n\n"
        for s in at_goal
    )
    return f"Model {model.name}, portrait {portrait.name}.\n\n{verdict}{table(head, rows)}"


def main() -> None:
    """Measure every size on every number of threads and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--portrait", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--chunks", type=int, default=8, help="different chunks")
    parser.add_argument("--repeat", type=int, default=3, help="times over")
    options = parser.parse_args()
    model = load_model(options.model)
    portrait = options.portrait or min((model_path(options.model) / "portraits").glob("*.png"))
    speeds = []
    for side in options.sizes:
        image_BCHW = load_portrait(portrait, size=(side, side)).image_CHW[None]
        latents = session_latents(model, image_BCHW, options.chunks)
        for threads in options.threads:
            speeds.append(measure(model, image_BCHW, latents, threads, options.repeat))
    body = describe(model, portrait, speeds)
    print(body)
    print(write_report("codec_decode", "Speed of the codec's decoder", body))


if __name__ == "__main__":
    main()
