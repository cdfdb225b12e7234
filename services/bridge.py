"""What an interrupt looks and sounds like: the sound fades, the picture blends over. Pure.

Shape legend: H, W, C = picture; T = samples.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FADE_MS = 15
NUM_BLENDED = 4
# Mixing 512x512 takes 7 ms, 1920x1080 a whole frame, and every session waits for that.
MAX_BLENDED_PIXELS = 512 * 512

Sound = npt.NDArray[np.int16]
Picture = npt.NDArray[np.uint8]


def fade_samples(sample_rate: int) -> int:
    """How many samples a fade lasts."""
    return sample_rate * FADE_MS // 1000


def faded(sound_T: Sound, num_samples: int, sample_rate: int) -> Sound:
    """The beginning of the sound going down to silence within 15 ms; `num_samples` altogether.

    The first sample is nearly as loud as it was, the last of the fade is silent: a straight line,
    which does not click.
    """
    out_T = np.zeros(num_samples, np.int16)
    count = min(len(sound_T), fade_samples(sample_rate), num_samples)
    if count:
        gains_T = 1 - np.arange(1, count + 1, dtype=np.float32) / count
        out_T[:count] = np.rint(sound_T[:count] * gains_T)
    return out_T


@dataclass(frozen=True, slots=True)
class Blend:
    """A picture that still shows through for some frames; equal steps, none of them the old one."""

    old_HWC: Picture
    num_shown: int = 0

    @property
    def is_over(self) -> bool:
        """Whether pictures are shown as they are again."""
        return self.num_shown >= NUM_BLENDED

    def shown(self, picture_HWC: Picture) -> Picture:
        """The next picture as it is shown; one of another size, or a large one, just takes over."""
        height, width, _ = picture_HWC.shape
        is_large = height * width > MAX_BLENDED_PIXELS
        if self.is_over or is_large or picture_HWC.shape != self.old_HWC.shape:
            return picture_HWC
        parts, share = NUM_BLENDED + 1, self.num_shown + 1
        mixed = self.old_HWC.astype(np.uint16) * (parts - share)
        mixed += picture_HWC.astype(np.uint16) * share
        return ((mixed + parts // 2) // parts).astype(np.uint8)

    def after(self) -> "Blend":
        """The blend for the picture after the next."""
        return Blend(self.old_HWC, self.num_shown + 1)
