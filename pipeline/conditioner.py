"""Gives each chunk the latents that the network starts from: the prior's, or zeros without one.

The prior hears the speech and is told the session's blinks and glances.

Shape legend: B = batch (1), L = audio layers, C = channels, T = latent or video frames, H, W =
latent grid.
"""

from fractions import Fraction
from typing import cast

import torch

from pipeline.behaviour import behaviour
from pipeline.session_state import SessionState
from video.prior import MotionPrior


class Conditioner:
    """The prior of one session and the sound it remembers."""

    def __init__(
        self,
        prior: MotionPrior | None,
        reference_BCTHW: torch.Tensor,
        *,
        frames_per_latent: int,
        seed: int,
        fps: Fraction,
    ) -> None:
        """Condition on this portrait; nothing was heard before the first chunk."""
        self._prior = prior
        self._reference_BCTHW = reference_BCTHW
        self._frames_per_latent = frames_per_latent
        self._seed, self._fps, self._next_frame = seed, fps, 0
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
        drive_BCT = self._drive(audio_LCT[0]).to(self._past_BCT)[None]
        cond_BCTHW = self._prior(drive_BCT, self._reference_BCTHW, self._past_BCT)
        self._past_BCT = self._prior.next_past(drive_BCT, self._past_BCT)
        return cast(torch.Tensor, cond_BCTHW[0].float())

    def _drive(self, audio_CT: torch.Tensor) -> torch.Tensor:
        """Speech features with the behaviour of their frames below them, if the prior knows it."""
        num_frames = audio_CT.shape[-1]
        first, self._next_frame = self._next_frame, self._next_frame + num_frames
        if self._prior is None or not self._prior.config.behaviour_channels:
            return audio_CT
        tracks_CT = behaviour(self._seed, first, num_frames, self._fps)
        return torch.cat((audio_CT, tracks_CT.to(audio_CT)))

    def export_state(self) -> SessionState:
        """What the face was driven by lately, and the frame that comes next."""
        tensors = {} if self._past_BCT is None else {"past_BCT": self._past_BCT}
        return SessionState(tensors=tensors, numbers={"next_frame": self._next_frame})

    def import_state(self, state: SessionState) -> None:
        """Go on from an export."""
        self._next_frame = state.numbers["next_frame"]
        if self._past_BCT is not None:
            self._past_BCT = state.tensors["past_BCT"].to(self._past_BCT, copy=True)
