"""Holds a long film's colours where they began: for codecs whose colours creep over minutes.

The mean of the first two seconds is the standard. What a slow average (time constant 10 s) has
moved away from it is taken back, at most 12 of 255 levels, so that a face that turns or a mouth
that opens changes nothing to speak of.

Shape legend: T = frames, H, W = rows and columns, C = channels.
"""

from fractions import Fraction

import numpy as np
import torch

from video.chunk import VideoChunk

STANDARD_S, SLOWNESS_S = 2, 10
MAX_SHIFT = 12.0


class ColourGuard:
    """Corrects pictures in order; its memory can be exported, so that a film can go on."""

    def __init__(self, fps: Fraction) -> None:
        """Start before the first picture."""
        self._num_standard = round(STANDARD_S * fps)
        self._weight = 1.0 / float(SLOWNESS_S * fps)
        self._num_seen = 0
        self._standard_C = np.zeros(3)
        self._slow_C = np.zeros(3)

    def corrected(self, chunk: VideoChunk) -> VideoChunk:
        """The pictures with their colours held."""
        frames_THWC = np.stack([self._frame(frame_HWC) for frame_HWC in chunk.frames_THWC])
        return VideoChunk(frames_THWC=frames_THWC, pts=chunk.pts, time_base=chunk.time_base)

    def _frame(self, frame_HWC: np.ndarray) -> np.ndarray:
        mean_C = frame_HWC.mean(axis=(0, 1), dtype=np.float64)
        self._num_seen += 1
        if self._num_seen <= self._num_standard:
            self._standard_C += (mean_C - self._standard_C) / self._num_seen
            self._slow_C = self._standard_C.copy()
            return frame_HWC
        self._slow_C += self._weight * (mean_C - self._slow_C)
        shift_C = np.clip(self._standard_C - self._slow_C, -MAX_SHIFT, MAX_SHIFT)
        shifted_HWC = frame_HWC.astype(np.float32) + shift_C.astype(np.float32)
        return np.clip(np.rint(shifted_HWC), 0, 255).astype(np.uint8)

    def export_state(self) -> dict[str, torch.Tensor]:
        """The standard, the slow average, and how many pictures were seen."""
        return {
            "standard_C": torch.from_numpy(self._standard_C.copy()),
            "slow_C": torch.from_numpy(self._slow_C.copy()),
            "num_seen": torch.tensor([self._num_seen]),
        }

    def import_state(self, state: dict[str, torch.Tensor]) -> None:
        """Go on from an export at the same rate."""
        self._standard_C = state["standard_C"].numpy().copy()
        self._slow_C = state["slow_C"].numpy().copy()
        self._num_seen = int(state["num_seen"][0])
