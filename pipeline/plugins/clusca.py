"""Runs a few tokens of each block at the steps between two full ones.

Shape legend: L = tokens, D = model channels, K = clusters.
"""

from dataclasses import dataclass

import torch

from pipeline.plugins.contract import Decision, StepContext
from pipeline.plugins.feature_cache import FeatureCache, SeenBlocks
from video.block_cache import (
    BlockRunner,
    ClusteredBlocks,
    WatchedHalves,
    chosen_tokens,
    clustered,
)


@dataclass(frozen=True, kw_only=True)
class ClusCa(FeatureCache):
    """At partial steps attention is predicted and the feed-forward run for a token of each cluster.

    Tokens are clustered at full steps by what comes out of the last block, into `clusters`. The
    feed-forward's addition to all others is predicted, and moved by `weight` towards that of their
    cluster's token, each step another one. No partial step runs attention, so none writes keys,
    whatever the chunk. Source: ClusCa (FLUX: 16 clusters, weight .005); there the moved values
    replace what is remembered, here they serve their step alone, so that memory stays what full
    steps saw.

    Raises:
        ValueError: a number is out of its range.
    """

    name = "clusca"

    clusters: int = 16
    weight: float = 0.005

    def __post_init__(self) -> None:
        """Refuse numbers that could not be followed."""
        super().__post_init__()
        if not 1 <= self.clusters <= 4096:
            raise ValueError(f"clusters {self.clusters} must lie in 1..4096")
        if not 0.0 <= self.weight <= 1.0:
            raise ValueError(f"weight {self.weight} must lie in [0, 1]")

    def watching(self, ctx: StepContext, seen: SeenBlocks) -> BlockRunner:
        """Both halves of every block are remembered, and the tokens clustered after the last."""

        def show(features_LD: torch.Tensor) -> None:
            ctx.chunk_memory[f"{self.name}.features"] = features_LD

        return WatchedHalves(seen, show)

    def partial(self, ctx: StepContext, seen: SeenBlocks) -> BlockRunner:
        """One token of each cluster, the nearest to its mean first."""
        labels_L, distance_L = (
            ctx.chunk_memory[f"{self.name}.{name}"] for name in ("labels", "distance")
        )
        chosen_K = chosen_tokens(labels_L, distance_L, self._turn(ctx))
        return ClusteredBlocks(seen, labels_L, chosen_K, self.weight)

    def after_step(self, ctx: StepContext, velocity_CTHW: torch.Tensor) -> None:
        """Cluster what came out of the last block."""
        features_LD = ctx.chunk_memory.pop(f"{self.name}.features", None)
        if features_LD is not None:
            count = min(self.clusters, len(features_LD))
            labels_L, distance_L = clustered(features_LD.float(), count)
            ctx.chunk_memory[f"{self.name}.labels"] = labels_L
            ctx.chunk_memory[f"{self.name}.distance"] = distance_L
        super().after_step(ctx, velocity_CTHW)

    def _turn(self, ctx: StepContext) -> int:
        """How many partial steps lie between this and the full one before it."""
        before = self.marks(ctx.legs)[: ctx.position]
        return next(k for k, mark in enumerate(reversed(before)) if mark is Decision.FULL)
