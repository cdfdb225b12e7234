"""Into which segments a long render is cut, and which of them are still to be made. Pure.

A segment is what comes out of the generator while a stretch of sound goes in; the last one is also
what it holds back to the end. So a segment's pictures lag behind its sound by the model's
look-ahead (80 ms for the pocket model, windows for plans that have them), and the first segments
of a plan with many windows may hold no picture at all. The state that a segment leaves is what the
next one starts from, whether in the same process or years later.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from fractions import Fraction

from audio.align import num_frames

# States kept for repairs, beside the last two.
ANCHOR_EVERY = 16


@dataclass(frozen=True, slots=True)
class Segment:
    """The sound that goes in, from one sample to before another."""

    index: int
    start_sample: int
    end_sample: int
    is_last: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentPlan:
    """All segments of a render; `pictures` is how many a segment's sound lasts."""

    num_samples: int
    sample_rate: int
    fps: Fraction
    pictures: int

    @property
    def num_segments(self) -> int:
        """How many segments there are, at least one."""
        return max(1, -(-self.num_frames // self.pictures))

    @property
    def num_frames(self) -> int:
        """Pictures in all."""
        return num_frames(self.num_samples, self.sample_rate, self.fps)

    def segment(self, index: int) -> Segment:
        """The segment of that index."""
        is_last = index == self.num_segments - 1
        end = self.num_samples if is_last else self._first_sample(index + 1)
        return Segment(index, self._first_sample(index), end, is_last)

    def _first_sample(self, index: int) -> int:
        """The first sample that is not before the segment's time."""
        seconds = index * self.pictures / self.fps
        return -(-seconds.numerator * self.sample_rate // seconds.denominator)


def pictures_per_segment(fps: Fraction, pictures_per_chunk: int, wanted_s: Fraction) -> int:
    """Whole chunks, as many as come closest below a time, at least one."""
    chunks = int(wanted_s * fps) // pictures_per_chunk
    return max(1, chunks) * pictures_per_chunk


@dataclass(frozen=True, slots=True)
class Step:
    """The next thing to do: load the state after segment `load` if not None (-1: start afresh),
    then run segment `run`, whose pictures are wanted only if `is_wanted`.
    """

    run: int
    load: int | None
    is_wanted: bool


def steps(num_segments: int, whole: Collection[int], states: Collection[int]) -> Iterator[Step]:
    """What is to be run, in order, where segments `whole` and the states after `states` are there.

    Nothing that is there is made again, but for what lies between the nearest state before a
    damaged segment and that segment: it is run for the state alone.
    """
    position = None
    for missing in (i for i in range(num_segments) if i not in whole):
        nearest = max((s for s in states if s < missing), default=-1)
        is_on_the_way = position is not None and nearest < position <= missing
        start = position if is_on_the_way and position is not None else nearest + 1
        for index in range(start, missing + 1):
            load = None if position == index else index - 1
            yield Step(run=index, load=load, is_wanted=index == missing)
            position = index + 1


def is_state_kept(index: int, last: int) -> bool:
    """Whether the state after a segment is kept once `last` is the last whole one."""
    return index >= last - 1 or index % ANCHOR_EVERY == ANCHOR_EVERY - 1
