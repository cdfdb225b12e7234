"""Hears a visitor's microphone and cuts it into utterances: mirror mode's ear.

Sound comes as 48 kHz samples with their place (decoded RTP): what was lost is silence of the same
length. Speech is found frame by frame (`audio.activity_rule`); an utterance begins with a little of
what came before it, goes out as it is heard, and ends after a silence. Time is counted in samples,
so that no clock is needed here.

Shape legend: T = samples.
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import soxr

from audio.activity_rule import ActivityConfig, ActivityState, level_db, next_state

MIC_RATE = 48_000
_FULL_SCALE = np.float32(32768)


@dataclass(frozen=True, slots=True, kw_only=True)
class MicSettings:
    """How speech is cut; milliseconds.

    `preroll_ms` of what came before an utterance belongs to it; `silence_ms` ends it;
    `longest_ms` ends one that never pauses, and the next begins at once.

    Raises:
        ValueError: a duration is not positive, or the pre-roll is negative.
    """

    preroll_ms: int = 200
    silence_ms: int = 500
    longest_ms: int = 60_000
    lost_ms: int = 1000

    def __post_init__(self) -> None:
        """Refuse what cuts nothing."""
        if self.preroll_ms < 0:
            raise ValueError(f"preroll_ms must not be negative, got {self.preroll_ms}")
        for name in ("silence_ms", "longest_ms", "lost_ms"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class Heard:
    """The next sound of an utterance, int16 at the session's rate; the last piece says so."""

    utterance: str
    sound_T: npt.NDArray[np.int16]
    is_last: bool = False


class Listener(Protocol):
    """Who takes utterances: a performer."""

    @property
    def sample_rate(self) -> int:
        """Of the sound it takes."""
        ...

    def speak(self, utterance: str, pcm_T: npt.NDArray[np.int16]) -> object:
        """The next sound of an utterance."""

    def end(self, utterance: str) -> object:
        """The utterance is whole."""


@dataclass(slots=True)
class _Utterance:
    """One that is being spoken."""

    name: str
    resampler: soxr.ResampleStream | None
    num_samples: int = 0
    pieces: list[npt.NDArray[np.int16]] = field(default_factory=list)

    def hear(self, samples_T: npt.NDArray[np.int16], *, is_last: bool = False) -> None:
        """Take sound at the microphone's rate."""
        self.num_samples += len(samples_T)
        if self.resampler is None:
            self.pieces.append(samples_T)
        else:
            self.pieces.append(self.resampler.resample_chunk(samples_T, last=is_last))

    def take(self, *, is_last: bool = False) -> Heard:
        """What is ready to be handed on."""
        sound_T = np.concatenate([np.zeros(0, np.int16), *self.pieces]).astype(np.int16)
        self.pieces.clear()
        return Heard(self.name, sound_T, is_last)


class Microphone:
    """Cuts one visitor's sound into utterances named `<prefix>-1`, `<prefix>-2`, ..."""

    def __init__(
        self, sample_rate: int, *, prefix: str = "mic", settings: MicSettings | None = None
    ) -> None:
        """Utterances come out at `sample_rate`.

        Raises:
            ValueError: the rate is not positive.
        """
        if sample_rate <= 0:
            raise ValueError(f"sample_rate must be positive, got {sample_rate}")
        self.sample_rate, self.prefix = sample_rate, prefix
        self.settings = settings or MicSettings()
        self._activity = ActivityConfig(hangover_ms=self.settings.silence_ms)
        self._state = ActivityState(floor_db=self._activity.floor_start_db)
        self._frame = MIC_RATE * self._activity.frame_ms // 1000
        self._next_pts: int | None = None
        self._pending_T = np.zeros(0, np.int16)
        self._before_T = np.zeros(0, np.int16)
        self._utterance: _Utterance | None = None
        self._count = 0

    @property
    def speaking(self) -> bool:
        """Whether an utterance is open."""
        return self._utterance is not None

    def push(self, samples_T: npt.NDArray[np.int16], pts: int | None = None) -> list[Heard]:
        """Take mono samples at 48 kHz, the first standing at `pts`; what was heard by them.

        What is missing before `pts` (up to `lost_ms`) counts as silence, what came already is
        left out; a larger jump is taken for a new count.
        """
        self._pending_T = np.concatenate([self._pending_T, self._in_place(samples_T, pts)])
        whole = len(self._pending_T) - len(self._pending_T) % self._frame
        frames, self._pending_T = self._pending_T[:whole], self._pending_T[whole:]
        heard = [
            piece
            for start in range(0, whole, self._frame)
            for piece in self._hear(frames[start : start + self._frame])
        ]
        if self._utterance is not None and self._utterance.pieces:
            heard.append(self._utterance.take())
        return [piece for piece in heard if piece.is_last or len(piece.sound_T)]

    def close(self) -> list[Heard]:
        """The visitor is gone: what is begun ends here."""
        return [self._end()] if self._utterance is not None else []

    def _in_place(self, samples_T: npt.NDArray[np.int16], pts: int | None) -> npt.NDArray[np.int16]:
        """The samples where they belong."""
        start = pts if pts is not None else self._next_pts or 0
        expected = start if self._next_pts is None else self._next_pts
        if abs(start - expected) > MIC_RATE * self.settings.lost_ms // 1000:
            expected = start
        jump = start - expected
        placed_T = np.pad(samples_T, (jump, 0)) if jump >= 0 else samples_T[-jump:]
        self._next_pts = expected + max(0, jump + len(samples_T))
        return placed_T

    def _hear(self, frame_T: npt.NDArray[np.int16]) -> list[Heard]:
        """Decide on one frame."""
        self._state = next_state(
            self._state, level_db(np.divide(frame_T, _FULL_SCALE, dtype=np.float32)), self._activity
        )
        if self._utterance is None:
            if self._state.speaking:
                self._begin()
            else:
                self._remember(frame_T)
        if self._utterance is None:
            return []
        self._utterance.hear(frame_T)
        is_long = self._utterance.num_samples >= MIC_RATE * self.settings.longest_ms // 1000
        return [self._end()] if is_long or not self._state.speaking else []

    def _remember(self, frame_T: npt.NDArray[np.int16]) -> None:
        """Keep the last milliseconds before speech, with those that speech is found by."""
        keep = MIC_RATE * (self.settings.preroll_ms + self._activity.onset_ms) // 1000
        self._before_T = np.concatenate([self._before_T, frame_T])[-keep:]

    def _begin(self) -> None:
        """Open an utterance with what came before it."""
        self._count += 1
        resampler = None
        if self.sample_rate != MIC_RATE:
            resampler = soxr.ResampleStream(MIC_RATE, self.sample_rate, 1, dtype="int16")
        self._utterance = _Utterance(f"{self.prefix}-{self._count}", resampler)
        self._utterance.hear(self._before_T)
        self._before_T = np.zeros(0, np.int16)

    def _end(self) -> Heard:
        """Close the open utterance."""
        utterance, self._utterance = self._utterance, None
        assert utterance is not None  # noqa: S101 # callers look first
        utterance.hear(np.zeros(0, np.int16), is_last=True)
        return utterance.take(is_last=True)


class Mirror:
    """Has a performer say what a microphone hears.

    Where the performer takes no more of an utterance (too much waits), the rest of it is left out
    and counted in `num_lost`.
    """

    def __init__(self, listener: Listener, microphone: Microphone) -> None:
        """The microphone must give the listener's rate."""
        self.listener, self.microphone = listener, microphone
        self.num_lost = 0
        self._refused: str | None = None

    def push(self, samples_T: npt.NDArray[np.int16], pts: int | None = None) -> None:
        """Hand on what is heard by these samples."""
        self._say(self.microphone.push(samples_T, pts))

    def close(self) -> None:
        """End what is begun."""
        self._say(self.microphone.close())

    def _say(self, heard: list[Heard]) -> None:
        for piece in heard:
            if piece.utterance == self._refused:
                self.num_lost += len(piece.sound_T)
            elif len(piece.sound_T):
                self._speak(piece)
            if piece.is_last:
                self.listener.end(piece.utterance)

    def _speak(self, piece: Heard) -> None:
        """Have it said, or note that it is not."""
        try:
            self.listener.speak(piece.utterance, piece.sound_T)
        except ValueError:
            self.num_lost += len(piece.sound_T)
            self._refused = piece.utterance
