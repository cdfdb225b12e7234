"""Measures how fast `viva render` is: seconds of video per second of work, and where time goes.

    python benchmarks/render_speed.py [--model pocket] [--seconds 30] [--plan NAME] [--size WxH]

Every phase is timed inside the real render, in one thread of control; phases do not overlap.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from report import table, write_report
from tiled_speech import write_tiled_speech

from pipeline.catalog import model_path
from pipeline.conditioner import Conditioner
from pipeline.decode_stage import DecodeStage
from pipeline.denoise_stage import DenoiseStage
from pipeline.speech import SpeechWindows
from services.options import RenderRequest, parse_crop_option, parse_size
from services.render import RenderSummary, render
from video.record import Mp4Recorder

PHASES = (
    ("speech encoder", SpeechWindows, "push"),
    ("prior", Conditioner, "push"),
    ("DiT", DenoiseStage, "process"),
    ("decode", DecodeStage, "process"),
    ("MP4 picture", Mp4Recorder, "write_video"),
    ("MP4 sound", Mp4Recorder, "write_audio"),
    ("MP4 finish", Mp4Recorder, "close"),
)


@contextmanager
def timed_phases() -> Iterator[dict[str, list[float]]]:
    """Time every call of every phase; give seconds per call by phase."""
    calls: dict[str, list[float]] = defaultdict(list)
    with ExitStack() as stack:
        for phase, owner, name in PHASES:
            timed = _timed(getattr(owner, name), calls[phase])
            stack.enter_context(mock.patch.object(owner, name, timed))
        yield calls


def _timed(function: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    """The function, its durations appended to `seconds`."""

    def timed(*arguments: object, **options: object) -> object:
        began_s = time.perf_counter()
        result = function(*arguments, **options)
        seconds.append(time.perf_counter() - began_s)
        return result

    return timed


def describe(summary: RenderSummary, calls: dict[str, list[float]]) -> str:
    """The result as Markdown."""
    work_s = summary.wall_s - summary.load_s
    rows = []
    for phase, seconds in calls.items():
        total_s = sum(seconds)
        median_ms = 1000 * float(np.median(seconds)) if seconds else 0.0
        rows.append(_row(phase, total_s, summary.video_s, work_s, f"{median_ms:.1f}"))
    other_s = work_s - sum(sum(seconds) for seconds in calls.values())
    rows.append(_row("everything else", other_s, summary.video_s, work_s, ""))
    rows.append(_row("**all**", work_s, summary.video_s, work_s, ""))
    head = ["phase", "s", "share", "real-time factor", "median ms a call"]
    return (
        f"Model {summary.model}, plan {summary.plan}, {summary.width}x{summary.height} at "
        f"{summary.fps} fps, {summary.video_s:.1f} s of video ({summary.num_frames} frames). "
        f"Loading and opening took {summary.load_s:.2f} s and is not counted.\n\n"
        f"**Real-time factor {summary.real_time_factor:.2f}** "
        f"(seconds of video per second of work; 1 is live).\n\n{table(head, rows)}"
    )


def _row(phase: str, total_s: float, video_s: float, work_s: float, median: str) -> list[str]:
    """One phase of the table."""
    factor = video_s / total_s if total_s > 0 else float("inf")
    return [phase, f"{total_s:.2f}", f"{100 * total_s / work_s:.0f} %", f"{factor:.1f}", median]


def main() -> None:
    """Render once to warm up, once to measure, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--plan")
    parser.add_argument("--size", type=parse_size)
    parser.add_argument("--crop", default="auto", type=parse_crop_option)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--portrait", type=Path)
    parser.add_argument("--audio", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder = model_path(options.model)
    portrait = options.portrait or min((folder / "portraits").glob("*.png"))
    with tempfile.TemporaryDirectory() as work:
        sound = Path(work) / "sound.wav"
        write_tiled_speech(options.audio or folder / "speech.flac", sound, options.seconds)
        request = RenderRequest(
            portrait=portrait,
            audio=sound,
            out=Path(work) / "out.mp4",
            model=options.model,
            plan=options.plan,
            size=options.size,
            crop=options.crop,
            max_seconds=Fraction(2),
            overwrite=True,
        )
        render(request, lambda *_: None)
        with timed_phases() as calls:
            summary = render(_whole(request), lambda *_: None)
    body = describe(summary, calls)
    print(body)
    print(write_report("render_speed", "Speed of viva render", body))


def _whole(request: RenderRequest) -> RenderRequest:
    """The same render without its limit."""
    from dataclasses import replace

    return replace(request, max_seconds=None)


if __name__ == "__main__":
    main()
