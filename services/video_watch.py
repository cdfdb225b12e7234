"""Everything that `viva eval` reads from the pictures of a video, second by second, in one pass.

A second takes a row of some hundred numbers and a frame a single one; pictures are not kept but
for the thumbnails of the contact sheet.

Shape legend: T = frames, K = seconds, D = description of a face, G = cells of the picture,
H, W = picture, C = colours.
"""

from array import array
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import numpy.typing as npt
from PIL import Image

from video.crop import Box
from video.face_window import LIKE, SIDE, FaceView, FaceWindow, grey
from video.fidelity import squared_error, ssim
from video.flicker import CELLS, cell_changes
from video.identity import describe_face
from video.mouth_opening import mouth_opening
from video.sharpness import sharpness
from video.steadiness import ColourDrift

SPARSE = 5  # sharpness and SSIM, which cost most, are read from every fifth frame
CHEEKS = (slice(57, 75), slice(40, 88))  # of an aligned face: cheeks and nose
NUM_THUMBS, THUMB_PX = 12, 112

Picture = npt.NDArray[np.uint8]
Row = dict[str, float]


class Thumbs:
    """Pictures spread evenly over a video of unknown length: between 12 and 24 are held."""

    def __init__(self) -> None:
        """Begin with every frame."""
        self._stride, self._next = 1, 0
        self._kept: list[tuple[int, Image.Image]] = []

    def push(self, frame_HWC: Picture) -> None:
        """Keep the next frame or not."""
        if self._next % self._stride == 0:
            picture = Image.fromarray(frame_HWC)
            picture.thumbnail((THUMB_PX, THUMB_PX))
            self._kept.append((self._next, picture))
        self._next += 1
        if len(self._kept) >= 2 * NUM_THUMBS:
            self._kept, self._stride = self._kept[::2], 2 * self._stride

    def take(self) -> list[tuple[int, Image.Image]]:
        """Frame numbers and pictures, at most 12, evenly spread."""
        count = min(NUM_THUMBS, len(self._kept))
        index = np.linspace(0, len(self._kept) - 1, count).round().astype(int)
        return [self._kept[i] for i in index]


@dataclass(slots=True)
class _Second:
    """Sums over the frames of one second."""

    faces: list[npt.NDArray[np.float64]] = field(default_factory=list)
    changes: list[npt.NDArray[np.float32]] = field(default_factory=list)
    sharp: list[float] = field(default_factory=list)
    error: list[float] = field(default_factory=list)
    ssim: list[float] = field(default_factory=list)


class VideoWatch:
    """Looks at the frames of one video, each once; `finish` closes the last second."""

    def __init__(self, fps: Fraction, box: Box | None) -> None:
        """Watch a video whose face is in `box` of its first frame; None where it shows none."""
        self._window = None if box is None else FaceWindow(box)
        self._length = max(2, round(fps))
        cheeks = np.zeros((SIDE, SIDE), np.bool_)
        cheeks[CHEEKS] = True
        self._colour = ColourDrift(cheeks)
        self._second = _Second()
        self._last: Picture | None = None
        self._opening, self.num_frames, self.num_lost = array("d"), 0, 0
        self.rows: list[Row] = []
        self._faces: list[npt.NDArray[np.float64]] = []
        self._changes: list[npt.NDArray[np.float32]] = []
        self.thumbs = Thumbs()

    def push(self, frame_HWC: Picture, reference_HWC: Picture | None = None) -> None:
        """Look at the next frame, and at the same one of the video that it is held against."""
        if self._window is not None:
            self._face(self._window.show(frame_HWC))
        if self._last is not None:
            self._second.changes.append(cell_changes(self._last, frame_HWC))
        if reference_HWC is not None:
            self._compare(frame_HWC, reference_HWC)
        self.thumbs.push(frame_HWC)
        self._last = frame_HWC
        self.num_frames += 1
        if self.num_frames % self._length == 0:
            self._close_second()

    def align(self, picture: Image.Image) -> FaceView | None:
        """The portrait as the frames show it; None where there is no face to match."""
        return None if self._window is None else self._window.align(picture)

    def finish(self) -> None:
        """Close the second under way if it is over half full, or the only one."""
        seen = self.num_frames % self._length
        if seen and (2 * seen > self._length or not self.rows):
            self._close_second()

    @property
    def has_face(self) -> bool:
        """Whether a face is looked at."""
        return self._window is not None

    @property
    def opening(self) -> npt.NDArray[np.float64]:
        """How open the mouth is [T]; NaN where the face was not seen, empty without one."""
        return np.frombuffer(self._opening, np.float64) if self._opening else np.zeros(0)

    @property
    def descriptions(self) -> npt.NDArray[np.float64]:
        """The face of each second [K, D]."""
        return np.array(self._faces)

    @property
    def changes(self) -> npt.NDArray[np.float32]:
        """Mean change of each cell in each second [K, G]."""
        return np.array(self._changes, np.float32).reshape(-1, CELLS * CELLS)

    def _face(self, view: FaceView) -> None:
        seen = view.likeness >= LIKE
        self.num_lost += not seen
        self._opening.append(mouth_opening(view.grey) if seen else np.nan)
        self._second.faces.append(describe_face(view.grey))
        self._colour.push(view.picture_SS3)
        if self.num_frames % SPARSE == 0:
            self._second.sharp.append(sharpness(view.native_grey))

    def _compare(self, frame_HWC: Picture, reference_HWC: Picture) -> None:
        self._second.error.append(squared_error(frame_HWC, reference_HWC))
        if self.num_frames % SPARSE == 0:
            pair = (grey(x.astype(np.float32)) for x in (frame_HWC, reference_HWC))
            self._second.ssim.append(ssim(*pair))

    def _close_second(self) -> None:
        second, self._second = self._second, _Second()
        row: Row = {}
        if second.faces:
            self._faces.append(np.mean(second.faces, axis=0))
            row["face_colour_drift_levels"] = self._colour.take()
        if second.changes:
            self._changes.append(np.mean(second.changes, axis=0))
        for name, values in (
            ("sharpness", second.sharp),
            ("squared_error", second.error),
            ("ssim", second.ssim),
        ):
            if values:
                row[name] = float(np.mean(values))
        self.rows.append(row)
