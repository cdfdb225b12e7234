"""Hold plans against each other on held-out clips: `viva eval clips DIR --plan A --plan B`.

Every clip is rendered by each plan as `viva render` does it: its portrait and sound, streaming,
with pictures. The opening is read from the decoded flow and held against the true gap; pictures
are measured as those of any video (`services/video_watch.py`) and against those of the first
plan, which is the reference.

Shape legend: T = the clip's 48 frames, H, W = picture, C = colours.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from audio.chunk import AudioChunk
from pipeline.gates import missed
from pipeline.model import Model, load_model, read_config
from pipeline.observe import open_observed
from pipeline.plan import Plan
from pipeline.plan_parse import load_plan
from services.clips_report import ClipCurves, PlanResult, clips_report
from services.report_page import report_path, write_report
from services.video_figures import Figures, picture_figures, portrait_figures
from services.video_watch import VideoWatch
from training.clip import FPS, NUM_FRAMES, SAMPLE_RATE
from training.errors import InputError
from training.eval_codec import motion_codec
from training.eval_speech import (
    LEAD_FRAMES,
    PUSH_SAMPLES,
    Spoken,
    figures_of,
    session_sound,
    spoken,
)
from training.held_out import HeldOutClip, held_out_clips
from training.shards import shard_paths
from video.crop import Box
from video.face_reader import FaceReader, FaceReading
from video.identity import describe_face
from video.sharpness import sharpness

SHOWN_CLIPS = 3
SHOWN_EVERY = 6  # frames of a clip on the contact sheet
SHOWN_PX = 112
HIGH_IS_GOOD = ("sharpness_of_portrait", "psnr_db", "ssim")
Pictures = npt.NDArray[np.uint8]


@dataclass(slots=True, kw_only=True)
class _PlanRun:
    """What a plan made of the clips so far; pictures only of the first few, small."""

    plan: Plan
    spoken: list[Spoken] = field(default_factory=list)
    pictures: list[Figures] = field(default_factory=list)
    shown: list[ClipCurves] = field(default_factory=list)
    evaluations: int = 0
    chunks: int = 0
    wall_s: float = 0.0


def measure_plans(
    model: Model,
    plans: list[Plan],
    clips: list[HeldOutClip],
    seed: int,
    on_progress: Callable[[int, int], None],
) -> list[PlanResult]:
    """Render every clip by every plan; `on_progress` takes renders done and those in all.

    Raises:
        InputError: no clip's mouth moves.
    """
    moving = [clip for clip in clips if clip.moves]
    if not moving:
        raise InputError("no clip whose mouth moves: give more clips")
    runs = [_PlanRun(plan=plan) for plan in plans]
    for number, clip in enumerate(moving):
        reference: Pictures | None = None
        for place, run in enumerate(runs):
            frames_THWC = _render(model, run, clip, seed)
            _look(run, clip, frames_THWC, reference, shown=number < SHOWN_CLIPS)
            reference = frames_THWC if reference is None else reference
            on_progress(number * len(runs) + place + 1, len(runs) * len(moving))
    first = figures_of(runs[0].spoken)["opening_corr"]
    return [_result(run, first, is_reference=run is runs[0]) for run in runs]


def _render(model: Model, run: _PlanRun, clip: HeldOutClip, seed: int) -> Pictures:
    """The clip's pictures by a plan; its curves and cost are noted."""
    reader = FaceReader(motion_codec(model), clip.portrait, clip.points)
    parts: list[FaceReading] = []
    sound_S = session_sound(clip.arrays["samples"])
    session = open_observed(
        model,
        run.plan,
        clip.portrait,
        sample_rate=SAMPLE_RATE,
        seed=seed,
        on_latents=lambda latents: parts.append(reader.read(latents)),
        pictures=True,
    )
    pieces = (
        AudioChunk(samples_T=sound_S[at : at + PUSH_SAMPLES], sample_rate=SAMPLE_RATE, pts=at)
        for at in range(0, len(sound_S), PUSH_SAMPLES)
    )
    began_s = time.monotonic()
    frames = np.concatenate([video.frames_THWC for video, _ in session.run(pieces)])
    run.wall_s += time.monotonic() - began_s
    run.evaluations += session.num_evaluations
    run.chunks += len(parts)
    run.spoken.append(spoken(FaceReading.joined(parts), clip))
    return frames[LEAD_FRAMES : LEAD_FRAMES + NUM_FRAMES]


def _look(
    run: _PlanRun,
    clip: HeldOutClip,
    frames_THWC: Pictures,
    reference_THWC: Pictures | None,
    *,
    shown: bool,
) -> None:
    """Measure a clip's pictures."""
    height, width = frames_THWC.shape[1:3]
    watch = VideoWatch(Fraction(FPS), Box(x=0, y=0, width=width, height=height))
    others = [None] * len(frames_THWC) if reference_THWC is None else reference_THWC
    for frame_HWC, other_HWC in zip(frames_THWC, others, strict=True):
        watch.push(frame_HWC, other_HWC)
    watch.finish()
    view = watch.align(Image.fromarray(clip.arrays["ref_rgb"]))
    figures = picture_figures(watch)
    if view is not None:
        figures |= portrait_figures(watch, describe_face(view.grey), sharpness(view.native_grey))
    run.pictures.append(figures)
    if shown:
        pictures = [Image.fromarray(f).resize((SHOWN_PX, SHOWN_PX)) for f in frames_THWC]
        curves = run.spoken[-1]
        run.shown.append(ClipCurves(curves.opening_T, curves.gap_T, pictures[::SHOWN_EVERY]))


def _result(run: _PlanRun, first_corr: float, *, is_reference: bool) -> PlanResult:
    """A plan's figures over all clips: means, beside them the worst clip's drift."""
    figures = figures_of(run.spoken)
    figures["opening_corr_change"] = figures["opening_corr"] - first_corr
    names = ["identity_from_portrait", "sharpness_of_portrait", "flicker_levels"]
    names += ["face_colour_drift_levels"] + ([] if is_reference else ["psnr_db", "ssim"])
    for name in names:
        values = [clip[name] for clip in run.pictures]
        figures[name] = float(np.mean(values))
        figures[f"{name}_worst_clip"] = (min if name in HIGH_IS_GOOD else max)(values)
    figures |= {
        "evaluations": float(run.evaluations),
        "evaluations_per_chunk": run.evaluations / run.chunks,
        "wall_s": run.wall_s,
        "clips": float(len(run.spoken)),
    }
    kinds = ("clips",) if is_reference else ("clips", "clips_reference")
    rounded = {name: round(float(value), 4) for name, value in figures.items()}
    failed = [name for kind in kinds for name in missed(kind, rounded)]
    return PlanResult(plan=run.plan.name, figures=rounded, missed=failed, shown=run.shown)


def main() -> None:
    """Print one JSON object with each plan's figures and the gates they miss."""
    parser = argparse.ArgumentParser(description=__doc__, prog="viva eval clips")
    parser.add_argument("clips", type=Path, help="folder of held-out shards")
    parser.add_argument("--model", default="pocket", help="name or folder of a model")
    parser.add_argument(
        "--plan", action="append", help="several; the first is the reference (default: the model's)"
    )
    parser.add_argument("--limit", type=int, default=8, help="clips at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", default="", help="HTML file to write")
    args = parser.parse_args()
    page = report_path(args.report)
    if args.limit < 1:
        raise InputError(f"--limit {args.limit}: measure one clip at least")
    shard_paths(args.clips)
    plans = [load_plan(name) for name in args.plan or [read_config(args.model)[1].plan]]
    names = [plan.name for plan in plans]
    if len(set(names)) < len(names):
        raise InputError(f"--plan {', '.join(names)}: a plan is named twice, name each once")
    model = load_model(args.model)
    clips = list(held_out_clips(args.clips, args.limit))
    results = measure_plans(model, plans, clips, args.seed, _show_progress)
    if page is not None:
        write_report(page, clips_report(args.model, args.clips.name, results, float(FPS)))
    header = {"eval": "clips", "model": args.model, "seed": args.seed, "reference": plans[0].name}
    by_plan = {r.plan: r.figures | {"missed": r.missed} for r in results}
    print(json.dumps(header | {"plans": by_plan}))  # noqa: T201 - the command's result


def _show_progress(done: int, total: int) -> None:
    """One line that is written over, where somebody looks at a terminal."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{done} of {total} renders" + ("\n" if done == total else ""))


if __name__ == "__main__":
    main()
