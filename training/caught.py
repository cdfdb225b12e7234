"""Chunks as a model's chain would get them, kept instead of being made into pictures.

Shape legend: B = batch (1), N = chunks, C = latent channels, T = latent frames, H, W = grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from audio.chunk import AudioChunk
from audio.source import FileSource
from pipeline.denoise_stage import DenoiseStage
from pipeline.generator import AvatarGenerator
from pipeline.model import Model
from pipeline.plan import Plan
from pipeline.session_state import SessionState
from pipeline.stage import ChunkWork, SessionInputs
from video.chunk import VideoChunk
from video.reference import load_portrait


@dataclass(slots=True)
class CaughtClip:
    """A session's inputs and its chunks, as noise with speech and the prior's latents.

    It stands in for a chain that shows nothing.
    """

    inputs: SessionInputs | None = None
    works: list[ChunkWork] = field(default_factory=list)

    def prepare(self, inputs: SessionInputs) -> None:
        """Keep the session's inputs."""
        self.inputs = inputs

    def submit(self, work: ChunkWork) -> list[VideoChunk]:
        """Keep the chunk."""
        self.works.append(work)
        return []

    def collect(self, session: str) -> list[VideoChunk]:
        """Nothing is under way."""
        del session
        return []

    def drain(self, session: str) -> list[VideoChunk]:
        """Nothing is under way."""
        del session
        return []

    def reset(self, session: str) -> None:
        """Keep what was caught."""

    def export_state(self, session: str) -> SessionState:
        """Nothing goes on elsewhere."""
        del session
        return SessionState()

    def import_state(self, session: str, state: SessionState) -> None:
        """Nothing comes from elsewhere."""

    def close(self) -> None:
        """Keep what was caught."""


@torch.inference_mode()
def catch_clip(
    model: Model, plan: Plan, portrait: Path, sound: AudioChunk, *, seed: int, num_chunks: int
) -> CaughtClip:
    """The first chunks of a portrait that says this sound; each seed is a session of its own."""
    width, height = model.config.native_size
    image_BCHW = load_portrait(portrait, size=(width, height)).image_CHW[None]
    clip = CaughtClip()
    generator = AvatarGenerator(
        model, plan, image_BCHW, sample_rate=sound.sample_rate, seed=seed, chain=clip,
        session=f"clip{seed}",
    )  # fmt: skip
    list(generator.push(sound))
    del clip.works[num_chunks:]
    return clip


def sound_between(path: Path, first_s: float, last_s: float) -> AudioChunk:
    """A part of a sound file, its time beginning at 0."""
    source = FileSource(path)
    samples_T = np.concatenate([chunk.samples_T for chunk in source.chunks()])
    rate = source.sample_rate
    part_T = samples_T[round(first_s * rate) : round(last_s * rate)]
    return AudioChunk(samples_T=part_T, sample_rate=rate, pts=0)


@torch.inference_mode()
def clean_latents(model: Model, plan: Plan, clips: Sequence[CaughtClip]) -> torch.Tensor:
    """What a plan makes of clips of equal length, [N, C, T, H, W], all clips in one pass."""
    stages = [DenoiseStage(model.denoiser(plan), plan, k) for k in range(len(plan.stages))]
    for clip in clips:
        for stage in stages:
            if clip.inputs is not None:
                stage.prepare(clip.inputs)
    made = []
    for works in zip(*(clip.works for clip in clips), strict=True):
        going = list(works)
        for stage in stages:
            while not all(stage.is_through(work) for work in going):
                going = stage.advance(going)
        made += [work.latent.latents_CTHW for work in going]
    return torch.stack(made)
