"""Asks plug-ins and looks at what they answer, so that a mistake names the one that made it.

Shape legend: C = latent channels, T = latent frames of the chunk, H, W = latent grid of the step.
"""

from collections.abc import Sequence

import torch

from pipeline.plugins.contract import Decision, Plugin, StepContext
from video.block_cache import BlockRunner


class PluginFault(ValueError):
    """A plug-in broke the contract: one line with its name and what it did."""


def deciding_skipper(plugins: Sequence[Plugin], ctx: StepContext) -> Plugin | None:
    """The plug-in that wants to stand in for the network at this step, if one does.

    Raises:
        PluginFault: one that said that it never skips does.
    """
    skipping = [plugin for plugin in plugins if plugin.before_step(ctx) is Decision.SKIP]
    for plugin in skipping:
        if not plugin.skips:
            raise PluginFault(
                f"plug-in {plugin.name} skips step {ctx.leg.index} but says that it skips none: "
                "set its skips"
            )
    return skipping[0] if skipping else None


def runner_of(plugins: Sequence[Plugin], ctx: StepContext) -> BlockRunner | None:
    """What runs the network's blocks at this step, None for the network itself.

    Raises:
        PluginFault: two plug-ins want to.
    """
    offers = [(plugin, plugin.block_runner(ctx)) for plugin in plugins]
    running = [(plugin, runner) for plugin, runner in offers if runner is not None]
    if len(running) > 1:
        names = " and ".join(plugin.name for plugin, _ in running)
        raise PluginFault(f"plug-ins {names} would both run the blocks: keep one of them")
    return running[0][1] if running else None


def told_sigma(plugins: Sequence[Plugin], ctx: StepContext) -> float:
    """The level that the network is told: the step's, unless a plug-in knows a better one.

    Raises:
        PluginFault: it is none.
    """
    for plugin in plugins:
        sigma = plugin.network_sigma(ctx)
        if sigma != ctx.sigma:
            if not 0.0 <= sigma <= 1.0:
                raise PluginFault(
                    f"plug-in {plugin.name} tells the network sigma {sigma}: keep it in [0, 1]"
                )
            return sigma
    return ctx.sigma


def predicted(plugin: Plugin, ctx: StepContext) -> torch.Tensor:
    """The velocity in the network's place.

    Raises:
        PluginFault: it is of another shape than the latents.
    """
    return _like_latents(plugin, ctx, plugin.predict(ctx))


def transformed(
    plugins: Sequence[Plugin], ctx: StepContext, velocity_CTHW: torch.Tensor
) -> torch.Tensor:
    """The velocity to go on with, after all plug-ins in their order.

    Raises:
        PluginFault: one changes its shape, or has remembered something under another name.
    """
    for plugin in plugins:
        velocity_CTHW = _like_latents(plugin, ctx, plugin.transform_velocity(ctx, velocity_CTHW))
    _require_own_names(plugins, ctx)
    return velocity_CTHW


def _like_latents(plugin: Plugin, ctx: StepContext, made_CTHW: torch.Tensor) -> torch.Tensor:
    if made_CTHW.shape != ctx.latents_CTHW.shape:
        raise PluginFault(
            f"plug-in {plugin.name} made a velocity of {tuple(made_CTHW.shape)} for latents of "
            f"{tuple(ctx.latents_CTHW.shape)}: give it their shape"
        )
    return made_CTHW


def _require_own_names(plugins: Sequence[Plugin], ctx: StepContext) -> None:
    """Refuse entries of memories that would belong to nobody, or to another plug-in."""
    names = {plugin.name for plugin in plugins}
    for memory in (ctx.chunk_memory, ctx.lane_memory):
        for key in memory:
            if key.partition(".")[0] not in names:
                raise PluginFault(
                    f"a plug-in of {', '.join(sorted(names))} remembers {key!r}: begin its entries "
                    "with its name and a dot"
                )
