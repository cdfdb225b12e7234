"""All meters of a long session, read minute by minute; minutes that nobody looks at cost nothing.

Shape legend: B = batch (1), C = channels, T = frames, N = frames of one chunk, H, W = picture.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from resource import RUSAGE_SELF, getrusage

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from video.chunk import VideoChunk
from video.crop import Box
from video.face_reader import FaceReader
from video.face_window import FaceWindow
from video.head_pose import POSE_CHANNELS, POSE_SCALE_6
from video.identity import Description, describe_face, identity_distance
from video.steadiness import BlinkCounter, DriftMeter, PopMeter

FACE_BOX = (70, 70, 186, 200)  # left, top, right, bottom of the canonical 256-pixel picture
CHEEKS_BOX = (80, 115, 176, 150)
HEAD_MARGIN_CELLS = 7
FIRST_FACES = 50  # descriptions at the start, two of each chunk, that minutes are held against
PAGE_BYTES = 4096
Record = dict[str, float]


@dataclass(slots=True)
class MinuteOfFace:
    """What was read of the face in one minute."""

    lids: list[float]
    rest_db: list[float]
    yaw_rad: list[float]
    faces: list[Description]

    @classmethod
    def empty(cls) -> "MinuteOfFace":
        """Nothing read yet."""
        return cls([], [], [], [])


class LongWatch:
    """All meters of one session; `on_latents` and `on_video` feed it, `take_minute` reads it.

    Only pictures that are `wanted` (asked by the index of a chunk's first) are looked at, and only
    the latents that become such.
    """

    def __init__(
        self,
        reader: FaceReader,
        size: tuple[int, int],
        period: int,
        wanted: Callable[[int], bool] | None = None,
    ) -> None:
        """Watch a session of pictures of `size` (width, height), `period` frames to a chunk."""
        self._reader, self._period = reader, period
        self._wanted = _always if wanted is None else wanted
        self.drift = DriftMeter(*masks(reader, size))
        self.pops = PopMeter(period)
        self.blinks = BlinkCounter()
        self._window = FaceWindow(Box(x=0, y=0, width=size[0], height=size[1]))
        self._first: list[Description] = []
        self._face = MinuteOfFace.empty()
        self._counted = self._num_latents = self._looked = 0
        self._began = (time.monotonic(), time.process_time())

    def on_latents(self, latents_BCTHW: torch.Tensor) -> None:
        """Read the face of a chunk."""
        first, self._num_latents = self._num_latents, self._num_latents + self._period
        if not self._wanted(first):
            return
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
        if not self._wanted(video.pts):
            self.pops.skip(video.num_frames)
            return
        self.pops.push(video.frames_THWC)
        self.drift.push(video.frames_THWC)
        for frame_HWC in video.frames_THWC[:: self._period // 2]:
            self._face.faces.append(describe_face(self._window.show(frame_HWC).grey))
        self._looked += video.num_frames

    def take_minute(self) -> Record:
        """Return the figures since the last call; without pictures, memory and time alone."""
        now = (time.monotonic(), time.process_time())
        record = {
            "wall_s": now[0] - self._began[0],
            "cpu_s": now[1] - self._began[1],
            "resident_mb": resident_mb(),
            "peak_resident_mb": peak_mb(),
        }
        self._began = now
        looked, self._looked = self._looked, 0
        return record | self._take_face() if looked else record

    def _take_face(self) -> Record:
        background, cheeks = self.drift.take()
        face, self._face = self._face, MinuteOfFace.empty()
        blinks, self._counted = self.blinks.count - self._counted, self.blinks.count
        if not self._first:
            self._first = face.faces[:FIRST_FACES]
        first, mean = (np.mean(faces, axis=0) for faces in (self._first, face.faces))
        return {
            "background_drift_levels": background,
            "face_colour_drift_levels": cheeks,
            "identity_drift": identity_distance(first, mean),
            "rest_db": float(np.percentile(face.rest_db, 95)),
            "blinks": float(blinks),
            "lids_lowest": float(np.percentile(face.lids, 1)),
            "lids_median": float(np.median(face.lids)),
            "yaw_mean_rad": float(np.mean(face.yaw_rad)),
            "yaw_std_rad": float(np.std(face.yaw_rad)),
        }


def _always(_: int) -> bool:
    return True


def resident_mb() -> float:
    """Resident memory of this process now; what it was at most where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return peak_mb()
    return pages * PAGE_BYTES / 1e6


def peak_mb() -> float:
    """The most that this process ever had in memory."""
    return getrusage(RUSAGE_SELF).ru_maxrss * 1024 / 1e6


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
