"""The units of picture that travel through the program.

Shape legend: B = batch (1), C = channels, T = frames, H = height, W = width.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentChunk:
    """What the network makes at once, on its way through the denoising steps.

    `latents_CTHW` holds `frames_per_chunk` latent frames at noise level `sigma`; `index` counts
    chunks from 0; `start_frame` is the absolute index of the first latent frame; `step` the step
    of the plan that comes next.
    """

    latents_CTHW: torch.Tensor
    index: int
    start_frame: int
    sigma: float
    step: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoChunk:
    """Decoded pictures with their place on the media clock.

    `frames_THWC` is uint8 RGB; `pts` is the index of the first frame in ticks of `time_base`.
    `reference_BCTHW` is the chunk's first latent (T = 1) as a reference, if it was asked for.
    """

    frames_THWC: npt.NDArray[np.uint8]
    pts: int
    time_base: Fraction
    reference_BCTHW: torch.Tensor | None = None

    @property
    def num_frames(self) -> int:
        """Number of pictures held."""
        return int(self.frames_THWC.shape[0])


def no_pictures(time_base: Fraction) -> VideoChunk:
    """A chunk of no frames."""
    return VideoChunk(frames_THWC=np.zeros((0, 1, 1, 3), np.uint8), pts=0, time_base=time_base)
