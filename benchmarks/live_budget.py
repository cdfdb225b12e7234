"""Writes down the live budget: milliseconds of work for each chunk, part by part, against its time.

    python benchmarks/live_budget.py [--model pocket] [--seconds 30] [--threads 2] [--size WxH]

A chunk of the pocket plan shows for 480 ms; what making it takes of that is what a live session has
to spend. Sound arrives as a microphone gives it, in pieces of 20 ms, so a chunk waits for its last
piece and for the speech encoder's look-ahead, and then for this work.
"""

import argparse
import tempfile
import time
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from render_speed import timed_phases
from report import table, write_report
from tiled_speech import write_tiled_speech

from audio.chunk import AudioChunk
from audio.source import FileSource
from pipeline.catalog import model_path
from pipeline.generator import AvatarGenerator
from pipeline.model import load_model
from pipeline.plan_parse import load_plan
from services.options import parse_size
from video.record import Mp4Recorder
from video.reference import load_portrait

PIECE_S = Fraction(1, 50)
WARM_UP_CHUNKS = 2
# The phases of `render_speed` by what they are called here.
PARTS = {
    "speech encoder": "speech encoder (resample, mel, network, align)",
    "prior": "prior and behaviour",
    "DiT": "transformer, all steps",
    "decode": "decoder",
    "MP4 picture": "H.264 encode",
    "MP4 sound": "AAC encode",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Milliseconds a chunk by part, and what the chunk's time and the sound's delay are."""

    parts_ms: dict[str, float]
    worst_ms: dict[str, float]
    num_chunks: int
    chunk_ms: float
    steps: int
    lookahead_ms: float
    cpu_ms: float


def pieces(path: Path) -> tuple[int, list[AudioChunk]]:
    """Return the rate and the sound in pieces as a microphone gives them."""
    source = FileSource(path)
    samples_T = np.concatenate([chunk.samples_T for chunk in source.chunks()])
    length = int(PIECE_S * source.sample_rate)
    cut = [
        AudioChunk(samples_T=samples_T[at : at + length], sample_rate=source.sample_rate, pts=at)
        for at in range(0, len(samples_T), length)
    ]
    return source.sample_rate, cut


def measure(options: argparse.Namespace, sound_path: Path, out: Path) -> Budget:
    """Run one session with every part timed."""
    model = load_model(options.model)
    plan = load_plan(options.plan or model.config.plan)
    size = options.size or model.config.native_size
    folder = model_path(options.model)
    portrait = options.portrait or min((folder / "portraits").glob("*.png"))
    image_BCHW = load_portrait(portrait, size=size).image_CHW[None]
    rate, sound = pieces(sound_path)
    session = AvatarGenerator(model, plan, image_BCHW, sample_rate=rate)
    recorder = Mp4Recorder(out, width=size[0], height=size[1], fps=session.fps, sample_rate=rate)
    began_cpu_s = time.process_time()
    with timed_phases() as calls:
        for video, heard in session.run(iter(sound)):
            recorder.write_video(video)
            recorder.write_audio(heard)
        num_chunks = len(calls["decode"])
        recorder.close()
    cpu_s = time.process_time() - began_cpu_s
    frames = plan.frames_per_chunk * model.codec.frames_per_latent
    return Budget(
        parts_ms={p: 1000.0 * _per_chunk(calls[p], num_chunks) for p in PARTS},
        worst_ms={p: 1000.0 * _worst(calls[p], num_chunks) for p in PARTS},
        num_chunks=num_chunks,
        chunk_ms=float(1000 * frames / session.fps),
        steps=len(plan.steps),
        lookahead_ms=float(1000 * model.speech_encoder().lookahead_s),
        cpu_ms=1000.0 * cpu_s / num_chunks,
    )


def _per_chunk(seconds: list[float], num_chunks: int) -> float:
    """The mean time for a chunk, the first ones left out."""
    skipped = len(seconds) * WARM_UP_CHUNKS // num_chunks
    return sum(seconds[skipped:]) / max(num_chunks - WARM_UP_CHUNKS, 1)


def _worst(seconds: list[float], num_chunks: int) -> float:
    """The longest time for a chunk; parts called once a piece are summed over a chunk's pieces."""
    calls = max(1, len(seconds) // num_chunks)
    sums = [sum(seconds[at : at + calls]) for at in range(0, len(seconds), calls)]
    return max(sums[WARM_UP_CHUNKS:] or sums)


def describe(budget: Budget, threads: int, model: str, size: str) -> str:
    """The result as Markdown."""
    rows = [
        [
            name,
            f"{budget.parts_ms[part]:.1f}",
            f"{100 * budget.parts_ms[part] / budget.chunk_ms:.1f} %",
            f"{budget.worst_ms[part]:.1f}",
        ]
        for part, name in PARTS.items()
    ]
    total = sum(budget.parts_ms.values())
    rows.append(["**all**", f"**{total:.1f}**", f"**{100 * total / budget.chunk_ms:.1f} %**", ""])
    left = budget.chunk_ms - total
    head = ["part", "ms a chunk", "of the chunk's time", "worst ms"]
    return (
        f"Model {model}, {size}, {threads} threads, {budget.steps} steps; a chunk shows for "
        f"{budget.chunk_ms:.0f} ms; {budget.num_chunks} chunks.\n\n{table(head, rows)}\n\n"
        f"**{left:.0f} ms of {budget.chunk_ms:.0f} are left** "
        f"(real-time factor {budget.chunk_ms / total:.2f}). A live chunk's first picture appears "
        f"{budget.chunk_ms:.0f} ms (its sound) + {budget.lookahead_ms:.0f} ms (look-ahead) + "
        f"{total:.0f} ms (work) = {budget.chunk_ms + budget.lookahead_ms + total:.0f} ms after "
        "its first sample, before network and player.\n\n"
        f"The processor worked {budget.cpu_ms:.0f} ms a chunk, all threads together."
        f"{_loaded(budget, total, threads)}\n"
    )


def _loaded(budget: Budget, total_ms: float, threads: int) -> str:
    """A warning where others used the processor, so that the times are not those of idle cores."""
    # Parts that use one thread make idle cores take up to 1.3 times the even share.
    if total_ms < 1.6 * budget.cpu_ms / threads:
        return ""
    return " **The machine was loaded: measure again when it is idle.**"


def main() -> None:
    """Measure one session and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--plan")
    parser.add_argument("--portrait", type=Path)
    parser.add_argument("--audio", type=Path)
    parser.add_argument("--size", type=parse_size)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as work:
        sound = Path(work) / "sound.wav"
        recording = options.audio or model_path(options.model) / "speech.flac"
        write_tiled_speech(recording, sound, options.seconds)
        budget = measure(options, sound, Path(work) / "out.mp4")
    size = "x".join(map(str, options.size or (256, 256)))
    body = describe(budget, options.threads, options.model, size)
    print(body)
    print(write_report("live_budget", "Live budget of a chunk", body))


if __name__ == "__main__":
    main()
