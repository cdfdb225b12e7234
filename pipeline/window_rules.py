"""Which windows suit a network and which plug-ins suit windows."""

from collections.abc import Iterator

from pipeline.errors import PlanError
from pipeline.plan import Plan
from pipeline.plugins.contract import PlainPlugin
from pipeline.sampler import Denoiser
from pipeline.window_spec import WindowSpec
from video.dit_config import DiTConfig


def require_windows(denoiser: Denoiser, plan: Plan) -> WindowSpec:
    """The plan's windows, which this network and these plug-ins can do.

    Raises:
        PlanError: they cannot; says why and what to do.
    """
    windows = plan.windows
    if windows is None:
        raise PlanError(f"plan {plan.name} has no windows: give it a windows section")
    for complaint in (
        *_of_network(denoiser.network.config, plan, windows),
        *_of_plugins(denoiser, plan, windows),
    ):
        raise PlanError(f"plan {plan.name}: windows: {complaint}")
    return windows


def _of_network(config: DiTConfig, plan: Plan, windows: WindowSpec) -> Iterator[str]:
    """A causal network sees whole chunks, and as far back as it was trained to."""
    if windows.bidirectional:
        return
    per_chunk = config.frames_per_chunk
    sizes = {
        "length": windows.length,
        "stride": windows.stride(len(plan.steps)),
        "shift": windows.shift,
    }
    for name, size in sizes.items():
        if size % per_chunk:
            yield (
                f"{name} {size} is no whole number of the network's chunks of {per_chunk} frames: "
                f"use multiples of {per_chunk}"
            )
    if plan.window_frames != config.window_frames:
        yield (
            f"window_frames {plan.window_frames} is not how far back the network looks inside a "
            f"window, {config.window_frames}: set it to {config.window_frames}"
        )


def _of_plugins(denoiser: Denoiser, plan: Plan, windows: WindowSpec) -> Iterator[str]:
    """All windows take the same steps, or neighbours that are blended would be out of phase."""
    for plugin in denoiser.plugins:
        if getattr(type(plugin), "block_runner", None) is not PlainPlugin.block_runner:
            yield (
                f"plug-in {plugin.name} runs the network's blocks in part, chunk by chunk, but a "
                "window is seen at once: leave one of them out"
            )
        if not plugin.skips:
            continue
        if windows.blend in ("shifted", "rolling"):
            yield (
                f"plug-in {plugin.name} remembers what a window gave at earlier steps, but windows "
                f"of blend {windows.blend} are others at each step: use exact or causal"
            )
        elif None in plugin.marks(plan.legs(0)):
            yield (
                f"plug-in {plugin.name} decides for each window apart, which would blend windows "
                "that took other steps: use forecast, whose steps the plan fixes"
            )
