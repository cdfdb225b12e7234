"""What a method can do at a denoising step without the chain knowing the method.

A plug-in holds nothing of any session. What it must remember of a chunk lies in `chunk_memory` and
travels with the chunk from stage to stage; what it must remember of a session at one step lies in
`lane_memory`, which only that step sees. So a plug-in gives the same numbers wherever a plan is
cut, and both memories are exported with everything else.

Shape legend: C = latent channels, T = latent frames of the chunk, H, W = latent grid of the step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

import torch

from pipeline.route import Leg
from video.block_cache import BlockRunner

if TYPE_CHECKING:
    from pipeline.plan import Plan

Memory = dict[str, torch.Tensor]


class Decision(Enum):
    """What happens at a step: the network runs, in part, or `predict` takes its place."""

    FULL = "full"
    PARTIAL = "partial"
    SKIP = "skip"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepContext:
    """A chunk at a step, before the network is asked.

    `legs` is the chunk's whole way through the plan, `leg` where it is. `latents_CTHW` and
    `cond_CTHW` have the step's resolution. `ring_frames` counts the past latent frames that the
    step remembers, `ring_is_full` whether it has no room for more. `slack_s` is how long after the
    stage began with the chunk its pictures are due, None if nobody waits for them.
    """

    session: str
    chunk: int
    seed: int
    legs: Sequence[Leg]
    leg: Leg
    latents_CTHW: torch.Tensor
    cond_CTHW: torch.Tensor
    ring_frames: int
    chunk_memory: Memory
    lane_memory: Memory
    ring_is_full: bool = False
    slack_s: float | None = None

    @property
    def sigma(self) -> float:
        """The noise level of the latents."""
        return self.leg.step.sigma_in

    @property
    def position(self) -> int:
        """How many steps of its way the chunk has behind it."""
        return [leg.index for leg in self.legs].index(self.leg.index)

    @property
    def follows_break(self) -> bool:
        """Whether the step is another function of its input than the one before it on the way.

        Another resolution, adapter or guidance: nothing learnt before may be used.
        """
        return breaks(self.legs)[self.position]


def breaks(legs: Sequence[Leg]) -> tuple[bool, ...]:
    """Which steps of a way are another function of their input than the step before them.

    The first is; so is one of another resolution, adapter or guidance.
    """
    kinds = [(leg.step.resolution, leg.step.adapter, leg.step.guidance) for leg in legs]
    return (True, *(now != before for before, now in pairwise(kinds)))


class Plugin(Protocol):
    """A method at work in a plan; `PlainPlugin` does nothing and may be built upon."""

    @property
    def name(self) -> str:
        """What plans call it; its entries in memories begin with this and a dot."""
        ...

    @property
    def skips(self) -> bool:
        """Whether it may keep the network from running in full; a plan has one such at most."""
        ...

    @property
    def degrades(self) -> bool:
        """Whether what it skips is missing, to be counted, and no part of the plan."""
        ...

    def check(self, plan: "Plan") -> None:
        """Refuse a plan in which it makes no sense.

        Raises:
            ValueError: says why, and what to do.
        """
        ...

    def marks(self, legs: Sequence[Leg]) -> tuple[Decision | None, ...]:
        """What it will decide at each step of a way; None where that depends on the chunk."""
        ...

    def network_sigma(self, ctx: StepContext) -> float:
        """The noise level that the network is told."""
        ...

    def before_step(self, ctx: StepContext) -> Decision:
        """Whether the network runs at this step."""
        ...

    def predict(self, ctx: StepContext) -> torch.Tensor:
        """The velocity in the network's place, after `before_step` said SKIP."""
        ...

    def block_runner(self, ctx: StepContext) -> BlockRunner | None:
        """What runs the network's blocks at this step; None leaves them to the network."""
        ...

    def after_step(self, ctx: StepContext, velocity_CTHW: torch.Tensor) -> None:
        """See the velocity that the network gave; not called for skipped steps."""
        ...

    def transform_velocity(self, ctx: StepContext, velocity_CTHW: torch.Tensor) -> torch.Tensor:
        """The velocity to go on with, computed or predicted; plug-ins follow each other."""
        ...

    def invalidate(self, memory: Memory, reason: str) -> None:
        """Forget what a memory holds of this plug-in, after a break in what it describes."""
        ...


# Plug-ins are built upon it and use what is given; it does not.
# ruff: noqa: ARG002
class PlainPlugin:
    """Runs every step and changes nothing."""

    name = "plain"
    skips = False
    degrades = False

    def check(self, plan: "Plan") -> None:
        """Any plan will do."""

    def marks(self, legs: Sequence[Leg]) -> tuple[Decision | None, ...]:
        """Every step runs."""
        return (Decision.FULL,) * len(legs)

    def network_sigma(self, ctx: StepContext) -> float:
        """The step's own level."""
        return ctx.sigma

    def before_step(self, ctx: StepContext) -> Decision:
        """Run."""
        return Decision.FULL

    def predict(self, ctx: StepContext) -> torch.Tensor:
        """Never asked for, as long as no step is left out."""
        raise RuntimeError(f"plug-in {self.name} leaves a step out: let its `predict` replace it")

    def block_runner(self, ctx: StepContext) -> BlockRunner | None:
        """The network runs its blocks."""
        return None

    def after_step(self, ctx: StepContext, velocity_CTHW: torch.Tensor) -> None:
        """Remember nothing."""

    def transform_velocity(self, ctx: StepContext, velocity_CTHW: torch.Tensor) -> torch.Tensor:
        """The velocity as it is."""
        return velocity_CTHW

    def invalidate(self, memory: Memory, reason: str) -> None:
        """Forget every entry under the plug-in's name."""
        for key in [key for key in memory if key.startswith(f"{self.name}.")]:
            del memory[key]
