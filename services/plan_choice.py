"""Which plan a render takes: the one that was named, or the mode's."""

from pipeline.errors import PlanError
from pipeline.plan import Plan
from pipeline.plan_mode import Mode
from pipeline.plan_parse import load_plan

# What is taken for a render in many steps where no plan is named.
RENDER_PLAN = "render"


def chosen_plan(name: str | None, mode: Mode | None, model_plan: str) -> Plan:
    """The plan of that name, or the mode's own: live the model's, render `RENDER_PLAN`.

    Without a mode any plan will do.

    Raises:
        PlanError: there is no such plan, or it is made for the other mode.
    """
    default = RENDER_PLAN if mode == "render" else model_plan
    plan = load_plan(name or default)
    if mode is not None and plan.mode != mode:
        raise PlanError(
            f"--mode {mode} and plan {plan.name} do not go together: {_reason(plan)}. Leave --mode "
            f"out, or choose a plan of mode {mode} (viva plan list)"
        )
    return plan


def _reason(plan: Plan) -> str:
    """Why a plan is of its mode."""
    if plan.mode == "live":
        return "it takes few steps, chunk by chunk, as is right while somebody watches"
    if plan.windows is not None:
        return "its windows wait for sound that comes after their pictures, as only a render can"
    return f"its {len(plan.steps)} steps are for a file that nobody waits for"
