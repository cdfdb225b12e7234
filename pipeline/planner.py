"""Chooses where a plan's steps run: cuts and devices from costs and memory. Pure decisions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from pipeline.chain_work import ChainWork, decode_need, need_of, steps_need, usable_bytes
from pipeline.device import Cluster, Device
from pipeline.node_choice import Span, Strategy, choose_devices
from pipeline.partition import CutProblem, DecoderChoice, Run, best_cut
from pipeline.placement import PlacedStage, Placement
from pipeline.placement_refusal import (
    memory_error,
    require_fit,
    require_sessions,
    require_stages,
)
from pipeline.plan import Plan
from pipeline.step_cost import ChainCosts

Spot = tuple[Span, Device]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementRequest:
    """What is to be placed where.

    `num_stages` None leaves the number to the planner; more stages than devices share them.
    `decoder` says whether the decoder has a device of its own.
    """

    plan: Plan
    work: ChainWork
    costs: ChainCosts
    cluster: Cluster
    num_sessions: int = 1
    num_stages: int | None = None
    decoder: DecoderChoice = "auto"
    strategy: Strategy = "pack"


def place(request: PlacementRequest, *, running: Placement | None = None) -> Placement:
    """The placement whose slowest device is fastest, on as few devices as that takes.

    Where the plan names devices itself, its own cuts are kept and its names are followed. With
    `running`, each run of steps goes, of equal devices, to the one that holds most of its lanes.

    Raises:
        PlanError: nothing fits; one line with the arithmetic and the remedy.
    """
    require_sessions(request.num_sessions)
    require_stages(request.plan, request.num_stages)
    if _names_devices(request.plan):
        return _place_as_written(request)
    runs = _best_runs(request)
    if runs is None:
        raise memory_error(request.plan, request.work, request.cluster, request.num_sessions)
    grades = _grades(request.cluster)
    held: list[Spot] = []
    if running is not None:
        held = [((stage.first, stage.end), stage.device) for stage in running.stages]
    devices = choose_devices(
        [(run.first, run.end) for run in runs],
        [grades[run.grade].grade for run in runs],
        request.cluster,
        strategy=request.strategy,
        held=held,
    )
    spots = [((r.first, r.end), d) for r, d in zip(runs, devices, strict=True) if r.end > r.first]
    decoder = next(device for run, device in zip(runs, devices, strict=True) if run.decodes)
    return _placement(request, _subdivide(request, spots, decoder), decoder)


def _grades(cluster: Cluster) -> list[Device]:
    """A sample of each grade of device."""
    return list({device.grade: device for device in reversed(cluster.devices)}.values())[::-1]


def _best_runs(request: PlacementRequest) -> tuple[Run, ...] | None:
    """The best runs; as many as stages were asked for, or as near to it as devices allow."""
    if request.num_stages is None:
        return best_cut(_problem(request, None))
    devices = len(request.cluster.devices) - (request.decoder == "own")
    for num_runs in range(min(request.num_stages, devices), 0, -1):
        runs = best_cut(_problem(request, num_runs))
        if runs is not None:
            return runs
    return None


def _problem(request: PlacementRequest, num_runs: int | None) -> CutProblem:
    """The request as a problem of cutting."""
    samples = _grades(request.cluster)
    return CutProblem(
        num_steps=len(request.plan.steps),
        counts=tuple(
            sum(device.grade == sample.grade for device in request.cluster.devices)
            for sample in samples
        ),
        time_ms=partial(_run_ms, request, samples),
        memory=partial(_run_memory, request, samples),
        hinges=request.work.hinges,
        decoder=request.decoder,
        num_runs=num_runs,
    )


def _run_ms(request: PlacementRequest, samples: Sequence[Device], run: Run) -> float:
    """What a run takes for one chunk."""
    device, costs = samples[run.grade], request.costs
    own_ms = costs.stage_ms(run.first, run.end, device) if run.end > run.first else 0.0
    return own_ms + (costs.decode.ms(device) if run.decodes else 0.0)


def _run_memory(request: PlacementRequest, samples: Sequence[Device], run: Run) -> int | None:
    """What a run keeps in memory, None if that does not fit."""
    device = samples[run.grade]
    spans = [(run.first, run.end)] if run.end > run.first else []
    need = need_of(request.work, spans, run.decodes, device).total(request.num_sessions)
    return need if need <= usable_bytes(device) else None


def _subdivide(request: PlacementRequest, spots: list[Spot], decoder: Device) -> list[Spot]:
    """The runs cut further, on their own devices, until there are as many stages as asked.

    The longest is cut first. A stage is a process, so each brings a copy of the weights.

    Raises:
        PlanError: a device has no room for that many stages.
    """
    missing = (request.num_stages or 0) - len(spots)
    for _ in range(missing):
        index = max(
            (i for i, ((first, end), _) in enumerate(spots) if end - first > 1),
            key=lambda i: request.costs.stage_ms(*spots[i][0], spots[i][1]),
        )
        (first, end), device = spots[index]
        halves = [(first, cut) for cut in (_even_cut(request, first, end, device),)]
        halves.append((halves[0][1], end))
        spots[index : index + 1] = [(half, device) for half in halves]
    if missing > 0:
        for device in {device for _, device in spots}:
            spans = [span for span, spot_device in spots if spot_device == device]
            need = need_of(request.work, spans, device == decoder, device)
            require_fit(request.plan, need, device, request.num_sessions)
    return spots


def _even_cut(request: PlacementRequest, first: int, end: int, device: Device) -> int:
    """The step before which a run falls into the most even parts, at a hinge if it is a tie."""

    def worse_ms(cut: int) -> tuple[float, bool]:
        parts = (request.costs.stage_ms(a, b, device) for a, b in ((first, cut), (cut, end)))
        return round(max(parts), 6), cut not in request.work.hinges

    return min(range(first + 1, end), key=worse_ms)


def _names_devices(plan: Plan) -> bool:
    """Whether a plan says itself where something runs."""
    return plan.decoder is not None or any(stage.device for stage in plan.stages)


def _place_as_written(request: PlacementRequest) -> Placement:
    """The plan's own stages on the devices it names; the others get free devices in order.

    Raises:
        PlanError: a device is not there or too small, or other cuts were asked for.
    """
    plan, cluster = request.plan, request.cluster
    require_stages(plan, request.num_stages, fixed=True)
    named = [cluster.find(stage.device) for stage in plan.stages if stage.device]
    named += [cluster.find(plan.decoder)] if plan.decoder else []
    free = [device for device in cluster.devices if device not in named]
    spots: list[Spot] = []
    for index, stage in enumerate(plan.stages):
        first = plan.first_step(index)
        if stage.device:
            device = cluster.find(stage.device)
        else:
            device = free.pop(0) if free else (spots[-1][1] if spots else named[0])
        spots.append(((first, first + len(stage.steps)), device))
    decoder = cluster.find(plan.decoder) if plan.decoder else None
    if decoder is None:
        decoder = free[0] if free and request.decoder != "share" else spots[-1][1]
    placement = _placement(request, spots, decoder)
    for device in placement.devices:
        require_fit(plan, placement.need(device), device, request.num_sessions)
    return placement


def _placement(request: PlacementRequest, spots: Sequence[Spot], decoder: Device) -> Placement:
    """The stages with their times, memory and shares of their devices."""
    costs, names = request.costs, _own_names(request.plan)
    stages = [
        PlacedStage(
            name=names.get(span, f"steps{span[0]}-{span[1] - 1}"),
            first=span[0],
            end=span[1],
            device=device,
            time_ms=costs.stage_ms(*span, device),
            need=steps_need(request.work, *span, device),
            batched=costs.batches(*span),
        )
        for span, device in spots
    ]
    num_steps = len(request.plan.steps)
    stages.append(
        PlacedStage(
            name="decode",
            first=num_steps,
            end=num_steps,
            device=decoder,
            time_ms=costs.decode.ms(decoder),
            need=decode_need(request.work, decoder),
        )
    )
    whole = Placement(plan=request.plan, stages=tuple(stages), num_sessions=request.num_sessions)
    shared = (_share(stage, whole) for stage in stages)
    return replace(whole, stages=tuple(shared))


def _share(stage: PlacedStage, whole: Placement) -> PlacedStage:
    """The stage with its part of the device: by time, or alike where nothing takes any."""
    busy_ms = whole.busy_ms(stage.device)
    part = stage.time_ms / busy_ms if busy_ms > 0 else 1 / len(whole.on(stage.device))
    return replace(stage, fraction=part)


def _own_names(plan: Plan) -> dict[Span, str]:
    """The plan's names for its stages by their steps."""
    starts = [plan.first_step(index) for index in range(len(plan.stages))]
    return {
        (start, start + len(stage.steps)): stage.name
        for start, stage in zip(starts, plan.stages, strict=True)
        if stage.name != "decode"
    }
