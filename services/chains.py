"""Where a session's stages run: in this process, or as Ray actors."""

import contextlib
import os
from collections.abc import Iterator

from pipeline.chain import Chain
from pipeline.errors import ChainError
from pipeline.model import Model
from pipeline.plan import Plan
from pipeline.recording import Recording
from pipeline.timed_stage import TimedChain
from services.options import ChainKind


def require_chain(kind: ChainKind) -> None:
    """Refuse a chain for which a package is missing, before anything is loaded.

    Raises:
        ChainError: names the package and how to install it.
    """
    if kind == "ray":
        try:
            import pipeline.supervisor  # noqa: F401 - only whether it can be
        except ImportError as error:
            raise ChainError(
                f"--chain ray needs the package {error.name}, which is not installed: "
                "pip install 'viva-voce[ray]', or use --chain local"
            ) from error


@contextlib.contextmanager
def open_chain(
    kind: ChainKind, model: Model, plan: Plan, *, recording: Recording | None = None
) -> Iterator[Chain]:
    """A chain of the plan's stages, closed at the end; what it did is in `recording` then.

    Raises:
        ChainError, ModelError, PlanError: it cannot be set up.
    """
    if kind == "local":
        chain = model.local_chain(plan)
        timed = None if recording is None else TimedChain(chain, _names(plan))
        try:
            yield chain
        finally:
            chain.close()
            if timed is not None and recording is not None:
                timed.record(recording)
        return
    require_chain(kind)
    from pipeline.chain_watch import watchable
    from pipeline.staged_chain import ChainSettings
    from pipeline.supervisor import chain_recipes, open_ray_chain

    pictures = plan.frames_per_chunk * model.codec.frames_per_latent
    settings = ChainSettings(pictures_per_chunk=pictures)
    listeners = () if recording is None else (recording.add,)
    label = f"model {model.name}, plan {plan.name}"
    with (
        open_ray_chain(chain_recipes(str(model.folder), plan), settings) as staged,
        watchable(staged, label=label, pid=os.getpid(), listeners=listeners),
    ):
        yield staged


def _names(plan: Plan) -> Iterator[str]:
    """What the stages are called in figures, the decoder last."""
    yield from (stage.name for stage in plan.stages)
    yield "decode"
