"""The face of a video held at one place, frame by frame, so that it can be measured.

The face is found once (`video/face.py`); from then on its place is measured by phase correlation
of the eyes and the nose with those of the first frame, a fraction of a millisecond instead of a
third of a second. What is shown is framed as model pictures are, at half their size.

Shape legend: S = 128, H, W = picture.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from video.crop import Box

SIDE = 128
LUMA_3 = (0.299, 0.587, 0.114)
# Eyes and nose: they keep their shape while a mouth speaks.
UPPER = (slice(38, 72), slice(36, 92))
REACH_PX = 8  # farther than this a face does not move from one frame to the next
LIKE = 0.3  # correlation with the first frame under which it is another face, or none
DAMPING = 1e-3  # of the largest product: frequencies in which a face has nothing do not vote

Picture = npt.NDArray[np.uint8]
Grey = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceView:
    """A face at its place: `picture_SS3` in levels of 255, `native` as it was filmed, not moved.

    `likeness` is the correlation of eyes and nose with those of the first frame.
    """

    picture_SS3: Grey
    native: Image.Image
    likeness: float

    @property
    def grey(self) -> Grey:
        """Brightness [S, S] in levels of 255."""
        return grey(self.picture_SS3)

    @property
    def native_grey(self) -> Grey:
        """Brightness [H, W] in levels of 255 at the video's own resolution."""
        return grey(np.asarray(self.native, np.float32))


class FaceWindow:
    """Follows one face from the box that it was found in."""

    def __init__(self, box: Box) -> None:
        """Begin with a box of the first frame, framed as `video.face.aligned_box` does."""
        self._corner = np.array([box.y, box.x], np.float64)
        self._size = np.array([box.height, box.width], np.float64)
        self._template: Grey | None = None
        self._spectrum: npt.NDArray[np.complex64] | None = None

    def show(self, frame_HWC: Picture) -> FaceView:
        """The face in the next frame, moved to where it was in the first."""
        shown = cut(frame_HWC, self._corner, self._size)
        picture = np.asarray(shown.resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float32)
        moved, likeness, shift = self._aligned(picture)
        self._corner += shift * self._size / SIDE
        return FaceView(picture_SS3=moved, native=shown, likeness=likeness)

    def align(self, picture: Image.Image) -> FaceView:
        """Another picture in the same framing, such as the portrait, moved to match the frames."""
        small = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float32)
        moved, likeness, _ = self._aligned(small)
        return FaceView(picture_SS3=moved, native=picture, likeness=likeness)

    def _aligned(self, picture_SS3: Grey) -> tuple[Grey, float, npt.NDArray[np.float64]]:
        """The picture moved, its likeness, and how far; one that is not alike stays where it is."""
        upper = grey(picture_SS3)[UPPER]
        if self._template is None or self._spectrum is None:
            self._template, self._spectrum = upper, _spectrum(upper)
        shift = _shift(self._spectrum, upper)
        moved = _moved(picture_SS3, shift)
        likeness = _correlation(self._template, grey(moved)[UPPER])
        if likeness >= LIKE and np.abs(shift).max() <= REACH_PX:
            return moved, likeness, shift
        return picture_SS3, min(likeness, _correlation(self._template, upper)), np.zeros(2)


def cut(
    frame_HWC: Picture, corner_yx: npt.NDArray[np.float64], size_yx: npt.NDArray[np.float64]
) -> Image.Image:
    """A box of a frame at whole pixels; what lies outside repeats the frame's edge."""
    height, width = frame_HWC.shape[:2]
    (top, left), (tall, wide) = np.rint(corner_yx).astype(int), np.rint(size_yx).astype(int)
    if top >= 0 and left >= 0 and top + tall <= height and left + wide <= width:
        return Image.fromarray(frame_HWC[top : top + tall, left : left + wide])
    rows = np.clip(np.arange(top, top + tall), 0, height - 1)
    columns = np.clip(np.arange(left, left + wide), 0, width - 1)
    return Image.fromarray(frame_HWC[rows][:, columns])


def grey(picture_HW3: Grey) -> Grey:
    """Brightness in the picture's own levels."""
    brightness: Grey = picture_HW3 @ np.array(LUMA_3, np.float32)
    return brightness


def _spectrum(patch: Grey) -> npt.NDArray[np.complex64]:
    height, width = patch.shape
    window = np.hanning(height)[:, None] * np.hanning(width)
    spectrum: npt.NDArray[np.complex64] = np.fft.rfft2((patch - patch.mean()) * window).astype(
        np.complex64
    )
    return spectrum


def _shift(template: npt.NDArray[np.complex64], patch: Grey) -> npt.NDArray[np.float64]:
    """How far (y, x) the patch is from the template, in pixels and parts of them."""
    product = template.conj() * _spectrum(patch)
    size = np.abs(product)
    product /= size + DAMPING * size.max() + 1e-12
    surface = np.fft.irfft2(product, s=patch.shape)
    peak = np.array(np.unravel_index(int(surface.argmax()), surface.shape))
    shift = []
    for axis, length in enumerate(surface.shape):
        line = surface[:, peak[1]] if axis == 0 else surface[peak[0]]
        before, at, after = line[peak[axis] - 1], line[peak[axis]], line[(peak[axis] + 1) % length]
        curve = before - 2 * at + after
        whole = peak[axis] - length if peak[axis] > length // 2 else peak[axis]
        shift.append(whole + (0.5 * (before - after) / curve if curve < 0 else 0.0))
    return np.array(shift)


def _moved(picture_SS3: Grey, shift_yx: npt.NDArray[np.float64]) -> Grey:
    """The picture moved back by whole pixels; what comes in at an edge is of no interest."""
    down, right = np.rint(shift_yx).astype(int)
    return np.roll(picture_SS3, (-down, -right), axis=(0, 1))


def _correlation(a: Grey, b: Grey) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / norm if norm > 0 else 1.0
