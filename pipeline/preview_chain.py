"""A chain that ends after some step and shows small pictures of what would come of it."""

from dataclasses import replace

from pipeline.chain import LocalChain
from pipeline.cuts import cut_at
from pipeline.decode_stage import DecodeStage
from pipeline.denoise_stage import DenoiseStage
from pipeline.model import Model
from pipeline.plan import Plan, PluginSpec
from pipeline.plugins.preview import estimate_in
from pipeline.stage import ChunkWork
from video.chunk import VideoChunk
from video.dit_config import DiTConfig
from video.preview import preview_of


class PreviewStage(DecodeStage):
    """Shows the estimate that a chunk brings along, whatever is left to be done with it."""

    def process(self, work: ChunkWork) -> VideoChunk:
        """The chunk's pictures, as many as the codec makes.

        Raises:
            ModelError: the model computed NaN or infinity.
            ValueError: the chunk brings no estimate.
        """
        latent = replace(work.latent, latents_CTHW=estimate_in(work.carried))
        return super().process(replace(work, latent=latent))


def as_stream(plan: Plan, config: DiTConfig) -> Plan:
    """A plan of windows as one of chunks in a row, any other plan itself.

    A preview cannot wait for windows; what it shows of such a plan is near, not the same.
    """
    if plan.windows is None:
        return plan
    return replace(
        plan,
        windows=None,
        frames_per_chunk=config.frames_per_chunk,
        window_frames=config.window_frames,
    )


def preview_plan(plan: Plan, step: int) -> Plan:
    """The plan, one stage of which ends after `step`, with estimates kept up to there."""
    kept = tuple(spec for spec in plan.plugins if spec.name != "preview")
    spec = PluginSpec(name="preview", options={"step": step})
    last = step + 1 == len(plan.steps)
    return replace(cut_at(plan, [] if last else [step + 1]), plugins=(*kept, spec))


def preview_chain(model: Model, plan: Plan, step: int) -> LocalChain:
    """A chain of the plan's steps up to `step` with a preview in the decoder's place.

    The steps are run as in the whole plan, so what is shown is exactly what they estimate.

    Raises:
        PlanError: the plan has no such step, or cannot be shown so.
    """
    cut = preview_plan(plan, step)
    stage = DenoiseStage(model.denoiser(cut), cut, 0)
    return LocalChain([stage], PreviewStage(preview_of(model.codec)))
