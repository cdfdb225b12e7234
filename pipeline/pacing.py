"""Which tick of a stream is due, and which samples belong to it. Pure: time is passed in.

A stream ticks at its frame rate from an anchor on. A tick that is late is done at once, so a short
stall is caught up; after a long one the stream goes on from now, later than planned. Nothing is
skipped. Times are of a monotonic clock in nanoseconds, media time is whole ticks and whole samples:
nothing adds up rounding errors.
"""

from dataclasses import dataclass, replace
from fractions import Fraction

# A viewer's buffer bridges a quarter of a second; after half of one it has run dry anyway.
REANCHOR_AFTER_MS = 500
_NS_PER_S = 1_000_000_000
_NS_PER_MS = 1_000_000


def samples_before(frame: int, sample_rate: int, fps: Fraction) -> int:
    """How many samples lie before a frame's time; frame 0 begins at sample 0.

    Frame n has the samples from `samples_before(n)` up to `samples_before(n + 1)`, the rule of
    `pipeline.sync`: over any number of frames the count is less than 1 above the exact ratio.
    """
    return -(-frame * sample_rate * fps.denominator // fps.numerator)


def samples_of(frame: int, sample_rate: int, fps: Fraction) -> int:
    """How many samples belong to a frame."""
    before = samples_before(frame, sample_rate, fps)
    return samples_before(frame + 1, sample_rate, fps) - before


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """A stream's own time: tick `anchor_tick` is due at `anchor_ns`, the others by the rate."""

    fps: Fraction
    anchor_ns: int
    anchor_tick: int = 0
    reanchor_after_ms: int = REANCHOR_AFTER_MS

    def __post_init__(self) -> None:
        """Refuse rates that are none."""
        if self.fps <= 0:
            raise ValueError(f"fps is {self.fps}; it must be above 0")
        if self.reanchor_after_ms <= 0:
            raise ValueError(f"reanchor_after_ms is {self.reanchor_after_ms}; it must be above 0")

    @property
    def frame_ns(self) -> int:
        """How long a tick lasts at most, rounded up."""
        return -(-_NS_PER_S * self.fps.denominator // self.fps.numerator)

    def due_ns(self, tick: int) -> int:
        """When a tick is due; rounded down, each by itself."""
        ticks = tick - self.anchor_tick
        return self.anchor_ns + ticks * _NS_PER_S * self.fps.denominator // self.fps.numerator


@dataclass(frozen=True, slots=True, kw_only=True)
class Pacing:
    """What to do about a tick: do it now if `wait_ns` is 0, else look again after that long.

    `late_ns` is how late it is; `pace` is the one to go on with, another one if `is_reanchored`.
    """

    pace: Pace
    wait_ns: int
    late_ns: int
    is_reanchored: bool = False


def pacing(pace: Pace, tick: int, now_ns: int) -> Pacing:
    """Decide about a tick at a moment of the monotonic clock.

    Less than `reanchor_after_ms` late: it is due, and so are the ones behind it until the stream
    is level again. As late as that or more, or a tick before the anchor: the stream goes on from
    now. A wait is never longer than a frame, whatever the clock does.
    """
    late_ns = now_ns - pace.due_ns(tick)
    if tick < pace.anchor_tick or late_ns >= pace.reanchor_after_ms * _NS_PER_MS:
        anchored = replace(pace, anchor_ns=now_ns, anchor_tick=tick)
        return Pacing(pace=anchored, wait_ns=0, late_ns=max(late_ns, 0), is_reanchored=True)
    wait_ns = min(max(-late_ns, 0), pace.frame_ns)
    return Pacing(pace=pace, wait_ns=wait_ns, late_ns=max(late_ns, 0))
