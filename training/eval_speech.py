"""Measure faces generated from sound alone on held-out clips: `viva eval speech --clips DIR`.

Each clip's portrait and sound go through the shipped pipeline as `viva render` runs it: streaming,
the plan's steps, the session's own noise, blinks and head motion; only the pixels are left to the
reading. Another clip's sound makes the control. Opening and width are read from decoded flow at lip
points; amplitudes are relative to the same reading of the exact flow.

Shape legend: T = 48 frames.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from audio.chunk import AudioChunk
from pipeline.curves import amplitude_ratio, best_lag, correlation, runs
from pipeline.gates import missed
from pipeline.model import Model, load_model
from pipeline.observe import open_observed
from pipeline.plan import Plan
from pipeline.plan_parse import load_plan
from training.clip import FPS, LEAD_SAMPLES, NUM_FRAMES, SAMPLE_RATE
from training.errors import InputError
from training.eval_codec import motion_codec
from training.held_out import HeldOutClip, held_out_clips
from training.visemes import PRESS
from video.face_reader import FaceReader, FaceReading

# Sound before the clip in whole frames, so that a clip's frame is a frame of the session.
LEAD_FRAMES = LEAD_SAMPLES * FPS // SAMPLE_RATE
PRESSED = 0.9  # viseme strength of lips in contact
CLOSED_PX = 1.5  # how far from the truth's reading lips still count as closed
ROUNDING_PX = 1.5  # clips whose width changes less say nothing of rounding
PUSH_SAMPLES = 1600
# Figures of the control by the ends of their names.
CONTROLS = {
    "corr": "opening_corr",
    "press_closed_share": "press_closed_share",
    "rounding_corr": "rounding_corr",
}
Curve = npt.NDArray[np.float64]
Figures = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """Curves over a clip's 48 frames: generated, from exact flow, and the true gap."""

    opening_T: Curve
    width_T: Curve
    darkness_T: Curve
    exact_opening_T: Curve
    exact_width_T: Curve
    gap_T: Curve
    pressed_T: npt.NDArray[np.bool_]


def session_sound(samples_S: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
    """Return a clip's sound so cut that the clip begins `LEAD_FRAMES` frames into the session."""
    extra = LEAD_SAMPLES - LEAD_FRAMES * SAMPLE_RATE // FPS
    sound: npt.NDArray[np.float32] = samples_S[extra:].astype(np.float32) / 32768.0
    return sound


def generate(
    model: Model, plan: Plan, clip: HeldOutClip, sound_S: npt.NDArray[np.float32], seed: int
) -> FaceReading:
    """Return the reading of the clip's frames, generated from a sound as it streams in."""
    reader = FaceReader(motion_codec(model), clip.portrait, clip.points)
    parts: list[FaceReading] = []
    session = open_observed(
        model,
        plan,
        clip.portrait,
        sample_rate=SAMPLE_RATE,
        seed=seed,
        on_latents=lambda latents: parts.append(reader.read(latents)),
        pictures=False,
    )
    pieces = (
        AudioChunk(samples_T=sound_S[at : at + PUSH_SAMPLES], sample_rate=SAMPLE_RATE, pts=at)
        for at in range(0, len(sound_S), PUSH_SAMPLES)
    )
    for _ in session.run(pieces):
        pass
    return FaceReading.joined(parts)


def spoken(reading: FaceReading, clip: HeldOutClip) -> Spoken:
    """Put generated curves beside the true ones."""
    exact = clip.exact_reading()
    shown = slice(LEAD_FRAMES, LEAD_FRAMES + NUM_FRAMES)

    def curve(values: torch.Tensor) -> Curve:
        return values.double().numpy()

    return Spoken(
        opening_T=curve(reading.opening_px_N[shown]),
        width_T=curve(reading.width_px_N[shown]),
        darkness_T=curve(reading.darkness_N[shown]),
        exact_opening_T=curve(exact.opening_px_N),
        exact_width_T=curve(exact.width_px_N),
        gap_T=clip.openness,
        pressed_T=clip.arrays["visemes"][:, PRESS] > PRESSED,
    )


def press_distances(clip: Spoken) -> list[float]:
    """Return per p, b, m how far (px) the lips stay from the true closure, at the best frame.

    The frame before and after the contact count too: one frame of lag is allowed.
    """
    distance_T = clip.opening_T - clip.exact_opening_T[clip.pressed_T].mean()
    near = [slice(max(0, r.start - 1), r.stop + 1) for r in runs(clip.pressed_T, 1)]
    return [float(distance_T[part].min()) for part in near]


def figures_of(clips: list[Spoken]) -> Figures:
    """Return the figures over clips whose mouths move; those without a case are left out."""
    opening = [clip.opening_T for clip in clips]
    gaps = [clip.gap_T for clip in clips]
    corrs = [correlation(o, g) for o, g in zip(opening, gaps, strict=True)]
    lag, lag_corr = best_lag(opening, gaps)
    presses = [d for clip in clips if clip.pressed_T.any() for d in press_distances(clip)]
    rounding = [
        correlation(clip.width_T, clip.exact_width_T)
        for clip in clips
        if clip.exact_width_T.std() > ROUNDING_PX
    ]
    ratios = [amplitude_ratio(clip.opening_T, clip.exact_opening_T) for clip in clips]
    means = {
        "opening_corr": corrs,
        "press_closed_share": [float(d < CLOSED_PX) for d in presses],
        "press_distance_px": presses,
        "rounding_corr": rounding,
        "darkness_corr": [correlation(clip.darkness_T, clip.gap_T) for clip in clips],
    }
    figures = {name: float(np.mean(values)) for name, values in means.items() if values}
    return figures | {
        "opening_corr_worst_tenth": float(np.percentile(corrs, 10)),
        "lag_frames": float(lag),
        "corr_at_best_lag": lag_corr,
        "opening_amplitude": float(np.median(ratios)),
        "presses": float(len(presses)),
    }


def measure(model: Model, plan: Plan, clips: list[HeldOutClip], seed: int) -> Figures:
    """Generate every clip from its own and from the next clip's sound; return the figures.

    Raises:
        InputError: there are no two clips whose mouths move.
    """
    moving = [clip for clip in clips if clip.moves]
    if len(moving) < 2:
        raise InputError("--clips: fewer than two clips whose mouths move: give more clips")
    sounds = [session_sound(clip.arrays["samples"]) for clip in moving]
    own, wrong = [], []
    for index, clip in enumerate(moving):
        own.append(spoken(generate(model, plan, clip, sounds[index], seed), clip))
        other = sounds[(index + 1) % len(sounds)]
        wrong.append(spoken(generate(model, plan, clip, other, seed), clip))
    control = figures_of(wrong)
    figures = figures_of(own) | {
        f"wrong_sound_{name}": control[whole]
        for name, whole in CONTROLS.items()
        if whole in control
    }
    return {name: round(value, 4) for name, value in figures.items()} | {"clips": len(moving)}


def main() -> None:
    """Print one JSON object with the figures and the gates they miss."""
    parser = argparse.ArgumentParser(description=__doc__, prog="viva eval speech")
    parser.add_argument("--clips", type=Path, required=True, help="folder of held-out shards")
    parser.add_argument("--model", default="pocket", help="name or folder of a model")
    parser.add_argument("--plan", default=None, help="plan, else the model's own")
    parser.add_argument("--limit", type=int, default=48, help="clips at most")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if not any(args.clips.glob("clips_*.npz")):
        parser.error(f"--clips {args.clips}: no clips_*.npz there; make some with viva data make")
    model = load_model(args.model)
    plan = load_plan(args.plan or model.config.plan)
    clips = list(held_out_clips(args.clips, args.limit))
    figures = measure(model, plan, clips, args.seed)
    header = {"eval": "speech", "model": args.model, "plan": plan.name}
    print(json.dumps(header | figures | {"missed": missed("speech", figures)}))  # noqa: T201 - the command's result


if __name__ == "__main__":
    main()
