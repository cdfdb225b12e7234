"""Streams minutes of speech through the pipeline and measures whether the picture stays itself.

Nothing grows with the length but a line of figures a minute and the pictures of the contact sheet.

Shape legend: B = batch (1), C = channels, T = frames, N = frames of one chunk, H, W = picture.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from resource import RUSAGE_SELF, getrusage

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn import functional as F

from audio.chunk import AudioChunk
from audio.source import FileSource
from pipeline.model import load_model
from pipeline.observe import open_observed
from pipeline.plan_parse import load_plan
from services.eval_recording import EvalRequest, open_reader
from video.chunk import VideoChunk
from video.face_reader import FaceReader
from video.head_pose import POSE_CHANNELS, POSE_SCALE_6
from video.steadiness import BlinkCounter, DriftMeter, PopMeter

PAUSES_S = (1.0, 4.0)  # between repetitions of the speech, in turn
SHEET_MINUTES = (0, 1, 5, 10)
SHEET_FRAMES, SHEET_EVERY = 8, 10  # pictures a row, frames between them
FACE_BOX = (70, 70, 186, 200)  # left, top, right, bottom of the canonical 256-pixel picture
CHEEKS_BOX = (80, 115, 176, 150)
HEAD_MARGIN_CELLS = 7
Record = dict[str, float]


@dataclass(slots=True)
class MinuteOfFace:
    """What was read from the latents of one minute."""

    lids: list[float]
    rest_db: list[float]
    yaw_rad: list[float]

    @classmethod
    def empty(cls) -> "MinuteOfFace":
        """Nothing read yet."""
        return cls([], [], [])


class LongWatch:
    """All meters of one session; `on_latents` and `on_video` feed it, `take_minute` reads it."""

    def __init__(self, reader: FaceReader, size: tuple[int, int], period: int) -> None:
        """Watch a session of pictures of `size` (width, height), `period` frames to a chunk."""
        self._reader = reader
        background, cheeks = masks(reader, size)
        self.drift = DriftMeter(background, cheeks)
        self.pops = PopMeter(period)
        self.blinks = BlinkCounter()
        self._face = MinuteOfFace.empty()
        self._counted = 0

    def on_latents(self, latents_BCTHW: torch.Tensor) -> None:
        """Read the face of a chunk."""
        frames = self._reader.frames(latents_BCTHW)
        for lids in self._reader.read_frames(frames).lids_N.tolist():
            self.blinks.push(lids)
            self._face.lids.append(lids)
        left, top, right, bottom = FACE_BOX
        window = (..., slice(top, bottom), slice(left, right))
        error = frames.pictures_N3HW[window] - self._reader.portrait_13HW[window]
        power_N = error.square().mean((1, 2, 3)).clamp_min(1e-8) / 4.0
        self._face.rest_db += (-10.0 * power_N.log10()).tolist()
        yaw_T = latents_BCTHW[0, POSE_CHANNELS - 6].mean((-2, -1)) * POSE_SCALE_6[0]
        self._face.yaw_rad += yaw_T.tolist()

    def on_video(self, video: VideoChunk) -> None:
        """Look at a chunk's pictures."""
        self.pops.push(video.frames_THWC)
        self.drift.push(video.frames_THWC)

    def take_minute(self) -> Record:
        """Return the figures since the last call."""
        background, cheeks = self.drift.take()
        face, self._face = self._face, MinuteOfFace.empty()
        blinks = self.blinks.count - self._counted
        self._counted = self.blinks.count
        return {
            "background_drift_levels": background,
            "face_colour_drift_levels": cheeks,
            "rest_db": float(np.percentile(face.rest_db, 95)),
            "blinks": float(blinks),
            "lids_lowest": float(np.percentile(face.lids, 1)),
            "lids_median": float(np.median(face.lids)),
            "yaw_mean_rad": float(np.mean(face.yaw_rad)),
            "yaw_std_rad": float(np.std(face.yaw_rad)),
            "peak_resident_mb": getrusage(RUSAGE_SELF).ru_maxrss / 1000.0,
        }


def masks(
    reader: FaceReader, size: tuple[int, int]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return which pixels (H, W) are far from the head, and which are cheeks and nose."""
    width, height = size
    head = F.max_pool2d(
        (reader.reading.features.headness_B1HW > 0.05).float(),
        HEAD_MARGIN_CELLS,
        stride=1,
        padding=HEAD_MARGIN_CELLS // 2,
    )
    background = F.interpolate(head, size=(height, width))[0, 0].numpy() < 0.5
    if not background.any():
        background = np.ones((height, width), np.bool_)
        background[4:-4, 4:-4] = False  # a face that fills the picture leaves its edge alone
    cheeks = np.zeros((height, width), np.bool_)
    left, top, right, bottom = CHEEKS_BOX
    rows = slice(top * height // 256, bottom * height // 256)
    cheeks[rows, left * width // 256 : right * width // 256] = True
    return background, cheeks


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


def measure_long(
    request: EvalRequest, minutes: int, sheet: Path | None, on_minute: Callable[[Record], None]
) -> Record:
    """Stream `minutes` of speech; give each minute's figures as it passes, return the whole's.

    Raises:
        AudioError, ImageError, ModelError, PlanError, WeightsError: an input cannot be used.
    """
    model = load_model(request.model)
    plan = load_plan(request.plan or model.config.plan)
    reader, image_BCHW = open_reader(model, request)
    period = plan.frames_per_chunk * model.codec.frames_per_latent
    watch = LongWatch(reader, model.config.native_size, period)
    session = open_observed(
        model,
        plan,
        image_BCHW,
        sample_rate=FileSource(request.audio).sample_rate,
        seed=request.seed,
        on_latents=watch.on_latents,
        pictures=True,
    )
    rows: list[Record] = []
    contact = Sheet(int(60 * minutes * model.fps), float(model.fps))
    for video, _ in session.run(looped_speech(request.audio, 60.0 * minutes)):
        watch.on_video(video)
        contact.push(video)
        if (video.pts + video.num_frames) / model.fps >= 60 * (len(rows) + 1):
            rows.append({"minute": float(len(rows) + 1)} | watch.take_minute())
            on_minute(_rounded(rows[-1]))
    if sheet is not None:
        contact.save(sheet)
    return _rounded(long_figures(rows) | pop_figures(watch.pops))


def long_figures(rows: list[Record]) -> Record:
    """Return the worst of the minutes, and the loss of identity since the first of them."""
    return {
        "minutes": float(len(rows)),
        "background_drift_levels": max(row["background_drift_levels"] for row in rows),
        "face_colour_drift_levels": max(row["face_colour_drift_levels"] for row in rows),
        "identity_loss_db": rows[0]["rest_db"] - min(row["rest_db"] for row in rows),
        "rest_db": min(row["rest_db"] for row in rows),
        "blinks_per_minute": sum(row["blinks"] for row in rows) / len(rows),
        "yaw_wander_rad": float(np.std([row["yaw_mean_rad"] for row in rows])),
        "peak_resident_mb": rows[-1]["peak_resident_mb"],
        "resident_growth_mb": rows[-1]["peak_resident_mb"] - rows[0]["peak_resident_mb"],
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
