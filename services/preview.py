"""`viva render --preview`: small pictures of what a step makes of the chunks, without the rest."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from pipeline.chain import Chain
from pipeline.model import Model
from pipeline.preview_chain import preview_chain
from pipeline.recording import Recording
from pipeline.timed_stage import TimedChain
from services.chains import ChainTask
from services.options import OptionError, RenderRequest
from video.chunk import VideoChunk
from video.framing import Framing
from video.preview import preview_size


@dataclass(frozen=True, slots=True)
class SmallFraming:
    """A face's framing whose pictures are previews: the model starts from the same portrait."""

    whole: Framing

    @property
    def face_BCHW(self) -> torch.Tensor:  # noqa: N802  # BCHW is the shape suffix
        """The portrait in [-1, 1] at the size of the whole pictures."""
        return self.whole.face_BCHW

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of previews."""
        return preview_size(self.face_BCHW.shape[-1], self.face_BCHW.shape[-2])

    @property
    def still_border(self) -> bool:
        """Previews are not laid into anything."""
        return False

    def compose(self, chunk: VideoChunk) -> VideoChunk:
        """The chunk itself."""
        return chunk


def require_previewable(request: RenderRequest) -> None:
    """Refuse what a preview does not do.

    Raises:
        OptionError: the request is for other processes, or for the whole picture.
    """
    if request.chain.kind != "local" or request.chain.stages is not None:
        raise OptionError(
            "--preview runs in this process in one stage: leave --chain, --stages out"
        )
    if request.frame == "portrait":
        raise OptionError("--preview shows the face alone: leave --frame portrait out")


@contextlib.contextmanager
def open_preview(
    task: ChainTask, load: Callable[..., Model], step: int, recording: Recording | None
) -> Iterator[tuple[Model, Chain]]:
    """The model and a chain that ends after `step`; what it did is in `recording` at the end.

    Raises:
        ModelError, OptionError, PlanError: it cannot be set up.
    """
    if step >= len(task.plan.steps):
        last = len(task.plan.steps) - 1
        raise OptionError(f"--preview {step}: plan {task.plan.name} has steps 0 to {last}")
    model = load()
    chain = preview_chain(model, task.plan, step)
    timed = None if recording is None else TimedChain(chain, ("denoise", "preview"))
    try:
        yield model, chain
    finally:
        chain.close()
        if timed is not None and recording is not None:
            timed.record(recording)
