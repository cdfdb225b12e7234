"""What a stage node shall run, small enough to be sent to the process that runs it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from pipeline.decode_stage import DecodeStage
from pipeline.denoising import Denoising, denoising_stage
from pipeline.plan import Plan
from pipeline.stage import Stage
from pipeline.step_cost import BatchProfile


class Recipe(Protocol):
    """Makes a stage where it is to run; must be importable there by name."""

    @property
    def name(self) -> str:
        """What the stage is called in reports."""
        ...

    @property
    def steps_done(self) -> int:
        """Steps of the plan behind a chunk that leaves the stage."""
        ...

    def build(self) -> Stage[Any]:
        """The stage, with its weights loaded."""
        ...


def state_shares(recipes: Sequence[Recipe]) -> list[frozenset[str]]:
    """Which parts of a session's state each stage of a chain has; the last one decodes."""
    shares, first = [], 0
    for index, recipe in enumerate(recipes):
        names = {f"step{step}" for step in range(first, recipe.steps_done)}
        first = max(first, recipe.steps_done)
        if index == len(recipes) - 1:
            names.add("decoder")
        shares.append(frozenset(names))
    return shares


@dataclass(frozen=True, slots=True, kw_only=True)
class DenoiseRecipe:
    """Stage `index` of a plan, with the network of a model folder.

    `batch` has it take chunks of several sessions through the network together.
    """

    model: str
    plan: Plan
    index: int
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    batch: BatchProfile = field(default_factory=BatchProfile)

    @property
    def name(self) -> str:
        """The stage's name in the plan."""
        return self.plan.stages[self.index].name

    @property
    def steps_done(self) -> int:
        """Steps of the plan up to this stage's last."""
        return self.plan.first_step(self.index + 1)

    def build(self) -> Denoising:
        """Load the model and take the plan's steps."""
        from pipeline.model import load_model

        model = load_model(self.model, device=self.device, dtype=self.dtype)
        denoiser = model.denoiser(self.plan, stage=self.index)
        return denoising_stage(denoiser, self.plan, self.index, batch=self.batch)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeRecipe:
    """The decoder of a model folder."""

    model: str
    device: str = "cpu"
    dtype: torch.dtype = torch.float32

    @property
    def name(self) -> str:
        """Always the same."""
        return "decode"

    @property
    def steps_done(self) -> int:
        """No chunk of latents leaves it."""
        return 0

    def build(self) -> DecodeStage:
        """Load the model and take its codec."""
        from pipeline.model import load_model

        return DecodeStage(load_model(self.model, device=self.device, dtype=self.dtype).codec)
