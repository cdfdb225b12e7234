"""Running a network's blocks in another way than one after the other in full.

A runner is asked in the place of every block of a pass. It may run the block, a part of it, or
remember what the block gave earlier. A block whose attention is left out writes no keys and values
for the step it is at, so the same ones must be left out for every chunk of a session: then nobody
reads what was not written.

Shape legend: B = batch (1), G = groups of tokens sharing one time, T = tokens of a group, D = model
channels, L = G * T tokens, P = tokens that are computed, K = clusters.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from video.dit_block import SelfAttend, TransformerBlock

Text = tuple[torch.Tensor, torch.Tensor] | None


class BlockRunner(Protocol):
    """Stands in for every block of one pass over one chunk."""

    def __call__(
        self,
        block: "TransformerBlock",
        x_BGTD: torch.Tensor,
        times_BG6D: torch.Tensor,
        attend_self: "SelfAttend",
        text: Text,
    ) -> torch.Tensor:
        """What comes after the block; `block.layer` says which it is."""
        ...


class BlockMemory(Protocol):
    """What blocks gave at the steps before, by layer and part, newest last."""

    def observe(self, layer: int, part: str, value: torch.Tensor) -> None:
        """Remember what a part of a block gave at this step."""
        ...

    def predict(self, layer: int, part: str) -> torch.Tensor:
        """What it would give at this step."""
        ...


@dataclass(frozen=True, slots=True)
class WatchedBlocks:
    """Runs every block and remembers what each adds."""

    memory: BlockMemory

    def __call__(
        self,
        block: "TransformerBlock",
        x_BGTD: torch.Tensor,
        times_BG6D: torch.Tensor,
        attend_self: "SelfAttend",
        text: Text,
    ) -> torch.Tensor:
        """The block's own result."""
        made_BGTD: torch.Tensor = block(x_BGTD, times_BG6D, attend_self, text)
        self.memory.observe(block.layer, "whole", made_BGTD - x_BGTD)
        return made_BGTD


@dataclass(frozen=True, slots=True)
class SomeBlocks:
    """Runs blocks of some `layers`; the others add what memory predicts. Source: SortBlock."""

    memory: BlockMemory
    layers: Collection[int]

    def __call__(
        self,
        block: "TransformerBlock",
        x_BGTD: torch.Tensor,
        times_BG6D: torch.Tensor,
        attend_self: "SelfAttend",
        text: Text,
    ) -> torch.Tensor:
        """The block's own result, or the prediction."""
        if block.layer in self.layers:
            made_BGTD: torch.Tensor = block(x_BGTD, times_BG6D, attend_self, text)
            return made_BGTD
        return x_BGTD + self.memory.predict(block.layer, "whole").to(x_BGTD)


@dataclass(frozen=True, slots=True)
class WatchedHalves:
    """Runs every block and remembers what attention and what the feed-forward adds.

    `show` is given the tokens `[L, D]` after each block.
    """

    memory: BlockMemory
    show: Callable[[torch.Tensor], None]

    def __call__(
        self,
        block: "TransformerBlock",
        x_BGTD: torch.Tensor,
        times_BG6D: torch.Tensor,
        attend_self: "SelfAttend",
        text: Text,
    ) -> torch.Tensor:
        """The block's own result."""
        rows = block.rows(times_BG6D, x_BGTD.dtype)
        mixed_BGTD = block.mixed(x_BGTD, rows, attend_self, text)
        made_BGTD = block.fed(mixed_BGTD, rows)
        self.memory.observe(block.layer, "mixed", mixed_BGTD - x_BGTD)
        self.memory.observe(block.layer, "fed", made_BGTD - mixed_BGTD)
        self.show(made_BGTD[0].flatten(0, 1))
        return made_BGTD


@dataclass(frozen=True, slots=True)
class ClusteredBlocks:
    """Predicts attention, and runs the feed-forward for one token of each cluster.

    `labels_L` says which cluster each token is in, `chosen_K` which token stands for each. What
    the feed-forward adds to the others is predicted and moved by `weight` towards what it adds to
    theirs. Source: ClusCa.
    """

    memory: BlockMemory
    labels_L: torch.Tensor
    chosen_K: torch.Tensor
    weight: float

    def __call__(
        self,
        block: "TransformerBlock",
        x_BGTD: torch.Tensor,
        times_BG6D: torch.Tensor,
        attend_self: "SelfAttend",
        text: Text,
    ) -> torch.Tensor:
        """What the block would give, nearly."""
        del attend_self, text
        chosen_K = self.chosen_K.to(x_BGTD.device)
        mixed_BGTD = x_BGTD + self.memory.predict(block.layer, "mixed").to(x_BGTD)
        tokens_BK1D = mixed_BGTD.flatten(1, 2)[:, chosen_K].unsqueeze(2)
        group_K = torch.div(chosen_K, x_BGTD.shape[2], rounding_mode="floor")
        rows = block.rows(times_BG6D[:, group_K], x_BGTD.dtype)
        fresh_BKD = (block.fed(tokens_BK1D, rows) - tokens_BK1D).squeeze(2)
        added_BLD = self.memory.predict(block.layer, "fed").to(x_BGTD).flatten(1, 2)
        of_cluster_BLD = fresh_BKD[:, self.labels_L.to(x_BGTD.device)]
        added_BLD = torch.lerp(added_BLD, of_cluster_BLD, self.weight)
        added_BLD = added_BLD.index_copy(1, chosen_K, fresh_BKD)
        return mixed_BGTD + added_BLD.view(x_BGTD.shape)


def clustered(
    features_LD: torch.Tensor, num_clusters: int, rounds: int = 5
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens in clusters: labels and squared distances from the cluster's mean, each `[L]`.

    K-means from tokens that lie far from each other, so nothing is drawn at random. Labels count
    from 0 without a gap; where tokens are alike there are fewer than `num_clusters`.
    """
    centres_KD = features_LD[_far_apart(features_LD, num_clusters)]
    for _ in range(rounds):
        labels_L, _ = _nearest(features_LD, centres_KD)
        sums_KD = torch.zeros_like(centres_KD).index_add(0, labels_L, features_LD)
        counts_K = torch.bincount(labels_L, minlength=num_clusters)
        kept_K1 = (counts_K > 0)[:, None]
        centres_KD = torch.where(kept_K1, sums_KD / counts_K.clamp(min=1)[:, None], centres_KD)
    labels_L, distance_L = _nearest(features_LD, centres_KD)
    return torch.unique(labels_L, return_inverse=True)[1], distance_L


def chosen_tokens(labels_L: torch.Tensor, distance_L: torch.Tensor, turn: int) -> torch.Tensor:
    """One token of each cluster `[K]`: the nearest to its mean at turn 0, then the next nearest."""
    chosen = []
    for label in range(int(labels_L.max()) + 1):
        members_P = (labels_L == label).nonzero().flatten()
        order_P = distance_L[members_P].argsort(stable=True)
        chosen.append(members_P[order_P[turn % len(members_P)]])
    return torch.stack(chosen)


def _far_apart(features_LD: torch.Tensor, count: int) -> list[int]:
    """Tokens of which each lies as far as can be from those before it; the first is the middle."""
    first = int((features_LD - features_LD.mean(0)).square().sum(1).argmin())
    found = [first]
    distance_L = (features_LD - features_LD[first]).square().sum(1)
    while len(found) < count:
        found.append(int(distance_L.argmax()))
        newest_L = (features_LD - features_LD[found[-1]]).square().sum(1)
        distance_L = torch.minimum(distance_L, newest_L)
    return found


def _nearest(
    features_LD: torch.Tensor, centres_KD: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The nearest centre of each token, and its squared distance."""
    distance_LK = (features_LD[:, None] - centres_KD[None]).square().sum(2)
    distance_L, nearest_L = distance_LK.min(1)
    return nearest_L, distance_L
