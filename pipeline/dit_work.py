"""How much the network computes and remembers: arithmetic on its config, nothing is run.

One operation is a multiplication or an addition. Source: the count of a chunk's step that the
published 14-billion-parameter network makes at 384x704 (docs/placement.md).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from pipeline.guidance import num_branches
from pipeline.plan import Plan, Step
from pipeline.plugins.contract import Decision
from pipeline.plugins.registry import make_plugins
from pipeline.window_spec import WindowSpec
from video.dit_config import DiTConfig
from video.rope import LatentGrid

# What happens at a step in the steady state: the network runs, a forecast takes its place, that is
# decided on the way (by the first chunk, a deadline), or only first chunks come by (a short route).
Runs = Literal["full", "forecast", "open", "first"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepWork:
    """One step of one chunk: operations, layers passed, and values kept or used.

    `lane_values` are the step's ring with the sink's rows in front, or the strides that windows
    hold back; `scratch_values` what exists only while it runs. With guidance the network runs
    twice, each time with a lane of its own. What `runs` says in the steady state is counted; a
    step that is decided on the way counts as computed.
    """

    flops: float
    num_layers: int
    lane_values: int
    sink_values: int
    scratch_values: int
    adapter: str | None = None
    hinge: bool = False
    runs: Runs = "full"

    @property
    def is_computed(self) -> bool:
        """Whether the network runs there for chunk after chunk."""
        return self.runs in ("full", "open")


def step_works(config: DiTConfig, plan: Plan, rows: int, columns: int) -> tuple[StepWork, ...]:
    """The work of each step of a plan on latents of `rows` x `columns`.

    A step that changes resolution, adapter or guidance against the one before is a hinge.

    Raises:
        PlanError: a plug-in of the plan is not there, or of no use in it.
    """
    works, runs = [], _runs(plan)
    for index, step in enumerate(plan.steps):
        before = plan.steps[index - 1] if index else step
        work = _step_work(config, plan, step, _scaled(config, step.resolution, rows, columns))
        work = replace(work, hinge=_function(before) != _function(step), runs=runs[index])
        works.append(work if work.is_computed else _not_computed(work))
    return tuple(works)


def _runs(plan: Plan) -> Mapping[int, Runs]:
    """What happens at each step for chunks after the first, by index."""
    legs = plan.legs(0 if plan.short is None else plan.short.from_chunk)
    runs: dict[int, Runs] = dict.fromkeys(range(len(plan.steps)), "first")
    runs |= dict.fromkeys((leg.index for leg in legs), "full")
    for plugin in make_plugins(plan):
        for leg, mark in zip(legs, plugin.marks(legs), strict=True):
            if mark is not Decision.FULL and runs[leg.index] == "full":
                runs[leg.index] = "open" if mark is None else "forecast"
    return runs


def _not_computed(work: StepWork) -> StepWork:
    """The step as chunk after chunk passes it: beside the network a forecast costs nothing."""
    lane_values = 0 if work.runs == "forecast" else work.lane_values
    return replace(work, flops=0.0, num_layers=0, lane_values=lane_values, scratch_values=0)


def _function(step: Step) -> tuple[float, str | None, float]:
    """What makes two steps the same function of their input."""
    return (step.resolution, step.adapter, step.guidance)


def _scaled(config: DiTConfig, resolution: float, rows: int, columns: int) -> LatentGrid:
    """The grid of a step, in whole patches."""
    _, patch_rows, patch_columns = config.patch_size
    return LatentGrid(
        height=max(1, round(rows * resolution / patch_rows)) * patch_rows,
        width=max(1, round(columns * resolution / patch_columns)) * patch_columns,
        patch_height=patch_rows,
        patch_width=patch_columns,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frames:
    """Latent frames of one pass: those computed, those seen on average, and those kept after it."""

    computed: int
    seen: float
    kept: int


def _frames(config: DiTConfig, plan: Plan) -> _Frames:
    """What one message of the chain has a step compute in the steady state."""
    chunk, windows = plan.frames_per_chunk, plan.windows
    if windows is None:
        return _Frames(computed=chunk, seen=plan.window_frames, kept=plan.window_frames)
    if windows.blend == "rolling":
        return _Frames(computed=chunk, seen=windows.length, kept=chunk)
    return _Frames(
        computed=windows.length,
        seen=_seen_in_window(config, plan, windows),
        kept=(1 + windows.held_back) * chunk,
    )


def _seen_in_window(config: DiTConfig, plan: Plan, windows: WindowSpec) -> float:
    """How many frames of its window a frame sees: all, or those of chunks up to its own."""
    if windows.bidirectional:
        return windows.length
    chunk = config.frames_per_chunk
    ends = range(chunk, windows.length + 1, chunk)
    return sum(min(end, plan.window_frames) for end in ends) / max(1, len(ends))


def _step_work(config: DiTConfig, plan: Plan, step: Step, grid: LatentGrid) -> StepWork:
    """The work of one computed step in the steady state: the ring is full."""
    branches = num_branches(step)
    frames = _frames(config, plan)
    tokens = frames.computed * grid.frame_tokens
    sink_tokens = grid.frame_tokens + (grid.motion_tokens if config.enable_framepack else 0)
    text_tokens = config.text_len if config.text_dim else 0
    pair = 2 * config.num_layers * config.dim
    if plan.windows is None:
        lane_values = branches * pair * (frames.kept * grid.frame_tokens + sink_tokens)
    else:
        # Latents, what the prior wants, and as many numbers again while a window is blended.
        lane_values = 3 * config.in_dim * frames.kept * grid.height * grid.width
    return StepWork(
        flops=branches * step_flops(config, tokens, frames.seen * grid.frame_tokens + sink_tokens),
        num_layers=branches * config.num_layers,
        lane_values=lane_values,
        sink_values=pair * (sink_tokens + text_tokens),
        scratch_values=tokens * (config.ffn_dim + 8 * config.dim),
        adapter=step.adapter,
    )


def step_flops(config: DiTConfig, chunk_tokens: int, context_tokens: float) -> float:
    """Operations of one pass over `chunk_tokens` that see `context_tokens` (their own included).

    The prompt's keys and values are made once a session, and encoding the speech is nothing
    beside this; neither is in here.
    """
    dim, tokens = config.dim, chunk_tokens
    layer = 8 * tokens * dim**2 + 4 * tokens * context_tokens * dim
    layer += 4 * tokens * dim * config.ffn_dim
    if config.text_dim:
        layer += 4 * tokens * dim**2 + 4 * tokens * config.text_len * dim
    audio = len(config.audio_inject_layers) * (
        4 * tokens * dim**2 + 4 * tokens * (config.num_audio_token + 1) * dim
    )
    patch = config.patch_size[1] * config.patch_size[2]
    ends = 2 * tokens * dim * patch * (config.in_dim + config.cond_dim + config.out_dim)
    return float(config.num_layers * layer + audio + ends)


def sink_flops(config: DiTConfig, sink_tokens: int) -> float:
    """Operations that fill a session's sink, once a session and device."""
    bare = replace(config, audio_inject_layers=())
    text = 4 * config.num_layers * config.text_len * config.dim**2 if config.text_dim else 0
    return step_flops(bare, sink_tokens, sink_tokens) + text
