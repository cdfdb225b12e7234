"""Measures whether a generated mouth follows a recorded voice, whose true mouth nobody knows.

The recording goes through the pipeline as `viva render` runs it. Two readings are held against the
loudness of the voiced band: the lips' distance in the decoded flow, and how dark the pixels are
where the mouth opens. Points of the face are those of the framing (`video/face_points.py`).

Shape legend: S = samples, T = video frames.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from audio.align import num_frames
from audio.chunk import AudioChunk
from audio.envelope import PAUSE_S, band_power, quiet_frames, voiced_envelope
from audio.source import FileSource
from pipeline.curves import best_lag, correlation, runs
from pipeline.errors import ModelError
from pipeline.model import Model, load_model
from pipeline.observe import open_observed
from pipeline.plan_parse import load_plan
from video.crop import Crop
from video.face_reader import FaceReader, FaceReading
from video.motion_codec import MotionCodec
from video.reference import load_portrait

SETTLE_FRAMES = 2  # of a pause, at its start and end: lips close after and part before the voice
CONTROL_SHIFT_S = 1.3  # the same curve this much late must not follow the voice
Curve = npt.NDArray[np.float64]
Figures = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalRequest:
    """What to measure on: a portrait, a sound, a model; None is the model's own choice."""

    portrait: Path
    audio: Path
    model: str = "pocket"
    plan: str | None = None
    seed: int = 0
    crop: Crop
    max_seconds: Fraction = Fraction(120)


def measure_recording(request: EvalRequest) -> Figures:
    """Return the figures of one portrait and one recording.

    Raises:
        AudioError, ImageError, ModelError, PlanError, WeightsError: an input cannot be used.
    """
    model = load_model(request.model)
    reader, image_BCHW = open_reader(model, request)
    source = FileSource(request.audio)
    sound: list[AudioChunk] = []
    parts: list[FaceReading] = []
    session = open_observed(
        model,
        load_plan(request.plan or model.config.plan),
        image_BCHW,
        sample_rate=source.sample_rate,
        seed=request.seed,
        on_latents=lambda latents: parts.append(reader.read(latents)),
        pictures=False,
    )
    for _ in session.run(_heard(source, request.max_seconds, sound)):
        pass
    samples_S = np.concatenate([chunk.samples_T for chunk in sound])
    count = num_frames(len(samples_S), source.sample_rate, model.fps)
    power_T = band_power(samples_S, source.sample_rate, model.fps, count)
    return recording_figures(FaceReading.joined(parts), power_T, model.fps)


def open_reader(model: Model, request: EvalRequest) -> tuple[FaceReader, torch.Tensor]:
    """Return the portrait [1, 3, H, W] at the model's size and a reader of its motion.

    Raises:
        ImageError: the portrait cannot be used.
        ModelError: the model's codec does not move a portrait.
    """
    codec = model.parts.codec
    if not isinstance(codec, MotionCodec):
        raise ModelError(f"model {model.name}: faces are read from a motion codec: use pocket")
    portrait = load_portrait(request.portrait, size=model.config.native_size, crop=request.crop)
    image_BCHW = portrait.image_CHW[None]
    return FaceReader(codec, image_BCHW), image_BCHW


def _heard(
    source: FileSource, max_seconds: Fraction, heard: list[AudioChunk]
) -> Iterator[AudioChunk]:
    """The sound up to the limit, kept as it passes."""
    end = int(max_seconds * source.sample_rate)
    for chunk in source.chunks():
        if chunk.pts >= end:
            return
        kept = AudioChunk(
            samples_T=chunk.samples_T[: end - chunk.pts],
            sample_rate=chunk.sample_rate,
            pts=chunk.pts,
        )
        heard.append(kept)
        yield kept


def recording_figures(reading: FaceReading, power_T: Curve, fps: Fraction) -> Figures:
    """Hold curves of a face against the power of the voice."""
    count = len(power_T)
    opening_T = reading.opening_px_N[:count].double().numpy()
    darkness_T = reading.darkness_N[:count].double().numpy()
    envelope_T = voiced_envelope(power_T)
    lag, lag_corr = best_lag([opening_T], [envelope_T])
    figures = {
        "envelope_corr": correlation(opening_T, envelope_T),
        "envelope_lag_frames": float(lag),
        "envelope_corr_at_best_lag": lag_corr,
        "shifted_control_corr": correlation(
            np.roll(opening_T, int(CONTROL_SHIFT_S * fps)), envelope_T
        ),
        "darkness_envelope_corr": correlation(darkness_T, envelope_T),
        "darkness_opening_corr": correlation(darkness_T, opening_T),
        "opening_std_px": float(opening_T.std()),
        "opening_p95_px": float(np.percentile(opening_T, 95) - np.percentile(opening_T, 2)),
    }
    figures |= pause_figures(opening_T, quiet_frames(power_T), fps)
    return {name: round(value, 4) for name, value in figures.items()} | {"frames": float(count)}


def pause_figures(opening_T: Curve, quiet_T: npt.NDArray[np.bool_], fps: Fraction) -> Figures:
    """Return how open the mouth is in pauses, as a share of its range; nothing without pauses.

    0 is the second percentile of the opening, 1 its 95th while the voice is loud.
    """
    shortest = int(PAUSE_S * fps) + 1 + 2 * SETTLE_FRAMES
    pauses = [
        opening_T[run.start + SETTLE_FRAMES : run.stop - SETTLE_FRAMES]
        for run in runs(quiet_T, shortest)
    ]
    if not pauses or quiet_T.all():
        return {"pause_frames": 0.0}
    in_pauses = np.concatenate(pauses)
    closed = float(np.percentile(opening_T, 2))
    wide = float(np.percentile(opening_T[~quiet_T], 95))
    share = (float(in_pauses.mean()) - closed) / max(wide - closed, 1e-6)
    return {"pause_opening_share": share, "pause_frames": float(len(in_pauses))}
