"""What a gateway needs of whatever makes its sessions' pictures: protocols, and no model."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np
import numpy.typing as npt
from viva.v1.messages import Degraded, ModelReady, OpenSession, SessionFailed, StageTrace

from services.slice import Slice


class ModelRefused(Exception):
    """A session that the model does not take; `reason` is one word for programs.

    Reasons: `capacity`, `portrait` (it cannot be read or has no face), `session` (the name is
    taken), `plan`, `sample_rate`, `size`, `worker_lost` (no model process is there), `failed`.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        """Keep the reason beside a line that people can read."""
        super().__init__(detail or reason)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Restarted:
    """The session goes on in another model process, with the same face and seed.

    Slices go on at `next_index`. All that was said to the stream before this event was taken from
    `events()` is lost: sound that was not played is to be said again, and `want`, too. What is said
    afterwards reaches the new process.
    """

    session: str
    next_index: int


LiveEvent = Slice | StageTrace | Degraded | Restarted | SessionFailed


class LiveStream(Protocol):
    """One session's stream of slices. One task reads `events()`; nothing here blocks."""

    session: str
    fps: Fraction
    width: int
    height: int
    sample_rate: int

    def speak(
        self, utterance: str, epoch: int, pcm_T: npt.NDArray[np.int16]
    ) -> None:  # T is the shape suffix
        """Give the next sound of an utterance: int16 mono at the stream's rate."""

    def end(self, utterance: str, epoch: int) -> None:
        """Say that no more sound of the utterance will come."""

    def interrupt(self, epoch: int) -> None:
        """Drop what belongs to epochs before this one."""

    def want(self, until_index: int, due_in_ms: float) -> None:
        """Ask for slices with an index below `until_index`, the next being due in so long."""

    def events(self) -> AsyncIterator[LiveEvent]:
        """Slices in order of index, and what happens between them.

        While the model process is gone there is `Degraded(level=4)` and then either `Restarted`
        or `SessionFailed`. It ends behind `SessionFailed`, or when the stream is closed.
        """

    async def close(self) -> None:
        """Free the session; calling it again does nothing."""


class LiveModel(Protocol):
    """Where streams come from."""

    ready: ModelReady

    async def open(self, spec: OpenSession) -> LiveStream:
        """A stream that is ready to be wanted from.

        Raises:
            ModelRefused: says why.
        """
        ...

    async def close(self) -> None:
        """End all streams and processes."""
