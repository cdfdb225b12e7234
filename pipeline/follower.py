"""Follows what a running chain's stages take, and says when another cut has become better.

The decision is `recut.Recutter`'s; this holds what it remembers, from one look to the next.
"""

from collections.abc import Sequence
from dataclasses import replace

from pipeline.placement import Placement
from pipeline.planner import PlacementRequest
from pipeline.recut import Decision, Recutter
from pipeline.step_cost import Ema

LOOK_EVERY_S = 1.0


class Follower:
    """What is known of one chain's times; asked about once a second, the time is passed in."""

    def __init__(self, request: PlacementRequest, running: Placement) -> None:
        """Follow a chain that was placed so; `request` says what a new cut may use."""
        self._request = request
        self._recutter = Recutter(costs=request.costs)
        self._running = running
        self._done_at_cut: int | None = None
        self._next_look_s = float("-inf")
        self._last = Decision(reason="nothing was seen yet")

    @property
    def running(self) -> Placement:
        """How the chain is cut as far as this knows."""
        return self._running

    @property
    def last(self) -> Decision:
        """What was decided last, and why."""
        return self._last

    def look(self, paces: Sequence[Ema], num_done: int, now_s: float) -> Decision | None:
        """Take in the stages' average times; what to do, None if it is too soon to ask again.

        `paces` is in the order of the placement's stages, `num_done` counts the chunks that have
        come out of the chain so far.

        Raises:
            ValueError: there are times for another number of stages.
        """
        if len(paces) != len(self._running.stages):
            raise ValueError(
                f"{len(paces)} times for {len(self._running.stages)} stages: give one for each"
            )
        if now_s < self._next_look_s:
            return None
        self._next_look_s = now_s + LOOK_EVERY_S
        if self._done_at_cut is None:
            self._done_at_cut = num_done
        since_cut = num_done - self._done_at_cut
        recutter = replace(self._recutter, since_cut=since_cut)
        for stage, pace in zip(self._running.stages, paces, strict=True):
            recutter = recutter.paced(stage, pace)
        self._recutter, self._last = recutter.look(self._request, self._running, num_done)
        return self._last

    def moved(self, placement: Placement, num_done: int) -> None:
        """The chain is cut so from now on."""
        self._running, self._done_at_cut = placement, num_done
