"""Which sound a live session hears next: utterances in order, silence around them. No clock.

Sound is taken in whole frames, so a frame belongs to one utterance or to none.

Shape legend: T = samples.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.int16]


class TimelineFull(ValueError):
    """More sound waits than the session keeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineSettings:
    """When sound that is still coming is begun with.

    An utterance begins with the first frame from which what waits covers the rest of the chunk
    and `reserve_ms` more, if `first_ms` wait at least; where it ran dry, `resume_ms`. One whose
    end is known waits for nothing. At most `max_queued_s` of sound wait.
    """

    reserve_ms: int = 60
    first_ms: int = 100
    resume_ms: int = 200
    max_queued_s: int = 900

    def __post_init__(self) -> None:
        """Refuse times that are none."""
        for name in ("reserve_ms", "first_ms", "resume_ms"):
            if not 0 <= getattr(self, name) <= 60_000:
                raise ValueError(f"{name} {getattr(self, name)} must lie in 0..60000")
        if not 1 <= self.max_queued_s <= 86_400:
            raise ValueError(f"max_queued_s {self.max_queued_s} must lie in 1..86400")


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameSound:
    """What is heard during one frame; `utterance` is "" in silence."""

    samples_T: Samples
    epoch: int
    utterance: str = ""
    ends_utterance: bool = False


@dataclass(slots=True, kw_only=True)
class Queued:
    """An utterance of which sound waits, or that is not over.

    `runs` while it is heard without a pause; `has_begun` once any of it was heard.
    """

    name: str
    epoch: int
    parts: deque[Samples] = field(default_factory=deque)
    num_samples: int = 0
    has_ended: bool = False
    has_begun: bool = False
    runs: bool = False

    def add(self, samples_T: Samples) -> None:
        """Append sound."""
        if len(samples_T):
            self.parts.append(samples_T)
            self.num_samples += len(samples_T)

    def cut(self, count: int) -> Samples:
        """The next `count` samples, silence where it has ended before."""
        taken_T = np.zeros(count, np.int16)
        filled = 0
        while filled < count and self.parts:
            part_T = self.parts.popleft()
            used = min(len(part_T), count - filled)
            taken_T[filled : filled + used] = part_T[:used]
            if used < len(part_T):
                self.parts.appendleft(part_T[used:])
            filled += used
        self.num_samples -= filled
        return taken_T


class Timeline:
    """The sound of one session that is accepted and not heard yet.

    Nothing is lost but by an interrupt. One utterance is heard after the other; sound of the next
    one ends the one before. Sound of an epoch before the latest is not accepted, sound of a later
    one interrupts.
    """

    def __init__(
        self, *, frame_samples: int, sample_rate: int, settings: TimelineSettings | None = None
    ) -> None:
        """Begin in silence, in epoch 0; a frame lasts `frame_samples`."""
        self.frame_samples, self.sample_rate = frame_samples, sample_rate
        self.settings = settings or TimelineSettings()
        self.epoch = 0
        self.queue: deque[Queued] = deque()

    @property
    def num_samples(self) -> int:
        """Samples that wait."""
        return sum(queued.num_samples for queued in self.queue)

    @property
    def is_speaking(self) -> bool:
        """Whether an utterance is being heard whose end is not known."""
        return bool(self.queue) and self.queue[0].runs and not self.queue[0].has_ended

    def covers(self, num_frames: int) -> bool:
        """Whether what waits of the first utterance lasts so long, or its end is known."""
        if not self.queue:
            return False
        head = self.queue[0]
        return head.has_ended or head.num_samples >= num_frames * self.frame_samples

    def speak(self, utterance: str, epoch: int, samples_T: Samples) -> None:
        """Accept the next sound of an utterance.

        Raises:
            TimelineFull: too much waits already; nothing of this sound is accepted.
        """
        self.interrupt(epoch)
        if epoch < self.epoch:
            return
        if self.num_samples + len(samples_T) > self.settings.max_queued_s * self.sample_rate:
            raise TimelineFull(
                f"more than {self.settings.max_queued_s} s of sound wait to be spoken: send it "
                "more slowly"
            )
        found = self._open(utterance)
        if found is None:
            for earlier in self.queue:
                earlier.has_ended = True
            found = Queued(name=utterance, epoch=epoch)
            self.queue.append(found)
        found.add(samples_T)

    def end(self, utterance: str, epoch: int) -> None:
        """Know that nothing follows of an utterance; one that is unknown or over is no error."""
        found = self._open(utterance)
        if found is not None and found.epoch == epoch:
            found.has_ended = True

    def interrupt(self, epoch: int) -> None:
        """Forget all sound of epochs before this one."""
        if epoch > self.epoch:
            self.epoch = epoch
            self.queue = deque(queued for queued in self.queue if queued.epoch >= epoch)

    def take(self, num_frames: int, *, extra_ms: float = 0.0) -> list[FrameSound]:
        """The sound of the next frames, which are made at once.

        `extra_ms` is how much later than usual that is: so much more must wait before an utterance
        is begun, or it would run dry as soon as frames are made in time again.
        """
        return [self._frame(num_frames - index, extra_ms) for index in range(num_frames)]

    def _frame(self, num_left: int, extra_ms: float) -> FrameSound:
        """One frame's sound; `num_left` frames are taken at once, this one included."""
        if not self.queue or not self._goes_on(self.queue[0], num_left, extra_ms):
            return FrameSound(samples_T=np.zeros(self.frame_samples, np.int16), epoch=self.epoch)
        head = self.queue[0]
        samples_T = head.cut(self.frame_samples)
        head.has_begun = head.runs = True
        is_over = head.has_ended and head.num_samples == 0
        if is_over:
            self.queue.popleft()
        return FrameSound(
            samples_T=samples_T, epoch=head.epoch, utterance=head.name, ends_utterance=is_over
        )

    def _goes_on(self, head: Queued, num_left: int, extra_ms: float) -> bool:
        """Whether the utterance is heard in a frame; it runs dry where a whole one is not there."""
        if head.has_ended:
            return True
        if head.runs and head.num_samples >= self.frame_samples:
            return True
        head.runs = False
        least_ms = self.settings.resume_ms if head.has_begun else self.settings.first_ms
        reserve = self._samples(self.settings.reserve_ms + extra_ms)
        needed = max(num_left * self.frame_samples + reserve, self._samples(least_ms))
        return head.num_samples >= needed

    def _samples(self, time_ms: float) -> int:
        return round(time_ms * self.sample_rate / 1000)

    def _open(self, utterance: str) -> Queued | None:
        """The last utterance, if it has this name and may go on."""
        last = self.queue[-1] if self.queue else None
        return last if last and last.name == utterance and not last.has_ended else None

    def export(self) -> dict[str, object]:
        """All of it in plain values."""
        queue = [
            {
                "name": q.name,
                "epoch": q.epoch,
                "pcm": b"".join(part_T.astype("<i2").tobytes() for part_T in q.parts),
                "flags": [q.has_ended, q.has_begun, q.runs],
            }
            for q in self.queue
        ]
        return {"epoch": self.epoch, "queue": queue}

    def restore(self, epoch: int, queue: Iterable[Queued]) -> None:
        """Go on with what another one exported."""
        self.epoch, self.queue = epoch, deque(queue)
