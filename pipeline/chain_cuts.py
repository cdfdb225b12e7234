"""The nodes of a chain's cuts: where each listens, and where it keeps its checkpoints."""

from collections.abc import Sequence
from itertools import count
from pathlib import Path

from pipeline.chain_settings import ChainSettings
from pipeline.edge import EdgeSettings
from pipeline.host import NodeSpec
from pipeline.reach import widen
from pipeline.recipe import Recipe
from pipeline.stage_node import NodeSettings
from pipeline.transport import edge_address, node_addresses


class Cuts:
    """Makes the specs of one cut after the other; no two share a checkpoint."""

    def __init__(self, folder: Path, settings: ChainSettings, edge: EdgeSettings) -> None:
        """Of the chain that has this folder."""
        self._folder, self._settings = folder, settings
        self._node = NodeSettings(
            edge=edge,
            checkpoint_chunks=settings.checkpoint_chunks,
            horizon_s=2 * settings.latency_s,
        )
        self._numbers = count()

    @property
    def sink_address(self) -> str:
        """Where the chain's exit listens."""
        return self._reachable(edge_address(self._settings.transport, self._folder, "sink"))

    def specs(self, recipes: Sequence[Recipe]) -> list[NodeSpec]:
        """The nodes of a new cut."""
        cut, settings = next(self._numbers), self._settings
        addresses = node_addresses(settings.transport, self._folder, recipes)
        return [
            NodeSpec(
                position=index,
                recipe=recipe,
                address=self._reachable(addresses[index]),
                settings=self._node,
                store=self._folder / f"state{cut}-{index}" if settings.keep == "shared" else None,
                threads=settings.threads,
            )
            for index, recipe in enumerate(recipes)
        ]

    def _reachable(self, address: str) -> str:
        """The address for a listener that senders on other machines may look for."""
        return widen(address, self._settings.host) if self._settings.host else address
