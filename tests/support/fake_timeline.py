"""Which sound a fake model puts under its next frame: the rules of live models, without a model."""

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from tests.support.flash_picture import Sound


@dataclass(slots=True)
class _Utterance:
    name: str
    epoch: int
    pieces: list[Sound] = field(default_factory=list)
    has_begun: bool = False
    is_ended: bool = False

    @property
    def num_samples(self) -> int:
        return sum(len(piece) for piece in self.pieces)

    def take(self, count: int) -> Sound:
        sound_T = np.concatenate([*self.pieces, np.zeros(0, np.int16)])
        self.pieces = [sound_T[count:]]
        return sound_T[:count]


@dataclass(frozen=True, slots=True)
class FrameSound:
    """A frame's sound, and whose it is; None for idle motion."""

    sound_T: Sound
    utterance: str | None
    ends: bool = False


class FakeTimeline:
    """Utterances one after the other; one that runs dry waits until 200 ms of it are there."""

    def __init__(self, sample_rate: int, first_ms: int, resume_ms: int = 200) -> None:
        """An utterance begins when `first_ms` of it are there or its end is known."""
        self._first = sample_rate * first_ms // 1000
        self._resume = sample_rate * resume_ms // 1000
        self._queue: deque[_Utterance] = deque()
        self._is_dry = True

    def speak(self, name: str, epoch: int, pcm_T: Sound) -> None:
        """Queue sound."""
        self._of(name, epoch).pieces.append(pcm_T.copy())

    def end(self, name: str, epoch: int) -> None:
        """The utterance is whole."""
        self._of(name, epoch).is_ended = True

    def interrupt(self, epoch: int) -> None:
        """Forget what is older."""
        self._queue = deque(one for one in self._queue if one.epoch >= epoch)
        self._is_dry = True

    def next_frame(self, num_samples: int) -> FrameSound:
        """The sound of the next frame."""
        silence_T = np.zeros(num_samples, np.int16)
        if not self._queue or not self._can_speak(self._queue[0], num_samples):
            return FrameSound(silence_T, None)
        one = self._queue[0]
        one.has_begun, self._is_dry = True, False
        ends = one.is_ended and one.num_samples <= num_samples
        sound_T = one.take(num_samples)
        silence_T[: len(sound_T)] = sound_T
        if ends:
            self._queue.popleft()
            self._is_dry = True
        return FrameSound(silence_T, one.name, ends)

    def _can_speak(self, one: _Utterance, num_samples: int) -> bool:
        """Whether there is a frame of it, or enough of it after a pause."""
        needed = self._resume if one.has_begun else self._first
        enough = max(needed, num_samples) if self._is_dry else num_samples
        self._is_dry = not one.is_ended and one.num_samples < enough
        return not self._is_dry

    def _of(self, name: str, epoch: int) -> _Utterance:
        """The utterance of this name, queued if it is not yet known."""
        for one in self._queue:
            if one.name == name and one.epoch == epoch:
                return one
        self._queue.append(_Utterance(name, epoch))
        return self._queue[-1]
