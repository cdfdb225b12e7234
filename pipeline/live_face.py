"""What a live session needs of whatever makes its pictures: protocols, and no model.

Rungs of the ladder: `pipeline/ladder.py`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from audio.chunk import AudioChunk
from pipeline.session_state import SessionState
from pipeline.sync import Pair


class FaceRefused(ValueError):
    """A session that cannot be opened: one line; `reason` is one word for programs.

    Reasons: `capacity`, `plan`, `portrait`, `sample_rate`, `session`, `size`, `failed`.
    """

    def __init__(self, reason: str, detail: str) -> None:
        """Keep the reason beside the line."""
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTime:
    """A stage had a chunk from when to when, on the machine's monotonic clock."""

    stage: str
    chunk: int
    began_ms: float
    ended_ms: float


class Face(Protocol):
    """One session's pictures: hears sound in whole frames, gives pairs in order.

    A chunk of `chunk_frames` pictures can be made once `lookahead_frames` of sound beyond it were
    heard. `rungs` are the rungs of the ladder between 0 and holding that save time here.
    """

    fps: Fraction
    size: tuple[int, int]
    sample_rate: int
    chunk_frames: int
    lookahead_frames: int
    rungs: tuple[int, ...]

    def push(self, sound: AudioChunk) -> Iterator[Pair]:
        """Hear the next sound; give the pairs that are there by now."""
        ...

    def collect(self) -> Iterator[Pair]:
        """Give pairs that became ready since, without waiting."""
        ...

    def save_time(self, rung: int) -> None:
        """Make the next chunks as that rung says."""
        ...

    def stage_times(self) -> Sequence[StageTime]:
        """What stages did for this session since this was asked last."""
        ...

    def export_state(self) -> SessionState:
        """Everything that a twin needs to go on; nothing is under way then."""
        ...

    def import_state(self, state: SessionState) -> None:
        """Go on from what a twin exported.

        Raises:
            ValueError: the state does not fit.
        """
        ...

    def close(self) -> None:
        """Forget the session."""
        ...


class FaceMaker(Protocol):
    """Opens faces; one thread at a time."""

    name: str
    plan_name: str
    fps: Fraction
    native_size: tuple[int, int]
    chunk_frames: int

    def open(
        self,
        portrait: bytes,
        *,
        session: str,
        seed: int,
        sample_rate: int,
        size: tuple[int, int] | None = None,
        crop: str = "",
        plan: str = "",
    ) -> Face:
        """A face for the portrait in a PNG, JPEG or WebP file.

        Raises:
            FaceRefused: one line says why not.
        """
        ...

    def close(self) -> None:
        """Free everything."""
        ...
