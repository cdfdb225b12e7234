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


def cut_at(plan: Plan, cuts: list[int]) -> Plan:
    """The plan with a new stage beginning at each of these steps; devices are left open."""
    edges = [0, *cuts, len(plan.steps)]
    stages = tuple(
        StageSpec(name=f"steps{first}-{end - 1}", steps=plan.steps[first:end])
        for first, end in pairwise(edges)
    )
    return replace(plan, stages=stages)
