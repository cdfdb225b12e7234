"""What a performer gives: beats, events and positions; plain values.

Shape legend: H, W, C = picture; T = samples.
"""

from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import numpy.typing as npt

EventKind = Literal[
    "speak_started", "speak_ended", "speak_interrupted", "degraded", "restarted", "failed", "stage"
]
# Names that clients of such systems know; what is ours belongs to the session or the chain.
_DOMAINS: dict[EventKind, str] = {
    "speak_started": "agent",
    "speak_ended": "agent",
    "speak_interrupted": "agent",
    "stage": "chain",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """What is seen and heard during one tick: a picture, and exactly this tick's samples.

    Ticks follow each other without gaps from 0 on; tick n begins at n / fps, its sound at sample
    `pipeline.pacing.samples_before(n)`. `utterance` is whose sound it is, None in silence. A held
    beat shows the picture of the one before. `picture_HWC` is None only where a subscriber's queue
    had to drop it.
    """

    tick: int
    picture_HWC: npt.NDArray[np.uint8] | None
    sound_T: npt.NDArray[np.int16]
    epoch: int
    utterance: str | None
    is_held: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Up to where an utterance was played: whole samples of it, not counting a fade.

    `num_samples` is how much of it was accepted so far. No utterance: nobody spoke.
    """

    utterance: str | None
    played_samples: int
    num_samples: int
    sample_rate: int
    is_over: bool = False
    was_interrupted: bool = False

    @property
    def played_ms(self) -> float:
        """The same in milliseconds."""
        return self.played_samples * 1000 / self.sample_rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to a stream at a tick: from that tick on it is seen or heard.

    Every utterance has one `speak_started` (none if it was interrupted before) and then exactly one
    of `speak_ended` and `speak_interrupted`. `degraded` says the rung from now on, 0: all is well.
    """

    kind: EventKind
    at_tick: int
    epoch: int = 0
    utterance: str | None = None
    position_ms: float | None = None
    position_samples: int | None = None
    level: int | None = None
    why: str = ""
    stage: str = ""
    chunk: int | None = None
    began_ms: float | None = None
    ended_ms: float | None = None

    def as_record(self) -> dict[str, str | int | float]:
        """The event in plain values: its `type`, and what applies to it."""
        record: dict[str, str | int | float] = {
            "type": f"{_DOMAINS.get(self.kind, 'session')}.{self.kind}"
        }
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "kind" and value is not None and value != "":
                record[field.name] = value
        return record

    def as_playback(self) -> dict[str, float | bool] | None:
        """What LiveKit's `lk.playback_finished` says, for the events that end an utterance."""
        if self.kind not in ("speak_ended", "speak_interrupted") or self.position_ms is None:
            return None
        position_s = self.position_ms / 1000
        return {
            "playback_position": position_s,
            "interrupted": self.kind == "speak_interrupted",
        }
