"""Which picture and which sound each tick of a stream has: decisions, without clock and waiting.

The sound is the ledger's, to the sample; a slice says which picture belongs to which of it. So what
is heard does not depend on whether pictures come, and a frame rate that does not divide the sample
rate costs nothing.

Shape legend: H, W, C = picture; T = samples.
"""

from collections import deque
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt
from viva.v1.messages import LEVEL_HELD

from pipeline.pacing import samples_before, samples_of
from services.beat import Beat, Event, EventKind, Position
from services.bridge import Blend, Picture, Sound, fade_samples, faded
from services.ledger import Entry, Ledger
from services.slice import Slice

# After an interrupt the model needs a moment; only then it is late.
GRACE_S = 1
# An utterance whose sender says nothing while another one waits is over after so long.
DRY_S = 2
# Rounding of frame times leaves less than this of an utterance behind its last picture.
_ROUNDING = 2


@dataclass(frozen=True, slots=True)
class _Made:
    """A slice that waits; its sound begins at sample `start` of its utterance."""

    slice: Slice
    start: int


class Playback:
    """One stream's slices, sound and events; somebody calls `beat` once a tick."""

    def __init__(self, ledger: Ledger, *, fps: Fraction) -> None:
        """Begin in epoch 0 without a picture."""
        self.ledger, self.fps, self.sample_rate = ledger, fps, ledger.sample_rate
        self.epoch, self.tick, self.num_held, self.num_stale = 0, 0, 0, 0
        self.held_run = 0  # beats since the last picture
        self.events: list[Event] = []
        self._made: deque[_Made] = deque()
        self._picture_HWC: Picture = np.zeros((2, 2, 3), np.uint8)
        self._blend: Blend | None = None
        self._fading_T: Sound | None = None
        self._heard: str | None = None
        self._grace_until, self._dry_ticks, self._good_ticks = 0, 0, 0
        self._own_level = self._model_level = 0

    @property
    def is_ready(self) -> bool:
        """Whether there is a picture to begin with."""
        return self.tick > 0 or bool(self._made)

    @property
    def num_queued(self) -> int:
        """Slices that wait."""
        return len(self._made)

    @property
    def is_alone(self) -> bool:
        """Whether the model is gone, or has given up on pictures: sound goes on without."""
        return self._model_level >= LEVEL_HELD

    @property
    def level(self) -> int:
        """The rung the viewer sees."""
        return max(self._own_level, self._model_level)

    def take(self, made: Slice) -> None:
        """Queue the next slice; nothing of an older epoch, or of speech that is over."""
        if made.epoch != self.epoch:
            return
        entry = self.ledger.find(made.utterance)
        if entry is None:
            if made.utterance is None or not made.sound_T.any():
                self._made.append(_Made(made, 0))
            return
        self._made.append(_Made(made, entry.num_made))
        entry.num_made = min(entry.num_made + len(made.sound_T), entry.num_accepted)

    def degraded(self, level: int, why: str) -> None:
        """The model is on another rung."""
        self._set_levels(self._own_level, level, why)

    def restarted(self, lead_ticks: int) -> None:
        """Another process goes on, knowing nothing; its first pictures come in `lead_ticks`.

        What was begun is heard without pictures until then, and is to be made from there on.
        """
        for entry in self.ledger.entries:
            entry.rewind(entry.num_played)
        head = self.ledger.head
        if head is not None and head.has_started:
            soon = samples_before(self.tick + lead_ticks, self.sample_rate, self.fps)
            lead = soon - samples_before(self.tick, self.sample_rate, self.fps)
            head.rewind(min(head.num_played + lead, head.num_accepted))
        self._made.clear()
        self._grace_until = self.tick + max(lead_ticks, int(GRACE_S * self.fps))
        self._begin_blend()
        self._say("restarted")
        self._set_levels(0, 0, "the model is back")

    def interrupt(self, up_to: str | None = None) -> Position:
        """Drop what is said and waits (up to the utterance named): where that was.

        If nothing is said and nothing waits, nothing happens. What waits behind the utterance
        named is to be sent to the model again.
        """
        dropped = self.ledger.drop(up_to)
        if not dropped:
            return self.ledger.positions().get(up_to or "", self._nowhere())
        self.epoch += 1
        first = dropped[0]
        if self._heard == first.name:
            self._fading_T = first.peek(first.num_played, fade_samples(self.sample_rate))
        self._made.clear()
        for entry in self.ledger.entries:
            entry.rewind(entry.num_played)
        self._grace_until = self.tick + int(GRACE_S * self.fps)
        self._begin_blend()
        for entry in dropped:
            self._say_of("speak_interrupted", entry)
        return first.position(self.sample_rate, was_interrupted=True)

    def beat(self) -> Beat:
        """What is seen and heard now; the next tick is another one."""
        count = samples_of(self.tick, self.sample_rate, self.fps)
        beat = self._fade(count) if self._fading_T is not None else self._next(count)
        self._finish()
        self._heard = beat.utterance
        self.tick += 1
        return beat

    def _next(self, count: int) -> Beat:
        """A beat with the next slice, with sound alone, or with neither."""
        self._drop_stale()
        head = self.ledger.head
        made = self._made[0] if self._made else None
        speaks = made is not None and self.ledger.find(made.slice.utterance) is not None
        if head is not None and self._is_heard_alone(head):
            if made is None or not speaks:
                return self._speak_alone(head, self._made.popleft() if made else None, count)
            if not self._is_its_turn(made, head, count):
                return self._speak_alone(head, None, count)
        if made is None:
            return self._hold(count)
        self._made.popleft()
        if speaks:
            return self._speak(made, count)
        return self._beat(self._rest(count), None, made.slice.picture_HWC)

    def _is_heard_alone(self, head: Entry) -> bool:
        """Whether an utterance that was begun goes on without its pictures."""
        if not head.has_started or not head.num_waiting:
            return False
        return head.num_played < head.alone_until or (self.is_alone and not self._made)

    def _is_its_turn(self, made: _Made, head: Entry, count: int) -> bool:
        """Whether the sound of a slice is what comes next, to half a frame."""
        return made.slice.utterance == head.name and made.start - head.num_played <= count // 2

    def _speak(self, made: _Made, count: int) -> Beat:
        """A slice of speech; what rounding left of the utterance before goes first."""
        name = made.slice.utterance
        pieces = [np.zeros(0, np.int16)]
        while (head := self.ledger.head) is not None and sum(map(len, pieces)) < count:
            pieces.append(self._play(head, count - sum(map(len, pieces))))
            if head.name == name or not head.is_over:
                break
            self._finish()
        return self._beat(_padded(np.concatenate(pieces), count), name, made.slice.picture_HWC)

    def _speak_alone(self, head: Entry, idle: _Made | None, count: int) -> Beat:
        """Speech under the last picture, or under idle motion if that is there."""
        sound_T = _padded(self._play(head, count), count)
        return self._beat(sound_T, head.name, None if idle is None else idle.slice.picture_HWC)

    def _hold(self, count: int) -> Beat:
        """The last picture in silence: no slice is there."""
        if self.tick >= self._grace_until:
            self._good_ticks = 0
            self._set_levels(LEVEL_HELD, self._model_level, "pictures are late")
        return self._beat(self._rest(count), None, None)

    def _fade(self, count: int) -> Beat:
        """The first tick after an interrupt."""
        fading_T, self._fading_T = self._fading_T, None
        sound_T = faded(_or_empty(fading_T), count, self.sample_rate)
        return self._beat(sound_T, None, None)

    def _rest(self, count: int) -> Sound:
        """Silence, behind what rounding left of an utterance."""
        head = self.ledger.head
        if head is None or not head.has_started or head.num_waiting > _ROUNDING:
            return np.zeros(count, np.int16)
        return _padded(self._play(head, count), count) if head.is_ended else _padded(None, count)

    def _play(self, entry: Entry, count: int) -> Sound:
        """The next sound of an utterance, which begins with it."""
        if not entry.has_started and (entry.num_waiting or entry.is_ended):
            entry.has_started = True
            self._say_of("speak_started", entry)
        return entry.take(count)

    def _beat(self, sound_T: Sound, utterance: str | None, picture_HWC: Picture | None) -> Beat:
        """A beat with this picture, or with the last one."""
        is_held = picture_HWC is None
        self.num_held += is_held
        self.held_run = self.held_run + 1 if is_held else 0
        self._good_ticks += not is_held
        if self._own_level and self._good_ticks >= self.fps:
            self._set_levels(0, self._model_level, "pictures are in time")
        self._picture_HWC = shown_HWC = self._shown(picture_HWC)
        return Beat(
            tick=self.tick,
            picture_HWC=shown_HWC,
            sound_T=sound_T,
            epoch=self.epoch,
            utterance=utterance,
            is_held=is_held,
        )

    def _shown(self, picture_HWC: Picture | None) -> Picture:
        """The picture with what of the one before an interrupt still shows through."""
        if picture_HWC is None:
            return self._picture_HWC
        if self._blend is None:
            return picture_HWC
        shown_HWC, self._blend = self._blend.shown(picture_HWC), self._blend.after()
        if self._blend.is_over:
            self._blend = None
        return shown_HWC

    def _begin_blend(self) -> None:
        """The next picture comes out of the last one."""
        if self.tick > 0:
            self._blend = Blend(self._picture_HWC)

    def _drop_stale(self) -> None:
        """Slices whose sound was heard already, or whose utterance is over."""
        while self._made and self._is_stale(self._made[0]):
            self._made.popleft()
            self.num_stale += 1

    def _is_stale(self, made: _Made) -> bool:
        """Whether a slice is too late, by more than half of it."""
        if made.slice.utterance is None:
            return False
        entry = self.ledger.find(made.slice.utterance)
        if entry is None:
            return bool(made.slice.sound_T.any())
        return entry.num_played - made.start > len(made.slice.sound_T) // 2

    def _finish(self) -> None:
        """Say of utterances that they are over."""
        head = self.ledger.head
        is_dry = head is not None and not head.is_ended and not head.num_waiting
        self._dry_ticks = self._dry_ticks + 1 if is_dry and len(self.ledger.entries) > 1 else 0
        if head is not None and self._dry_ticks > DRY_S * self.fps:
            head.is_ended = True
            return  # the model hears of it before it is over here
        while head is not None and head.is_over:
            self._play(head, 0)
            self._say_of("speak_ended", head)
            self.ledger.finish()
            head = self.ledger.head

    def _set_levels(self, own: int, model: int, why: str) -> None:
        """Be on other rungs, and say so if the viewer sees it."""
        before, self._own_level, self._model_level = self.level, own, model
        if self.level != before:
            self._say("degraded", level=self.level, why=why)

    def _say_of(self, kind: EventKind, entry: Entry) -> None:
        """An event of an utterance."""
        position = entry.position(self.sample_rate)
        self.events.append(
            Event(
                kind=kind,
                at_tick=self.tick,
                epoch=self.epoch,
                utterance=entry.name,
                position_ms=position.played_ms,
                position_samples=position.played_samples,
            )
        )

    def _say(self, kind: EventKind, *, level: int | None = None, why: str = "") -> None:
        """An event of the stream."""
        event = Event(kind=kind, at_tick=self.tick, epoch=self.epoch, level=level, why=why)
        self.events.append(event)

    def _nowhere(self) -> Position:
        """The position of nobody."""
        return Position(
            utterance=None, played_samples=0, num_samples=0, sample_rate=self.sample_rate
        )


def _or_empty(sound_T: Sound | None) -> Sound:
    """Sound, or none."""
    return np.zeros(0, np.int16) if sound_T is None else sound_T


def _padded(sound_T: Sound | None, count: int) -> npt.NDArray[np.int16]:
    """So many samples, silent behind the sound."""
    out_T = np.zeros(count, np.int16)
    if sound_T is not None:
        out_T[: len(sound_T)] = sound_T
    return out_T
