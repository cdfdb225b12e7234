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

    def changes(self) -> npt.NDArray[np.float64]:
        """Return the mean change (levels of 255) by position in the chunk; 0 is a border."""
        mean: npt.NDArray[np.float64] = self._sums / np.maximum(self._counts, 1)
        return mean

    def ratio(self) -> float:
        """Return the mean change at borders over that elsewhere; 1 is none the worse."""
        elsewhere = self._sums[1:].sum() / max(int(self._counts[1:].sum()), 1)
        return float(self.changes()[0] / max(float(elsewhere), 1e-9))


class DriftMeter:
    """Holds a video against its first frame: background pixel by pixel, the face by its colour."""

    def __init__(
        self, background_HW: npt.NDArray[np.bool_], face_HW: npt.NDArray[np.bool_]
    ) -> None:
        """Look at those pixels."""
        self._background = background_HW
        self._face = face_HW
        self._first: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None = None
        self._reset()

    def _reset(self) -> None:
        self._background_sum, self._face_sum_C, self._num_frames = 0.0, np.zeros(3), 0

    def push(self, frames_THWC: Picture) -> None:
        """Take the next frames."""
        for frame_HWC in frames_THWC:
            background = frame_HWC[self._background].astype(np.float64)
            face_C = frame_HWC[self._face].mean(axis=0, dtype=np.float64)
            if self._first is None:
                self._first = background, face_C
            self._background_sum += float(np.abs(background - self._first[0]).mean())
            self._face_sum_C += face_C
            self._num_frames += 1

    def take(self) -> tuple[float, float]:
        """Return the drift since the last call, in levels of 255, and begin anew.

        The first figure is the mean difference of background pixels to frame 0, the second how far
        the face's mean colour is from that of frame 0.
        """
        if self._first is None or not self._num_frames:
            return 0.0, 0.0
        background = self._background_sum / self._num_frames
        face = float(np.abs(self._face_sum_C / self._num_frames - self._first[1]).max())
        self._reset()
        return background, face
