"""Whether a long video stays what it was: drift of background and colour, blinks, pops at borders.

Everything is counted as frames go by; nothing but the first and the last frame is kept.

Shape legend: T = frames, H, W = picture, C = 3 colours.
"""

import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]

# A blink begins under SHUT of the lids' usual distance and ends over OPEN of it. On exact motion a
# full blink reads .33 to .53 (see `face_flow`), open eyes .95 to 1.15.
SHUT, OPEN = 0.72, 0.85


class BlinkCounter:
    """Counts closures of the lids; a long closure and a flutter within one are one blink."""

    def __init__(self) -> None:
        """Start with open eyes."""
        self.count = 0
        self._shut = False

    def push(self, lids: float) -> None:
        """Take the lids' distance in the next frame as a share of the portrait's."""
        if not self._shut and lids < SHUT:
            self.count += 1
            self._shut = True
        elif self._shut and lids > OPEN:
            self._shut = False


class PopMeter:
    """Compares how much pictures change at the borders of chunks and how much elsewhere."""

    def __init__(self, period: int) -> None:
        """`period` frames make a chunk; frame 0 begins one."""
        self._sums = np.zeros(period)
        self._counts = np.zeros(period, np.int64)
        self._last: Picture | None = None
        self._next = 0

    def push(self, frames_THWC: Picture) -> None:
        """Take the next frames."""
        for frame_HWC in frames_THWC:
            if self._last is not None:
                change = np.abs(frame_HWC.astype(np.int16) - self._last).mean()
                self._sums[self._next % len(self._sums)] += change
                self._counts[self._next % len(self._sums)] += 1
            self._last = frame_HWC.copy()
            self._next += 1

    def skip(self, num_frames: int) -> None:
        """Pass over frames that nobody looked at."""
        self._last = None
        self._next += num_frames

    def changes(self) -> npt.NDArray[np.float64]:
        """Return the mean change (levels of 255) by position in the chunk; 0 is a border."""
        mean: npt.NDArray[np.float64] = self._sums / np.maximum(self._counts, 1)
        return mean

    def ratio(self) -> float:
        """Return the mean change at borders over that elsewhere; 1 is none the worse."""
        elsewhere = self._sums[1:].sum() / max(int(self._counts[1:].sum()), 1)
        return float(self.changes()[0] / max(float(elsewhere), 1e-9))


class ColourDrift:
    """Holds the mean colour of a part of a picture against that of the first frame."""

    def __init__(self, part_HW: npt.NDArray[np.bool_]) -> None:
        """Look at those pixels."""
        self._part = part_HW
        self._first_C: npt.NDArray[np.float64] | None = None
        self._sum_C, self._num_frames = np.zeros(3), 0

    def push(self, frame_HWC: npt.NDArray[np.uint8] | npt.NDArray[np.float32]) -> None:
        """Take the next frame, in levels of 255."""
        colour_C = frame_HWC[self._part].mean(axis=0, dtype=np.float64)
        self._first_C = colour_C if self._first_C is None else self._first_C
        self._sum_C += colour_C
        self._num_frames += 1

    def take(self) -> float:
        """Return how far the mean colour since the last call is from frame 0's, and begin anew.

        In levels of 255, of the colour that is farthest.
        """
        if self._first_C is None or not self._num_frames:
            return 0.0
        drift = float(np.abs(self._sum_C / self._num_frames - self._first_C).max())
        self._sum_C, self._num_frames = np.zeros(3), 0
        return drift


class PixelDrift:
    """Holds a part of a picture that should stand still against the first frame, by pixels."""

    def __init__(self, part_HW: npt.NDArray[np.bool_]) -> None:
        """Look at those pixels."""
        self._part = part_HW
        self._first: npt.NDArray[np.float64] | None = None
        self._sum, self._num_frames = 0.0, 0

    def push(self, frame_HWC: Picture) -> None:
        """Take the next frame."""
        pixels = frame_HWC[self._part].astype(np.float64)
        self._first = pixels if self._first is None else self._first
        self._sum += float(np.abs(pixels - self._first).mean())
        self._num_frames += 1

    def take(self) -> float:
        """Return the mean difference to frame 0 since the last call, in levels; begin anew."""
        drift = self._sum / max(self._num_frames, 1)
        self._sum, self._num_frames = 0.0, 0
        return drift


class DriftMeter:
    """Holds a video against its first frame: background pixel by pixel, the face by its colour."""

    def __init__(
        self, background_HW: npt.NDArray[np.bool_], face_HW: npt.NDArray[np.bool_]
    ) -> None:
        """Look at those pixels."""
        self._background, self._face = PixelDrift(background_HW), ColourDrift(face_HW)

    def push(self, frames_THWC: Picture) -> None:
        """Take the next frames."""
        for frame_HWC in frames_THWC:
            self._background.push(frame_HWC)
            self._face.push(frame_HWC)

    def take(self) -> tuple[float, float]:
        """Return the drift of background and face since the last call, and begin anew."""
        return self._background.take(), self._face.take()
