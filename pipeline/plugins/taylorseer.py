"""Forecasts what every block adds instead of what the network gives: TaylorSeer.

A forecast step still embeds the latents, lets them hear, and reads the result out; only the blocks
are left to the forecaster. The history is as large as the network is deep.

Shape legend: L = layers.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from pydantic import ConfigDict

from pipeline.forecaster import Basis, Forecaster, ForecastRule
from pipeline.plugins.contract import Memory, StepContext
from pipeline.plugins.feature_cache import FeatureCache, SeenBlocks
from video.block_cache import BlockRunner, SomeBlocks, WatchedBlocks


@dataclass(slots=True)
class ModuleHistory:
    """A `BlockMemory` for one step: what blocks give is put aside, what they would give foretold.

    The layer factor compares modules, so all layers are foretold at once, at the first question.
    """

    forecaster: Forecaster
    memory: Memory
    prefix: str
    place: float
    foretold_L: torch.Tensor | None = field(default=None)

    def observe(self, layer: int, part: str, value: torch.Tensor) -> None:
        """Put aside what a layer gave until all have been seen."""
        del part
        self.memory[f"{self.prefix}fresh.{layer:04d}"] = value

    def predict(self, layer: int, part: str) -> torch.Tensor:
        """What a layer would give here."""
        del part
        if self.foretold_L is None:
            self.foretold_L = self.forecaster.predict(self.place)
        return self.foretold_L[layer]


@dataclass(frozen=True, kw_only=True)
class TaylorSeer(FeatureCache):
    """At partial steps all blocks are forecast, each from its own history.

    `order`, `basis`, `alpha` and `layer_exp` are those of `ForecastRule`: FlashPortrait's published
    mode is order 3, interval 5, alpha 1.5, layer_exp -0.5, basis taylor. The forecast of the final
    output (the plug-in forecast) costs less and remembers less.

    Source: TaylorSeer; FlashPortrait, adaptive latent prediction.

    Raises:
        ValueError: a number is out of its range.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    name = "taylorseer"

    order: int = 1
    basis: Basis = "taylor"
    alpha: float = 0.0
    layer_exp: float = 0.0

    def __post_init__(self) -> None:
        """Refuse options that could not be followed."""
        super().__post_init__()
        _ = self.rule

    @property
    def rule(self) -> ForecastRule:
        """The options as the forecaster takes them."""
        return ForecastRule(
            order=self.order,
            interval=self.interval,
            warmup=self.warmup,
            cooldown=self.cooldown,
            basis=self.basis,
            alpha=self.alpha,
            layer_exp=self.layer_exp,
            granularity="modules",
        )

    def watching(self, ctx: StepContext, seen: SeenBlocks) -> BlockRunner:
        """Every block's addition is put aside."""
        del seen
        return WatchedBlocks(self._history(ctx))

    def partial(self, ctx: StepContext, seen: SeenBlocks) -> BlockRunner:
        """No block is run."""
        del seen
        return SomeBlocks(self._history(ctx), frozenset())

    def after_step(self, ctx: StepContext, velocity_CTHW: torch.Tensor) -> None:
        """Remember what all blocks gave, if they were watched."""
        memory, prefix = ctx.chunk_memory, f"{self.name}.fresh."
        fresh = sorted(key for key in memory if key.startswith(prefix))
        if fresh:
            value_L = torch.stack([memory.pop(key) for key in fresh])
            forecaster = self._history(ctx, value_L.device).forecaster
            forecaster.observe(float(ctx.position), value_L)
            for key, value in forecaster.export_state().items():
                memory[f"{self.name}.{key}"] = value
        super().after_step(ctx, velocity_CTHW)

    def _history(self, ctx: StepContext, device: torch.device | None = None) -> ModuleHistory:
        """What was seen of the chunk's blocks, at this step."""
        memory, prefix = ctx.chunk_memory, f"{self.name}."
        names = [name for name in ("values", "positions", "rates") if prefix + name in memory]
        forecaster = Forecaster(rule=self.rule)
        forecaster.import_state({name: memory[prefix + name].to(device) for name in names})
        return ModuleHistory(forecaster, memory, prefix, float(ctx.position))
