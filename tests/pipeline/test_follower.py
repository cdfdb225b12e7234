"""Following a chain second by second: noise moves nothing, a lasting change moves a step once."""

import numpy as np
import pytest

from pipeline.device import parse_devices
from pipeline.follower import Follower
from pipeline.placement import Placement
from pipeline.planner import PlacementRequest, place
from pipeline.recut import Decision
from pipeline.step_cost import Ema, modelled_costs
from tests.support.planning import plan_of, work_of

pytestmark = pytest.mark.unit

CHUNKS_PER_S = 5


def request() -> PlacementRequest:
    work = work_of(4)
    return PlacementRequest(
        plan=plan_of(4),
        work=work,
        costs=modelled_costs(work),
        cluster=parse_devices("cuda:80GiB x2"),
        decoder="share",
    )


class Chain:
    """Stages that take `step_ms`, with jitter, and keep averages as nodes do."""

    def __init__(self, placement: Placement, step_ms: list[float]) -> None:
        self.step_ms = step_ms
        self.num_done = 0
        self._draws = np.random.default_rng(5)
        self.move(placement)

    def move(self, placement: Placement) -> None:
        self.placement = placement
        self.paces = [Ema() for _ in placement.stages]

    def run(self, seconds: int, follower: Follower, start_s: int = 0) -> list[Decision]:
        decisions = []
        for second in range(start_s, start_s + seconds):
            for _ in range(CHUNKS_PER_S):
                self.num_done += 1
                for position, stage in enumerate(self.placement.stages):
                    true_ms = 10.0 if stage.decodes else sum(self.step_ms[stage.first : stage.end])
                    jitter = 1 + 0.15 * (2 * self._draws.random() - 1)
                    self.paces[position] = self.paces[position].after(true_ms * jitter)
            decision = follower.look(self.paces, self.num_done, float(second))
            assert decision is not None
            if decision.placement is not None:
                decisions.append(decision)
                follower.moved(decision.placement, self.num_done)
                self.move(decision.placement)
        return decisions


def cuts(placement: Placement) -> list[tuple[int, int]]:
    return [(stage.first, stage.end) for stage in placement.stages if not stage.decodes]


def test_times_that_only_jitter_move_nothing() -> None:
    running = place(request())
    assert Chain(running, [100.0] * 4).run(200, Follower(request(), running)) == []


def test_a_lasting_change_moves_a_step_once_and_then_all_is_quiet() -> None:
    running = place(request())
    follower = Follower(request(), running)
    chain = Chain(running, [100.0] * 4)
    assert chain.run(60, follower) == []
    assert cuts(chain.placement) == [(0, 2), (2, 4)]
    chain.step_ms = [100.0, 100.0, 300.0, 400.0]
    (moved,) = chain.run(200, follower, start_s=60)
    assert moved.placement is not None
    assert cuts(moved.placement) == [(0, 3), (3, 4)]
    assert follower.running == moved.placement
    assert "slowest device" in moved.reason


def test_it_looks_once_a_second_and_not_at_averages_of_nothing() -> None:
    running = place(request())
    follower = Follower(request(), running)
    unknown = [Ema() for _ in running.stages]
    assert follower.look(unknown, 0, 10.0) is not None
    assert follower.look(unknown, 0, 10.9) is None
    decision = follower.look([Ema(value_ms=9e9, num_samples=2)] * len(unknown), 500, 11.0)
    assert decision is not None
    assert decision.placement is None
    with pytest.raises(ValueError, match="times for"):
        follower.look(unknown[1:], 0, 20.0)
