"""Which kind of stage takes a run of a plan's steps."""

from pipeline.denoise_stage import DenoiseStage
from pipeline.plan import Plan
from pipeline.rolling_stage import RollingStage
from pipeline.sampler import Denoiser
from pipeline.sink_store import SinkStore
from pipeline.step_cost import BatchProfile
from pipeline.window_stage import WindowStage

Denoising = DenoiseStage | WindowStage


def denoising_stage(
    denoiser: Denoiser,
    plan: Plan,
    index: int,
    *,
    sinks: SinkStore | None = None,
    batch: BatchProfile | None = None,
) -> Denoising:
    """Stage `index` of a plan: with its windows, or chunk by chunk with rings.

    Windows of several sessions do not go through the network together, whatever `batch` says.

    Raises:
        PlanError: the plan's windows do not suit the network.
    """
    if plan.windows is not None:
        kind = RollingStage if plan.windows.blend == "rolling" else WindowStage
        return kind(denoiser, plan, index, sinks=sinks)
    return DenoiseStage(denoiser, plan, index, sinks=sinks, batch=batch)
