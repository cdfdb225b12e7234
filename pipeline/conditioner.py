"""Gives each chunk the latents that the network starts from: the prior's, or zeros without one.

Shape legend: B = batch (1), L = audio layers, C = channels, T = latent or video frames, H, W =
latent grid.
"""

from typing import cast

import torch

from pipeline.session_state import SessionState
from video.prior import MotionPrior


class Conditioner:
    """The prior of one session and the sound it remembers."""

    def __init__(
        self, prior: MotionPrior | None, reference_BCTHW: torch.Tensor, *, frames_per_latent: int
    ) -> None:
        """Condition on this portrait; nothing was heard before the first chunk."""
        self._prior = prior
        self._reference_BCTHW = reference_BCTHW
        self._frames_per_latent = frames_per_latent
        self._past_BCT = None
        if prior is not None:
            self._reference_BCTHW = reference_BCTHW.to(next(prior.parameters()))
            self._past_BCT = prior.initial_past(1, self._reference_BCTHW)

    @torch.inference_mode()
    def push(self, audio_LCT: torch.Tensor) -> torch.Tensor:
        """The next chunk's cond_CTHW, float32, from its window of speech features."""
        if self._prior is None or self._past_BCT is None:
            _, channels, _, height, width = self._reference_BCTHW.shape
            num_frames = audio_LCT.shape[-1] // self._frames_per_latent
            return torch.zeros(channels, num_frames, height, width)
        audio_BCT = audio_LCT[:1].to(self._past_BCT)
        cond_BCTHW = self._prior(audio_BCT, self._reference_BCTHW, self._past_BCT)
        self._past_BCT = self._prior.next_past(audio_BCT, self._past_BCT)
        return cast(torch.Tensor, cond_BCTHW[0].float())

    def export_state(self) -> SessionState:
        """The sound remembered."""
        return SessionState(tensors={} if self._past_BCT is None else {"past_BCT": self._past_BCT})

    def import_state(self, state: SessionState) -> None:
        """Go on from an export."""
        if self._past_BCT is not None:
            self._past_BCT = state.tensors["past_BCT"].to(self._past_BCT, copy=True)
