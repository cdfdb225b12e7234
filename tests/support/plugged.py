"""The small chain with plug-ins at work, cut and scheduled in every way."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from pipeline.chain import LocalChain, Schedule
from pipeline.cuts import cut_at
from pipeline.decode_stage import DecodeStage
from pipeline.denoise_stage import DenoiseStage
from pipeline.plan import Plan, PluginSpec, StageSpec, Step
from pipeline.plugins.registry import make_plugins
from pipeline.recipe import Recipe
from pipeline.stage import ChunkWork, SessionInputs
from tests.support.small_chain import CUTS, PlainCodec, decode_stage, denoiser, run
from video.chunk import VideoChunk

Options = Mapping[str, Any]


def plan_of(sigmas: Sequence[float], **plugins: Options) -> Plan:
    """A plan of Euler steps through these levels, in one stage, with plug-ins and their options."""
    steps = tuple(Step(sigma_in=a, sigma_out=b) for a, b in itertools.pairwise(sigmas))
    return with_plugins(Plan(name="small", stages=(StageSpec(name="all", steps=steps),)), **plugins)


def with_plugins(plan: Plan, **plugins: Options) -> Plan:
    """The plan with plug-ins by name."""
    specs = tuple(PluginSpec(name=name, options=dict(given)) for name, given in plugins.items())
    return replace(plan, plugins=specs)


def plugged_chain(plan: Plan, schedule: Schedule = "sequential", num_stages: int = 1) -> LocalChain:
    """A chain of the plan, cut into stages, with its plug-ins."""
    cut = cut_at(plan, CUTS[num_stages])
    network = replace(denoiser(), plugins=make_plugins(plan))
    return LocalChain.from_plan(cut, network, PlainCodec(), schedule=schedule)  # type: ignore[arg-type]  # its state is its own kind


def plugged_stage(plan: Plan) -> DenoiseStage:
    """The first stage of the plan, with its plug-ins."""
    return DenoiseStage(replace(denoiser(), plugins=make_plugins(plan)), plan, 0)


def latents_of(plan: Plan, inputs: SessionInputs, works: Sequence[ChunkWork]) -> list[torch.Tensor]:
    """The clean latents of a session's chunks."""
    stage = plugged_stage(plan)
    stage.prepare(inputs)
    return [stage.process(work).latent.latents_CTHW for work in works]


PLACEMENTS: tuple[tuple[Schedule, int], ...] = (
    ("pipelined", 1),
    ("sequential", 2),
    ("pipelined", 3),
    ("pipelined", 4),
)


def every_placement(
    plan: Plan, inputs: SessionInputs, works: Sequence[ChunkWork]
) -> list[list[VideoChunk]]:
    """The pictures of one process and one stage first, then those of every other placement."""
    placements = (("sequential", 1), *PLACEMENTS)
    return [run(plugged_chain(plan, kind, stages), inputs, works) for kind, stages in placements]


@dataclass(frozen=True, slots=True, kw_only=True)
class PluggedRecipe:
    """A stage of a plan with its plug-ins; after the last stage comes the decoder."""

    plan: Plan
    index: int

    @property
    def name(self) -> str:
        return f"plugged{self.index}"

    @property
    def steps_done(self) -> int:
        return 0 if self.index == len(self.plan.stages) else self.plan.first_step(self.index + 1)

    def build(self) -> DenoiseStage | DecodeStage:
        if self.index == len(self.plan.stages):
            return decode_stage()
        network = replace(denoiser(), plugins=make_plugins(self.plan))
        return DenoiseStage(network, self.plan, self.index)


def plugged_recipes(plan: Plan, num_stages: int) -> list[Recipe]:
    """Recipes of the plan cut into stages, the decoder last."""
    cut = cut_at(plan, CUTS[num_stages])
    return [PluggedRecipe(plan=cut, index=index) for index in range(num_stages + 1)]
