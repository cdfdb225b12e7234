"""A slice: one picture of a live session with exactly its sound."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """The picture and the sound of one frame, inseparable from here on.

    `index` counts the session's frames from 0 without gaps, across restarts of the model;
    `epoch` is that of the sound, or the latest one for idle motion (`utterance` None). The last
    slice of an utterance says so, and there is exactly one unless the utterance was interrupted.
    """

    index: int
    epoch: int
    utterance: str | None
    picture_HWC: npt.NDArray[np.uint8]  # RGB
    sound_T: npt.NDArray[np.int16]  # mono at the session's rate, this frame's samples exactly
    ends_utterance: bool = False
