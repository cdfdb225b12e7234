"""Speech or silence for one frame: level above an adaptive noise floor. Numbers only.

The floor follows the quietest recent level: it falls at once and rises slowly, so the short dips
between syllables hold it down during speech while steady noise is learnt. Speech begins after a
few loud frames in a row (a click is no speech) and ends after a hangover (a pause within a word is
no end). Whoever must not load torch decides with this; `audio.activity` runs it over a stream.

Shape legend: T = samples.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

_SILENCE_DB = -100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityConfig:
    """Limits of the decision; levels in dB relative to full scale.

    Raises:
        ValueError: a duration or a margin is not positive.
    """

    frame_ms: int = 10
    margin_db: float = 8.0
    min_speech_db: float = -50.0
    floor_start_db: float = -55.0
    floor_rise_db_per_s: float = 5.0
    onset_ms: int = 30
    hangover_ms: int = 300

    def __post_init__(self) -> None:
        """Refuse limits that decide nothing."""
        for name in ("frame_ms", "margin_db", "floor_rise_db_per_s", "onset_ms", "hangover_ms"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")

    @property
    def onset_frames(self) -> int:
        """Loud frames in a row that begin speech."""
        return -(-self.onset_ms // self.frame_ms)

    @property
    def hangover_frames(self) -> int:
        """Quiet frames that still count as speech."""
        return -(-self.hangover_ms // self.frame_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityState:
    """What the decision remembers between frames."""

    floor_db: float
    loud_frames: int = 0
    hangover_left: int = 0

    @property
    def speaking(self) -> bool:
        """Whether the last frame counted as speech."""
        return self.hangover_left > 0


def next_state(state: ActivityState, level_db: float, config: ActivityConfig) -> ActivityState:
    """Decide on one frame of the given level."""
    risen_db = state.floor_db + config.floor_rise_db_per_s * config.frame_ms / 1000
    floor_db = min(max(level_db, _SILENCE_DB), risen_db)
    loud = level_db > max(state.floor_db + config.margin_db, config.min_speech_db)
    loud_frames = state.loud_frames + 1 if loud else 0
    begins = loud_frames >= config.onset_frames
    goes_on = loud and state.speaking
    if begins or goes_on:
        # One more than the hangover: this frame itself is speech.
        return ActivityState(
            floor_db=floor_db, loud_frames=loud_frames, hangover_left=config.hangover_frames + 1
        )
    return replace(
        state,
        floor_db=floor_db,
        loud_frames=loud_frames,
        hangover_left=max(0, state.hangover_left - 1),
    )


def level_db(samples_T: npt.NDArray[np.float32]) -> float:
    """Mean power in dB relative to full scale, at least -100."""
    power = float(np.mean(np.square(samples_T, dtype=np.float64)))
    return max(_SILENCE_DB, 10 * math.log10(power)) if power > 0 else _SILENCE_DB
