"""Runs only the blocks that change most at the steps between two full ones."""

from dataclasses import dataclass
from math import ceil

import torch

from pipeline.plugins.contract import StepContext
from pipeline.plugins.feature_cache import FeatureCache, SeenBlocks
from video.block_cache import BlockRunner, SomeBlocks, WatchedBlocks


@dataclass(frozen=True, kw_only=True)
class SortBlock(FeatureCache):
    """At partial steps the share `rho` of blocks that changed most is run, the rest predicted.

    A block's change is that of what it adds, between the newest two full steps, beside its size.
    The session's first chunk ranks them at each step and the step keeps that, so later chunks find
    the keys that they need. Prediction is linear. Source: SortBlock (abstract).

    Raises:
        ValueError: a number is out of its range.
    """

    name = "sortblock"

    rho: float = 0.5

    def __post_init__(self) -> None:
        """Refuse a share that is none."""
        super().__post_init__()
        if not 0.0 <= self.rho <= 1.0:
            raise ValueError(f"rho {self.rho} must lie in [0, 1]")

    def watching(self, ctx: StepContext, seen: SeenBlocks) -> BlockRunner:
        """Every block's addition is remembered."""
        del ctx
        return WatchedBlocks(seen)

    def partial(self, ctx: StepContext, seen: SeenBlocks) -> BlockRunner:
        """The blocks that this step's lane names are run; the first chunk names them."""
        key = f"{self.name}.layers"
        if key not in ctx.lane_memory:
            ctx.lane_memory[key] = torch.tensor(self._most_changed(seen), dtype=torch.int64)
        return SomeBlocks(seen, frozenset(ctx.lane_memory[key].tolist()))

    def _most_changed(self, seen: SeenBlocks) -> list[int]:
        """The layers to run; of equal ones the earlier."""
        changes = seen.changes("whole")
        ranked = sorted(changes, key=lambda layer: (-changes[layer], layer))
        return sorted(ranked[: ceil(self.rho * len(ranked))])
