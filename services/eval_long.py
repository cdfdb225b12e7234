"""Streams minutes of speech through the pipeline and measures whether the picture stays itself.

Nothing grows with the length but a line of figures a minute and the pictures of the contact sheet.

Shape legend: B = batch (1), C = channels, T = frames, N = frames of one chunk, H, W = picture.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from audio.chunk import AudioChunk
from audio.source import FileSource
from pipeline.model import load_model
from pipeline.observe import open_observed
from pipeline.plan_parse import load_plan
from services.eval_recording import EvalRequest, open_reader
from services.long_watch import LongWatch
from video.chunk import VideoChunk
from video.steadiness import PopMeter

PAUSES_S = (1.0, 4.0)  # between repetitions of the speech, in turn
SHEET_MINUTES = (0, 1, 5, 10)
SHEET_FRAMES, SHEET_EVERY = 8, 10  # pictures a row, frames between them
SETTLED_MINUTE = 2  # that later ones are held against
TELLABLE = {"identity_drift": 0.001, "face_colour_drift_levels": 0.25}
Record = dict[str, float]


def looped_speech(path: Path, num_seconds: float) -> Iterator[AudioChunk]:
    """Yield the speech over and over with pauses between, in pieces of a second at most."""
    source = FileSource(path)
    once = [chunk.samples_T for chunk in source.chunks()]
    rate = source.sample_rate
    left, at, turn = int(num_seconds * rate), 0, 0
    while left > 0:
        silence = np.zeros(int(PAUSES_S[turn % len(PAUSES_S)] * rate), np.float32)
        turn += 1
        for samples in (*once, silence):
            for start in range(0, min(left, len(samples)), rate):
                piece = samples[start : min(start + rate, left, len(samples))]
                yield AudioChunk(samples_T=piece, sample_rate=rate, pts=at)
                at += len(piece)
            left -= min(left, len(samples))


class Sheet:
    """A contact sheet: a row of pictures for each moment."""

    def __init__(self, num_frames: int, fps: float) -> None:
        """Keep rows of the moments that a video of so many frames has."""
        length = SHEET_FRAMES * SHEET_EVERY
        begins = (min(int(m * 60 * fps), num_frames - length) for m in SHEET_MINUTES)
        wanted = (m * 60 * fps <= num_frames for m in SHEET_MINUTES)
        kept = [begin for begin, fits in zip(begins, wanted, strict=True) if fits]
        self._wanted = [b + k * SHEET_EVERY for b in kept for k in range(SHEET_FRAMES)]
        self._pictures: list[npt.NDArray[np.uint8]] = []

    def push(self, video: VideoChunk) -> None:
        """Keep what the sheet shows of these pictures."""
        while len(self._pictures) < len(self._wanted):
            index = self._wanted[len(self._pictures)] - video.pts
            if not 0 <= index < video.num_frames:
                return
            self._pictures.append(video.frames_THWC[index].copy())

    def save(self, path: Path) -> None:
        """Write the rows that are complete."""
        num_rows = len(self._pictures) // SHEET_FRAMES
        rows = [
            np.concatenate(self._pictures[row * SHEET_FRAMES : (row + 1) * SHEET_FRAMES], axis=1)
            for row in range(num_rows)
        ]
        if rows:
            Image.fromarray(np.concatenate(rows)).save(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class LongRequest:
    """What to stream and how closely to look: pictures are decoded in minutes 1 and 2, in every
    `every`-th and in the last; with `sink` off the network does not see the reference.
    """

    source: EvalRequest
    minutes: int
    every: int = 1
    sink: bool = True

    def looks_at(self, minute: int) -> bool:
        """Whether pictures of a minute, counted from 1, are decoded."""
        return minute <= SETTLED_MINUTE or minute == self.minutes or minute % self.every == 0


def measure_long(
    request: LongRequest, sheet: Path | None, on_minute: Callable[[Record], None]
) -> tuple[Record, list[Record]]:
    """Stream minutes of speech; give each minute's figures as it passes, return the whole's too.

    Raises:
        AudioError, ImageError, ModelError, PlanError, WeightsError: an input cannot be used.
    """
    source, minutes = request.source, request.minutes
    model = load_model(source.model)
    plan = load_plan(source.plan or model.config.plan)
    reader, image_BCHW = open_reader(model, source)
    period = plan.frames_per_chunk * model.codec.frames_per_latent

    def wanted(picture: int) -> bool:
        return request.looks_at(int(picture / (60 * model.fps)) + 1)

    watch = LongWatch(reader, model.config.native_size, period, wanted)
    session = open_observed(
        model,
        plan,
        image_BCHW,
        sample_rate=FileSource(source.audio).sample_rate,
        seed=source.seed,
        on_latents=watch.on_latents,
        pictures=wanted,
        sink=request.sink,
    )
    rows: list[Record] = []
    contact = Sheet(int(60 * minutes * model.fps), float(model.fps))
    for video, _ in session.run(looped_speech(source.audio, 60.0 * minutes)):
        watch.on_video(video)
        if wanted(video.pts):
            contact.push(video)
        if (video.pts + video.num_frames) / model.fps >= 60 * (len(rows) + 1):
            rows.append({"minute": float(len(rows) + 1)} | watch.take_minute())
            on_minute(_rounded(rows[-1]))
    if sheet is not None:
        contact.save(sheet)
    figures = long_figures(rows) | pop_figures(watch.pops) | growth_figures(rows)
    figures["evaluations"] = float(session.num_evaluations)
    return _rounded(figures), rows


def long_figures(rows: list[Record]) -> Record:
    """Return the worst of the minutes looked at, and the loss of identity since the first."""
    seen = [row for row in rows if "rest_db" in row]
    return {
        "minutes": float(len(rows)),
        "minutes_looked_at": float(len(seen)),
        "background_drift_levels": max(row["background_drift_levels"] for row in seen),
        "face_colour_drift_levels": max(row["face_colour_drift_levels"] for row in seen),
        "identity_loss_db": seen[0]["rest_db"] - min(row["rest_db"] for row in seen),
        "rest_db": min(row["rest_db"] for row in seen),
        "blinks_per_minute": sum(row["blinks"] for row in seen) / len(seen),
        "yaw_wander_rad": float(np.std([row["yaw_mean_rad"] for row in seen])),
        "peak_resident_mb": rows[-1]["peak_resident_mb"],
        "resident_growth_mb": rows[-1]["peak_resident_mb"] - rows[0]["peak_resident_mb"],
    }


def growth_figures(rows: list[Record]) -> Record:
    """Return the last minute beside the first (speed) and the second (memory, drift).

    Nothing under three minutes. Drifts too small to be told from nothing count as such. The speed
    by CPU time is that of a machine on which nobody else works.
    """
    if len(rows) <= SETTLED_MINUTE:
        return {}
    first, settled, last = rows[0], rows[SETTLED_MINUTE - 1], rows[-1]
    later = [row["resident_mb"] for row in rows[SETTLED_MINUTE - 1 :]]

    def growth(name: str) -> float:
        return last[name] / max(settled[name], TELLABLE[name])

    return {
        "last_minute_speed": first["wall_s"] / last["wall_s"],
        "last_minute_speed_by_cpu": first["cpu_s"] / last["cpu_s"],
        "memory_growth_mb": max(later) - later[0],
        "identity_drift_growth": growth("identity_drift"),
        "colour_drift_growth": growth("face_colour_drift_levels"),
        "wall_s": sum(row["wall_s"] for row in rows),
        "real_time_factor": 60.0 * len(rows) / sum(row["wall_s"] for row in rows),
    }


def pop_figures(pops: PopMeter) -> Record:
    """Return the change of pictures at borders of chunks and elsewhere, levels of 255."""
    changes = pops.changes()
    return {
        "pop_ratio": pops.ratio(),
        "border_change_levels": float(changes[0]),
        "largest_change_levels": float(changes.max()),
        "smallest_change_levels": float(changes.min()),
    }


def _rounded(record: Record) -> Record:
    return {name: round(value, 4) for name, value in record.items()}
