"""Follows measured stage times and says when, and how, to cut a running chain anew. Pure decisions.

Source: the rebalancing of StreamDiffusionV2 (design page "algorithms", 7.5), over whole steps.
"""

from dataclasses import dataclass, replace
from typing import Literal

from pipeline.device import Device
from pipeline.placement import PlacedStage, Placement
from pipeline.planner import PlacementRequest, place
from pipeline.step_cost import MIN_SAMPLES, ChainCosts, Ema

# A new cut must make the slowest device this much faster, this often in a row, and not too soon
# after the last one: moving lanes costs every session a pause.
MIN_GAIN = 0.15
MIN_AGREEING = 3
MIN_CHUNKS_BETWEEN = 100

Action = Literal["start", "fill sinks", "fence", "export", "import", "join", "resume", "stop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationStep:
    """One thing to do. `steps` are the steps whose lanes it is about.

    `fence` lets the named stage finish chunk `boundary` of every session and take no more;
    `resume` lets it go on with the chunk after.
    """

    action: Action
    stage: str
    device: Device
    steps: tuple[int, ...] = ()
    boundary: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Leave the chain as it is (`placement` None), or cut it so by these steps; why, in words."""

    reason: str
    placement: Placement | None = None
    migration: tuple[MigrationStep, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recutter:
    """What is remembered between looks: costs as measured, and how often a new cut looked better.

    `since_cut` counts chunks since the chain was cut last.
    """

    costs: ChainCosts
    num_agreeing: int = 0
    since_cut: int = 0

    def observed(self, stage: PlacedStage, sample_ms: float) -> "Recutter":
        """After a stage took so long for a chunk; its steps share that as their costs say.

        Raises:
            ValueError: the time is negative or no number.
        """
        device, costs = stage.device, self.costs
        if stage.decodes:
            decode = costs.decode.observed(device, sample_ms)
            return replace(self, costs=replace(costs, decode=decode), since_cut=self.since_cut + 1)
        steps = list(costs.steps)
        for index, part in _parts(costs, stage).items():
            steps[index] = steps[index].observed(device, sample_ms * part)
        return replace(self, costs=replace(costs, steps=tuple(steps)))

    def paced(self, stage: PlacedStage, pace: Ema) -> "Recutter":
        """After a stage told its own average, which replaces what was known of its steps.

        An average over too few chunks changes nothing.
        """
        if pace.num_samples < MIN_SAMPLES:
            return self
        device, costs = stage.device, self.costs
        if stage.decodes:
            decode = costs.decode.fixed_at(device, pace.value_ms)
            return replace(self, costs=replace(costs, decode=decode))
        steps = list(costs.steps)
        for index, part in _parts(costs, stage).items():
            steps[index] = steps[index].fixed_at(device, pace.value_ms * part)
        return replace(self, costs=replace(costs, steps=tuple(steps)))

    def look(
        self, request: PlacementRequest, running: Placement, boundary: int
    ) -> "tuple[Recutter, Decision]":
        """Decide whether to cut anew after chunk `boundary`.

        `request` says what may be used; its costs are replaced by those measured.
        """
        asked = replace(request, costs=self.costs)
        before_ms = retimed(running, self.costs).bottleneck_ms
        best = place(asked, running=running)
        gain = 1 - best.bottleneck_ms / before_ms if before_ms > 0 else 0.0
        if gain < MIN_GAIN or _spots(best) == _spots(running):
            return replace(self, num_agreeing=0), Decision(reason=f"a new cut gains {gain:.0%}")
        agreeing = replace(self, num_agreeing=self.num_agreeing + 1)
        if agreeing.num_agreeing < MIN_AGREEING:
            seen = f"{agreeing.num_agreeing} of {MIN_AGREEING} looks agree"
            return agreeing, Decision(reason=f"a new cut gains {gain:.0%}, {seen}")
        if self.since_cut < MIN_CHUNKS_BETWEEN:
            return agreeing, Decision(reason=f"the last cut is {self.since_cut} chunks old")
        decision = Decision(
            reason=f"slowest device {before_ms:.1f} > {best.bottleneck_ms:.1f} ms",
            placement=best,
            migration=migration(running, best, boundary),
        )
        return replace(self, num_agreeing=0, since_cut=0), decision


def _parts(costs: ChainCosts, stage: PlacedStage) -> dict[int, float]:
    """What each step of a stage counts of the stage's time."""
    total_ms = costs.stage_ms(stage.first, stage.end, stage.device)
    return {
        index: costs.steps[index].ms(stage.device) / total_ms
        if total_ms > 0
        else 1 / stage.num_lanes
        for index in range(stage.first, stage.end)
    }


def retimed(placement: Placement, costs: ChainCosts) -> Placement:
    """The placement with its stages' times by these costs."""
    stages = (
        replace(
            stage,
            time_ms=costs.decode.ms(stage.device)
            if stage.decodes
            else costs.stage_ms(stage.first, stage.end, stage.device),
        )
        for stage in placement.stages
    )
    return replace(placement, stages=tuple(stages))


def migration(before: Placement, after: Placement, boundary: int) -> tuple[MigrationStep, ...]:
    """How to get from one placement to another between two chunks, in order.

    Stages that keep steps and device are not touched. All others are fenced after `boundary`, in
    the order of a chunk, so nothing is under way between them when lanes move.
    """
    kept = _spots(before) & _spots(after)
    old = [stage for stage in before.stages if _spot(stage) not in kept]
    new = [stage for stage in after.stages if _spot(stage) not in kept]
    started = [_step("start", stage) for stage in new]
    sinks = [_step("fill sinks", stage) for stage in new if _is_strange(stage, before)]
    fences = [_step("fence", stage, boundary=boundary) for stage in old]
    moves = [move for stage in new for move in _moves(stage, before)]
    joins = [_step("join", stage) for stage in reversed(after.stages) if old]
    resumed = [_step("resume", stage, boundary=boundary + 1) for stage in new]
    stopped = [_step("stop", stage) for stage in old]
    return (*started, *sinks, *fences, *moves, *joins, *resumed, *stopped)


def _moves(stage: PlacedStage, before: Placement) -> list[MigrationStep]:
    """The lanes of a new stage (or the decoder's state) from each old stage that has them."""
    steps = []
    for old in before.stages:
        shared = tuple(range(max(stage.first, old.first), min(stage.end, old.end)))
        if shared or (stage.decodes and old.decodes):
            steps.append(_step("export", old, lanes=shared))
            steps.append(_step("import", stage, lanes=shared))
    return steps


def _is_strange(stage: PlacedStage, before: Placement) -> bool:
    """Whether a stage comes to a device that has no sinks yet."""
    return not stage.decodes and all(
        old.decodes or old.device != stage.device for old in before.stages
    )


def _step(
    action: Action,
    stage: PlacedStage,
    *,
    lanes: tuple[int, ...] = (),
    boundary: int | None = None,
) -> MigrationStep:
    return MigrationStep(
        action=action, stage=stage.name, device=stage.device, steps=lanes, boundary=boundary
    )


def _spot(stage: PlacedStage) -> tuple[int, int, Device]:
    return (stage.first, stage.end, stage.device)


def _spots(placement: Placement) -> set[tuple[int, int, Device]]:
    """Which steps are where."""
    return {_spot(stage) for stage in placement.stages}
