"""Draws the chain that a plan unrolls to: every step, where it is cut, what it costs."""

from typing import Any

from rich.table import Table

from pipeline.chain_work import ChainWork
from pipeline.dit_work import Runs, StepWork
from pipeline.guidance import num_branches
from pipeline.placement import PlacedStage, Placement
from pipeline.plan import Plan, Step
from pipeline.step_cost import ChainCosts

# What happens at a step, as a word for people.
WORDS: dict[Runs, str] = {
    "full": "computed",
    "forecast": "forecast",
    "open": "decided on the way",
    "first": "first chunk only",
}


def step_records(placement: Placement, work: ChainWork, costs: ChainCosts) -> list[dict[str, Any]]:
    """Every step as plain values: what it is, what happens there, what it costs where it runs."""
    records = []
    for index, (step, its) in enumerate(zip(placement.plan.steps, work.steps, strict=True)):
        stage = _stage_of(placement, index)
        records.append(
            {
                "step": index,
                "stage": stage.name,
                "sigma_in": step.sigma_in,
                "sigma_out": step.sigma_out,
                "rule": step.rule,
                "resolution": step.resolution,
                "adapter": step.adapter,
                "guidance": step.guidance,
                "hinge": its.hinge,
                "runs": its.runs,
                "flops": its.flops,
                "time_ms": costs.steps[index].ms(stage.device),
            }
        )
    return records


def _stage_of(placement: Placement, index: int) -> PlacedStage:
    """The stage that a step is in."""
    return next(stage for stage in placement.stages if stage.first <= index < stage.end)


def chain_table(placement: Placement, work: ChainWork, costs: ChainCosts) -> Table:
    """A row for each step, a line at each cut, and what changes where the function does."""
    plan, table = placement.plan, Table()
    for name in ("step", "sigma", "rule", "size", "adapter", "guidance", "what happens", "stage"):
        table.add_column(name)
    table.add_column("ms a chunk", justify="right")
    for index, (step, its) in enumerate(zip(plan.steps, work.steps, strict=True)):
        stage = _stage_of(placement, index)
        if its.hinge:
            table.add_row("", "", "", *_hinge(plan.steps[index - 1], step), "", "", "")
        table.add_row(
            str(index),
            f"{step.sigma_in:.4g} > {step.sigma_out:.4g}",
            step.rule,
            _size(step),
            step.adapter or "-",
            "-" if step.guidance == 1.0 else f"{step.guidance:g}",
            WORDS[its.runs],
            stage.name if index == stage.first else "",
            f"{costs.steps[index].ms(stage.device):.1f}",
            end_section=index == stage.end - 1,
        )
    decoder = placement.stages[-1]
    decode_ms = f"{costs.decode.ms(decoder.device):.1f}"
    table.add_row("", "", "", "", "", "", "decode", decoder.name, decode_ms)
    return table


def _size(step: Step) -> str:
    return "full" if step.resolution == 1.0 else f"x {step.resolution:g}"


def _hinge(before: Step, now: Step) -> tuple[str, str, str]:
    """What changes between two steps: an arrow in the column of each change."""
    pairs = (
        (before.resolution, now.resolution),
        (before.adapter, now.adapter),
        (before.guidance, now.guidance),
    )
    size, adapter, guidance = ("" if a == b else "-- hinge --" for a, b in pairs)
    return size, adapter, guidance


def in_words(plan: Plan, works: tuple[StepWork, ...]) -> list[str]:
    """What the table does not show: how often the network runs, the short route, the windows."""
    pairs = zip(plan.steps, works, strict=True)
    computed = sum(num_branches(step) for step, its in pairs if its.is_computed)
    lines = [
        f"for {plan.mode}; {computed} evaluations of the network for {len(plan.steps)} steps, "
        f"chunks of {plan.frames_per_chunk} latent frames"
    ]
    if plan.short is not None:
        steps = ", ".join(map(str, plan.short.steps))
        lines.append(f"from chunk {plan.short.from_chunk} on by the short route: steps {steps}")
    if plan.windows is not None:
        windows = plan.windows
        lines.append(
            f"windows of {windows.length} frames, {windows.overlap} of them shared with the next, "
            f"blend {windows.blend}; pictures come {windows.lag(len(plan.steps))} strides late"
        )
    if plan.plugins:
        lines.append(f"plug-ins: {', '.join(spec.name for spec in plan.plugins)}")
    return lines
