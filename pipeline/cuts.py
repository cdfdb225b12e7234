"""Where a plan is cut into stages."""

from dataclasses import replace
from itertools import pairwise

from pipeline.errors import PlanError
from pipeline.plan import Plan, StageSpec


def cut_evenly(plan: Plan, num_stages: int) -> Plan:
    """The plan with its steps in `num_stages` stages of as equal a number as can be.

    Raises:
        PlanError: there are more stages than steps, or none.
    """
    steps = plan.steps
    if not 1 <= num_stages <= len(steps):
        raise PlanError(
            f"plan {plan.name} has {len(steps)} steps, which cannot be cut into {num_stages} "
            f"stages: choose 1..{len(steps)}"
        )
    edges = [index * len(steps) // num_stages for index in range(num_stages + 1)]
    return cut_at(plan, edges[1:-1])


def join_neighbours(plan: Plan) -> Plan:
    """The plan with stages that follow each other on one device made one, by the first's name."""
    stages: list[StageSpec] = []
    for spec in plan.stages:
        if stages and stages[-1].device == spec.device:
            stages[-1] = replace(stages[-1], steps=(*stages[-1].steps, *spec.steps))
        else:
            stages.append(spec)
    return replace(plan, stages=tuple(stages))


def cut_at(plan: Plan, cuts: list[int]) -> Plan:
    """The plan with a new stage beginning at each of these steps; devices are left open."""
    edges = [0, *cuts, len(plan.steps)]
    stages = tuple(
        StageSpec(name=f"steps{first}-{end - 1}", steps=plan.steps[first:end])
        for first, end in pairwise(edges)
    )
    return replace(plan, stages=stages)
