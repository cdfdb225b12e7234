"""Brings times of other machines onto the driver's clock. Pure.

Monotonic clocks begin at each machine's start. A question that is answered with the time there
bounds the difference: the clock there was read somewhere between question and answer, and the
quicker the answer, the less there is to be wrong about. The estimate is off by half the quickest
answer's time at most.
"""

from collections import deque
from dataclasses import dataclass, replace

from pipeline.spans import Record, Span

# Quick answers are trusted this many questions long; clocks drift apart by microseconds a second.
_MAX_ANSWERS = 64


@dataclass(frozen=True, slots=True)
class _Answer:
    """How long one took, and how far ahead the other clock then seemed."""

    round_trip_ns: int
    ahead_ns: int


class Clocks:
    """How far the clocks of other machines are ahead of the driver's."""

    def __init__(self, machine: str) -> None:
        """`machine` is the driver's own."""
        self._machine = machine
        self._answers: dict[str, deque[_Answer]] = {}

    def answered(self, machine: str, *, asked_ns: int, there_ns: int, heard_ns: int) -> None:
        """A machine was asked at `asked_ns`, said `there_ns`, and that was heard at `heard_ns`."""
        if machine != self._machine:
            answers = self._answers.setdefault(machine, deque(maxlen=_MAX_ANSWERS))
            middle_ns = (asked_ns + heard_ns) // 2
            answers.append(_Answer(heard_ns - asked_ns, there_ns - middle_ns))

    def ahead_ns(self, machine: str) -> int:
        """How far a machine's clock is ahead; 0 for the driver's own and for unknown ones."""
        answers = self._answers.get(machine)
        return min(answers, key=lambda a: a.round_trip_ns).ahead_ns if answers else 0

    def here(self, record: Record, machine: str) -> Record:
        """The record as the driver's clock would have it."""
        ahead_ns = self.ahead_ns(machine)
        if not ahead_ns:
            return record
        began_ns, ended_ns = record.began_ns - ahead_ns, record.ended_ns - ahead_ns
        if isinstance(record, Span):
            arrived_ns = record.arrived_ns - ahead_ns
            return replace(record, arrived_ns=arrived_ns, began_ns=began_ns, ended_ns=ended_ns)
        return replace(record, began_ns=began_ns, ended_ns=ended_ns)
