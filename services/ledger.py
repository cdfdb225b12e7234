"""Sound that was accepted and is not yet played, and how far every utterance came. Pure.

Shape legend: T = samples.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from services.beat import Position

Sound = npt.NDArray[np.int16]
# So many utterances that are over are remembered, for late questions and late senders.
MAX_REMEMBERED = 256
MAX_AHEAD_S = 60


class LedgerFull(ValueError):
    """A sender is further ahead of what is heard than is kept; nothing of it was accepted."""


class UtteranceOver(ValueError):
    """Sound for an utterance that its sender has ended."""


@dataclass(slots=True)
class Entry:
    """An utterance that is not over.

    Counts are samples from its beginning: `num_accepted` from the sender, `num_played` heard,
    `num_sent` given to the model, `num_made` come back under pictures. Before `alone_until` it is
    heard without pictures of its own.
    """

    name: str
    parts: deque[Sound] = field(default_factory=deque)
    num_accepted: int = 0
    num_played: int = 0
    num_sent: int = 0
    num_made: int = 0
    alone_until: int = 0
    has_started: bool = False
    is_ended: bool = False
    is_end_sent: bool = False

    @property
    def num_waiting(self) -> int:
        """Samples not yet played."""
        return self.num_accepted - self.num_played

    @property
    def is_over(self) -> bool:
        """Whether all of it was played and no more will come."""
        return self.is_ended and self.num_waiting == 0

    def peek(self, start: int, count: int | None = None) -> Sound:
        """Sound from sample `start`, which is not yet played, on."""
        end = self.num_accepted if count is None else min(start + count, self.num_accepted)
        pieces, at = [], self.num_played
        for part_T in self.parts:
            if at >= end:
                break
            pieces.append(part_T[max(start - at, 0) : end - at])
            at += len(part_T)
        return np.concatenate(pieces) if pieces else np.zeros(0, np.int16)

    def unsent(self) -> Sound:
        """Sound that the model was not given; walks from the end, where new sound is."""
        pieces, at = deque[Sound](), self.num_accepted
        for part_T in reversed(self.parts):
            if at <= self.num_sent:
                break
            at -= len(part_T)
            pieces.appendleft(part_T[max(self.num_sent - at, 0) :])
        return np.concatenate(pieces) if pieces else np.zeros(0, np.int16)

    def take(self, count: int) -> Sound:
        """Play the next samples, as many as there are."""
        sound_T = self.peek(self.num_played, count)
        left = len(sound_T)
        while left:
            first_T = self.parts.popleft()
            if len(first_T) > left:
                self.parts.appendleft(first_T[left:])
            left -= min(left, len(first_T))
        self.num_played += len(sound_T)
        return sound_T

    def rewind(self, at: int) -> None:
        """Have a model that knows nothing of it go on at sample `at`."""
        self.num_sent = self.num_made = self.alone_until = at
        self.is_end_sent = False

    def position(
        self, sample_rate: int, *, is_over: bool = False, was_interrupted: bool = False
    ) -> Position:
        """How far it came."""
        return Position(
            utterance=self.name,
            played_samples=self.num_played,
            num_samples=self.num_accepted,
            sample_rate=sample_rate,
            is_over=is_over or was_interrupted,
            was_interrupted=was_interrupted,
        )


class Ledger:
    """The utterances of one session in the order in which they were begun."""

    def __init__(self, sample_rate: int, *, max_ahead_s: int = MAX_AHEAD_S) -> None:
        """Start empty; at most `max_ahead_s` of sound wait."""
        self.sample_rate, self.max_ahead_s = sample_rate, max_ahead_s
        self.entries: deque[Entry] = deque()
        self._over: OrderedDict[str, Position] = OrderedDict()

    @property
    def head(self) -> Entry | None:
        """The utterance whose turn it is."""
        return self.entries[0] if self.entries else None

    @property
    def num_waiting(self) -> int:
        """Samples not yet played."""
        return sum(entry.num_waiting for entry in self.entries)

    def room(self) -> int:
        """How many samples would be accepted now."""
        return max(0, self.max_ahead_s * self.sample_rate - self.num_waiting)

    def find(self, name: str | None) -> Entry | None:
        """The utterance of this name, if it is not over."""
        return next((entry for entry in self.entries if entry.name == name), None)

    def positions(self) -> dict[str, Position]:
        """How far every utterance came; the latest that are over, too."""
        live = {entry.name: entry.position(self.sample_rate) for entry in self.entries}
        return {**self._over, **live}

    def was_interrupted(self, name: str) -> bool:
        """Whether an utterance was interrupted, as far as is remembered."""
        return name in self._over and self._over[name].was_interrupted

    def accept(self, name: str, sound_T: Sound) -> None:
        """Keep the next sound of an utterance, which this begins.

        Raises:
            LedgerFull: the sender is too far ahead.
            UtteranceOver: the utterance was ended.
        """
        entry = self.find(name)
        if name in self._over or (entry is not None and entry.is_ended):
            raise UtteranceOver(f"utterance {name!r} is over: begin another one")
        if len(sound_T) > self.room():
            raise LedgerFull(
                f"more than {self.max_ahead_s} s of sound would wait: send it as it is played"
            )
        if entry is None:
            entry = Entry(name)
            self.entries.append(entry)
        if len(sound_T):
            entry.parts.append(np.array(sound_T, np.int16))
            entry.num_accepted += len(sound_T)

    def end(self, name: str) -> None:
        """No more sound will come of an utterance; one that is unknown is begun and empty."""
        entry = self.find(name)
        if entry is None and name not in self._over:
            entry = Entry(name)
            self.entries.append(entry)
        if entry is not None:
            entry.is_ended = True

    def finish(self) -> Position:
        """Forget the head, which is over."""
        position = self.entries.popleft().position(self.sample_rate, is_over=True)
        return self._remember(position)

    def drop(self, up_to: str | None = None) -> list[Entry]:
        """Take out all utterances, or those up to and with the one named; they are interrupted."""
        dropped: list[Entry] = []
        if up_to is not None and self.find(up_to) is None:
            return dropped
        while self.entries and (not dropped or dropped[-1].name != up_to):
            entry = self.entries.popleft()
            self._remember(entry.position(self.sample_rate, was_interrupted=True))
            dropped.append(entry)
        return dropped

    def _remember(self, position: Position) -> Position:
        """Keep how far an utterance came that is over."""
        if position.utterance is not None:
            self._over[position.utterance] = position
        if len(self._over) > MAX_REMEMBERED:
            self._over.popitem(last=False)
        return position
