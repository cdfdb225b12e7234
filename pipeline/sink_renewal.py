"""Gives the chunks of one session their new references: which latent comes back, and who shows it.

The decode stage sends the first latent of a chunk that says so along with its pictures; a later
chunk brings it to every step as its reference. Both are fixed by the plan, so that no picture
depends on when anything came out of the chain.

Shape legend: B = batch (1), C = channels, T = frames (1), H, W = latent grid.
"""

from collections.abc import Iterable
from dataclasses import replace

import torch

from pipeline.plan import Plan
from pipeline.session_state import SessionState
from pipeline.stage import ChunkWork
from video.chunk import VideoChunk


class SinkRenewal:
    """What a session knows of its coming references; a few latents at most."""

    def __init__(self, plan: Plan, *, pictures_per_chunk: int) -> None:
        """Follow a plan's `sink_refresh`; without one nothing ever changes."""
        self._rule, self._num_steps = plan.sink_refresh, len(plan.steps)
        self._pictures_per_chunk = pictures_per_chunk
        self._came: dict[int, torch.Tensor] = {}

    def must_wait(self, chunk: int) -> bool:
        """Whether a chunk shows a latent that has not come out of the chain yet."""
        source = self._source(chunk)
        return source is not None and source not in self._came

    def steered(self, work: ChunkWork) -> ChunkWork:
        """The chunk with the reference that it brings, and whether its own latent comes back."""
        if self._rule is None:
            return work
        index = work.latent.index
        source = self._source(index)
        reference = None if source is None else self._came.pop(source)
        is_source = self._rule.is_source(index)
        return replace(work, reference_BCTHW=reference, returns_reference=is_source)

    def taken(self, pictures: Iterable[VideoChunk]) -> list[VideoChunk]:
        """The pictures, less the latents that came with them."""
        kept = list(pictures)
        for video in kept:
            if video.reference_BCTHW is not None:
                self._came[video.pts // self._pictures_per_chunk] = video.reference_BCTHW
        return [replace(video, reference_BCTHW=None) for video in kept]

    def _source(self, chunk: int) -> int | None:
        return None if self._rule is None else self._rule.source_of(chunk, self._num_steps)

    def export_state(self) -> SessionState:
        """The latents that wait for their chunk."""
        return SessionState(tensors={str(chunk): latent for chunk, latent in self._came.items()})

    def import_state(self, state: SessionState) -> None:
        """Go on from an export."""
        self._came = {int(chunk): latent for chunk, latent in state.tensors.items()}
