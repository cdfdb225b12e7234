"""What `viva plan` tells: a plan placed on devices, as values, as a table and as JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Group
from rich.table import Table
from rich.text import Text

from pipeline.catalog import configs_folder, is_bare_name, shipped_plans
from pipeline.chain_work import ChainWork
from pipeline.device import Cluster, Device, gib
from pipeline.errors import ModelError, PlanError
from pipeline.machine import this_machine
from pipeline.model import MAX_CONFIG_BYTES, ModelConfig, read_config
from pipeline.model_work import chain_work
from pipeline.node_choice import Strategy
from pipeline.outlook import MAX_LOAD, Outlook, outlook
from pipeline.partition import DecoderChoice
from pipeline.placement import PlacedStage, Placement
from pipeline.plan import Plan
from pipeline.plan_parse import load_plan
from pipeline.planner import PlacementRequest, place
from pipeline.sink_rules import SinkDistance
from pipeline.step_cost import ChainCosts, modelled_costs
from services.plan_drawing import chain_table, in_words, step_records


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanQuestion:
    """What a user asks of a plan; None stands for the model's, the machine's or the planner's own.

    `step_ms` are measured times that replace the model's: one for all steps, or one for each.
    """

    plan: str
    model: str = "pocket"
    cluster: Cluster | None = None
    num_sessions: int = 1
    num_stages: int | None = None
    size: tuple[int, int] | None = None
    fps: Fraction | None = None
    decoder: DecoderChoice = "auto"
    strategy: Strategy = "pack"
    step_ms: tuple[float, ...] = ()
    decode_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanAnswer:
    """A placement with what it was made from and what to expect of it."""

    model: str
    size: tuple[int, int]
    fps: Fraction
    work: ChainWork
    costs: ChainCosts
    placement: Placement
    expected: Outlook
    is_measured: bool


def answer(question: PlanQuestion) -> PlanAnswer:
    """Place the plan and say what to expect.

    Raises:
        ModelError, PlanError: one line with the remedy.
    """
    plan = load_plan(question.plan)
    folder, config = read_model_config(question.model)
    work = chain_work(config, plan, folder=folder, size=question.size)
    cluster = question.cluster or this_machine()
    costs = _costs(work, cluster, question)
    placement = place(
        PlacementRequest(
            plan=plan,
            work=work,
            costs=costs,
            cluster=cluster,
            num_sessions=question.num_sessions,
            num_stages=question.num_stages,
            decoder=question.decoder,
            strategy=question.strategy,
        )
    )
    fps = question.fps or config.fps
    return PlanAnswer(
        model=config.name,
        size=question.size or config.native_size,
        fps=fps,
        work=work,
        costs=costs,
        placement=placement,
        expected=outlook(placement, work, fps),
        is_measured=bool(question.step_ms) and question.decode_ms is not None,
    )


def _costs(work: ChainWork, cluster: Cluster, question: PlanQuestion) -> ChainCosts:
    """Modelled costs, less those that the user has measured; one time is a computed step's."""
    modelled = modelled_costs(work)
    times = question.step_ms
    if len(times) not in (0, 1, len(modelled.steps)):
        raise PlanError(
            f"--step-ms has {len(times)} times for {len(modelled.steps)} steps: give one for all "
            "of them, or one for each"
        )
    steps, decode = list(modelled.steps), modelled.decode
    for device in cluster.devices:
        if times:
            each = times
            if len(times) == 1:
                each = tuple(times[0] if its.is_computed else 0.0 for its in work.steps)
            steps = [s.fixed_at(device, ms) for s, ms in zip(steps, each, strict=True)]
        if question.decode_ms is not None:
            decode = decode.fixed_at(device, question.decode_ms)
    return ChainCosts(steps=tuple(steps), decode=decode, hinges=modelled.hinges)


def read_model_config(name: str) -> tuple[Path, ModelConfig]:
    """The config of a model by its name, folder or `.json` file; its weights need not be there.

    Raises:
        ModelError: nothing is found, or it is no model's config.
    """
    path = Path(name)
    if is_bare_name(name) and path.suffix != ".json":
        path = configs_folder() / "models" / f"{name}.json"
        if not path.is_file():
            return read_config(name)
    elif path.suffix != ".json":
        return read_config(name)
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ModelError(f"{path} is larger than {MAX_CONFIG_BYTES} bytes: not a model config")
        return path.parent, ModelConfig.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        if isinstance(error, ModelError):
            raise
        reason = getattr(error, "strerror", None) or error
        if isinstance(error, ValidationError):
            first = error.errors(include_url=False)[0]
            reason = f"{'.'.join(str(part) for part in first['loc']) or 'file'}: {first['msg']}"
        raise ModelError(f"{path} is no model config ({reason}): give a config.json") from error


def as_record(found: PlanAnswer) -> dict[str, Any]:
    """The answer as plain values for JSON."""
    expected, placement = found.expected, found.placement
    return {
        "plan": placement.plan.name,
        "model": found.model,
        "width": found.size[0],
        "height": found.size[1],
        "fps": str(found.fps),
        "sessions": placement.num_sessions,
        "mode": placement.plan.mode,
        "stages": [_stage_record(stage, found) for stage in placement.stages],
        "steps": step_records(placement, found.work, found.costs),
        "chunk_ms": expected.chunk_ms,
        "period_ms": expected.period_ms,
        "pictures_per_s": expected.fps,
        "latency_ms": expected.latency_ms,
        "mouth_to_picture_ms": expected.mouth_ms,
        "opening_ms": expected.opening_ms,
        "load": expected.load,
        "real_time": expected.real_time,
        "sessions_that_fit": expected.num_fit,
        "limit": expected.limit,
        "is_measured": found.is_measured,
    }


def _stage_record(stage: PlacedStage, found: PlanAnswer) -> dict[str, Any]:
    bubbles = dict(found.expected.bubbles)
    return {
        "name": stage.name,
        "first_step": stage.first,
        "num_steps": stage.num_lanes,
        "node": stage.device.node,
        "device": stage.device.name,
        "fraction": stage.fraction,
        "time_ms": stage.time_ms,
        "bubble": bubbles[stage.device],
        "memory_bytes": stage.need.total(found.placement.num_sessions),
        "device_memory_bytes": stage.device.memory_bytes,
    }


def renderable(found: PlanAnswer) -> Group:
    """The answer as a person reads it: the chain step by step, its stages, what it comes to."""
    width, height = found.size
    title = (
        f"plan {found.placement.plan.name}, model {found.model}, {width}x{height} at "
        f"{found.fps} fps, {_count(found.placement.num_sessions, 'session')}"
    )
    plan = found.placement.plan
    return Group(
        Text(title),
        *map(Text, in_words(plan, found.work.steps)),
        chain_table(found.placement, found.work, found.costs),
        _table(found),
        *map(Text, _summary(found)),
    )


def _table(found: PlanAnswer) -> Table:
    """A row for each stage."""
    table = Table()
    for name in ("stage", "steps", "sigma", "device"):
        table.add_column(name)
    for name in ("ms a chunk", "of device", "bubbles", "memory", "of"):
        table.add_column(name, justify="right")
    bubbles = dict(found.expected.bubbles)
    for stage in found.placement.stages:
        table.add_row(
            stage.name,
            _steps(stage),
            _sigmas(stage, found.placement.plan),
            _device(stage.device, found.placement),
            f"{stage.time_ms:.1f}",
            f"{stage.fraction:.0%}",
            f"{bubbles[stage.device]:.0%}",
            gib(stage.need.total(found.placement.num_sessions)),
            gib(stage.device.memory_bytes),
        )
    return table


def _steps(stage: PlacedStage) -> str:
    if stage.decodes:
        return "-"
    names = str(stage.first) if stage.num_lanes == 1 else f"{stage.first}-{stage.end - 1}"
    return f"{names} batched" if stage.batched else names


def _sigmas(stage: PlacedStage, plan: Plan) -> str:
    if stage.decodes:
        return "-"
    steps = plan.steps[stage.first : stage.end]
    return f"{steps[0].sigma_in:.3g} > {steps[-1].sigma_out:.3g}"


def _device(device: Device, placement: Placement) -> str:
    several = len({stage.device.node for stage in placement.stages}) > 1
    return f"{device.node}/{device.name}" if several else device.name


def _summary(found: PlanAnswer) -> list[str]:
    """What the figures come to, in sentences."""
    expected, num_sessions = found.expected, found.placement.num_sessions
    each = " for each session" if num_sessions > 1 else ""
    verdict = {
        "yes": "real time",
        "no headroom": f"real time, but above the {MAX_LOAD:.0%} that leave room for waiting",
        "no": "not real time",
    }[expected.real_time]
    source = "as measured" if found.is_measured else "modelled from the config, not measured"
    if found.placement.plan.mode == "render":
        times = 1.0 / expected.load if expected.load else 0.0
        pace = f"{expected.fps:.1f} pictures a second{each} at full speed, {times:.2g} x real time"
        return [pace, f"opening a session {expected.opening_ms:.0f} ms; times {source}"]
    return [
        f"{verdict}: {expected.fps:.1f} pictures a second{each} at full speed; live, the slowest "
        f"device is busy {expected.load:.0%} of the time",
        f"latency {expected.latency_ms:.0f} ms from a chunk's sound to its pictures, "
        f"{expected.mouth_ms:.0f} ms from its first sound (a chunk shows for "
        f"{expected.chunk_ms:.0f} ms); opening a session {expected.opening_ms:.0f} ms",
        f"fits {_count(expected.num_fit, 'session')}, limited by {expected.limit}; times {source}",
    ]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _sink_words(distance: SinkDistance) -> str:
    """How far ahead of a chunk the reference lies."""
    if distance is None:
        return "stays"
    return (
        f"{distance[0]} to {distance[1]} ahead"
        if isinstance(distance, tuple)
        else f"{distance} ahead"
    )


def plan_table() -> Table:
    """The shipped plans, one a row."""
    table = Table()
    for name in ("plan", "for", "steps", "stages", "chunk", "window", "sink", "sigmas"):
        table.add_column(name)
    for name in shipped_plans():
        plan = load_plan(name)
        sink = _sink_words(plan.sink_distance)
        sigmas = _sigma_words([step.sigma_in for step in plan.steps])
        counts = (len(plan.steps), len(plan.stages), plan.frames_per_chunk, plan.window_frames)
        table.add_row(name, plan.mode, *map(str, counts), sink, sigmas)
    return table


def _sigma_words(sigmas: Sequence[float]) -> str:
    """Levels of a plan: all of a few, the first and the last of many."""
    words = [f"{sigma:.3g}" for sigma in sigmas]
    return ", ".join(words if len(words) <= 6 else [*words[:3], "...", words[-1]])
