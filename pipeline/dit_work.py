"""How much the network computes and remembers: arithmetic on its config, nothing is run.

One operation is a multiplication or an addition. Source: the count of a chunk's step that the
published 14-billion-parameter network makes at 384x704 (docs/placement.md).
"""

from dataclasses import dataclass, replace

from pipeline.plan import Plan, Step
from video.dit_config import DiTConfig
from video.rope import LatentGrid


@dataclass(frozen=True, slots=True, kw_only=True)
class StepWork:
    """One step of one chunk: operations, layers passed, and values kept or used.

    `lane_values` are the step's ring with the sink's rows in front, `scratch_values` what exists
    only while it runs. With guidance the network runs twice, each time with a lane of its own.
    """

    flops: float
    num_layers: int
    lane_values: int
    sink_values: int
    scratch_values: int
    adapter: str | None = None
    hinge: bool = False


def step_works(config: DiTConfig, plan: Plan, rows: int, columns: int) -> tuple[StepWork, ...]:
    """The work of each step of a plan on latents of `rows` x `columns`.

    A step that changes resolution, adapter or guidance against the one before is a hinge.
    """
    works = []
    for index, step in enumerate(plan.steps):
        before = plan.steps[index - 1] if index else step
        work = _step_work(config, plan, step, _scaled(config, step.resolution, rows, columns))
        works.append(replace(work, hinge=_function(before) != _function(step)))
    return tuple(works)


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


def _step_work(config: DiTConfig, plan: Plan, step: Step, grid: LatentGrid) -> StepWork:
    """The work of one step in the steady state: the ring is full."""
    branches = 1 if step.guidance == 1.0 else 2
    chunk_tokens = plan.frames_per_chunk * grid.frame_tokens
    sink_tokens = grid.frame_tokens + (grid.motion_tokens if config.enable_framepack else 0)
    ring_tokens = plan.window_frames * grid.frame_tokens
    text_tokens = config.text_len if config.text_dim else 0
    pair = 2 * config.num_layers * config.dim
    return StepWork(
        flops=branches * step_flops(config, chunk_tokens, ring_tokens + sink_tokens),
        num_layers=branches * config.num_layers,
        lane_values=branches * pair * (ring_tokens + sink_tokens),
        sink_values=pair * (sink_tokens + text_tokens),
        scratch_values=chunk_tokens * (config.ffn_dim + 8 * config.dim),
        adapter=step.adapter,
    )


def step_flops(config: DiTConfig, chunk_tokens: int, context_tokens: int) -> float:
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
