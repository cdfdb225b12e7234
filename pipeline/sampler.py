"""Runs one chunk of latents through its denoising steps.

Shape legend: B = batch (1), C = latent channels, T = latent frames of the chunk, H, W = latent
grid, F = latent frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from pipeline.plan import Step
from video.audio_tokens import Heard
from video.chunk import LatentChunk
from video.dit import SpeechToVideoDiT
from video.kv_cache import KVCache, Sink
from video.noise import (
    TIME_SCALE,
    PredictionKind,
    clean_estimate,
    counter_noise,
    euler_step,
    renoise_step,
    velocity_from_prediction,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Denoiser:
    """The network and how to use it: the same for every session, chunk and step.

    `sink_distance` is the plan's; `prediction` says what the network's output means.
    """

    network: SpeechToVideoDiT
    prediction: PredictionKind
    sink_distance: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """One step of one session: the step, its index in the plan, and the cache only it sees."""

    step: Step
    index: int
    cache: KVCache


def pure_noise(seed: int, index: int, start_frame: int, like_CTHW: torch.Tensor) -> LatentChunk:
    """Chunk `index` at sigma 1 in the shape of `like_CTHW`; the same wherever it is made."""
    latents_CTHW = _noise(seed, index, 0, start_frame, like_CTHW)
    return LatentChunk(latents_CTHW=latents_CTHW, index=index, start_frame=start_frame, sigma=1.0)


def denoise_chunk(
    denoiser: Denoiser,
    chunk: LatentChunk,
    *,
    heard: tuple[Heard, ...] | None,
    cond_CTHW: torch.Tensor,
    lanes: Sequence[Lane],
    sink: Sink,
    seed: int,
) -> LatentChunk:
    """The chunk after the lanes' steps; each step reads and writes its own cache alone.

    `heard` is the chunk's speech, `cond_CTHW` the prior's latents (zeros without a prior).
    Latents stay float32 between steps whatever the network computes in.
    Source: Live Avatar, algorithm 4 (timestep forcing).

    Raises:
        ValueError: the chunk's noise level is not the one the first step starts from.
    """
    for lane in lanes:
        if chunk.sigma != lane.step.sigma_in:
            raise ValueError(
                f"chunk {chunk.index} is at sigma {chunk.sigma}, step {lane.index} starts at "
                f"{lane.step.sigma_in}: run the steps in order"
            )
        velocity_CTHW = _velocity(denoiser, chunk, heard, cond_CTHW, lane, sink)
        chunk = _advance(chunk, velocity_CTHW, lane, seed)
    return chunk


def _velocity(
    denoiser: Denoiser,
    chunk: LatentChunk,
    heard: tuple[Heard, ...] | None,
    cond_CTHW: torch.Tensor,
    lane: Lane,
    sink: Sink,
) -> torch.Tensor:
    """The network's opinion at the lane's step as a velocity, float32."""
    network, sigma = denoiser.network, lane.step.sigma_in
    weight = network.patch_embedding.weight
    x_CTHW, cond_CTHW = chunk.latents_CTHW.to(weight.device), cond_CTHW.to(weight.device)
    t_BF = torch.full((1, x_CTHW.shape[1]), TIME_SCALE * sigma, device=weight.device)
    prediction_BCTHW = network.stream(
        x_CTHW[None].to(weight.dtype),
        t_BF,
        heard,
        start_frame=chunk.start_frame,
        cache=lane.cache,
        sink=sink,
        sink_distance=denoiser.sink_distance,
        cond_BCTHW=cond_CTHW[None].to(weight.dtype) if network.config.cond_dim else None,
    )
    return velocity_from_prediction(
        denoiser.prediction, prediction_BCTHW[0].float(), x_CTHW, sigma, cond_CTHW
    )


def _advance(chunk: LatentChunk, velocity_CTHW: torch.Tensor, lane: Lane, seed: int) -> LatentChunk:
    """The chunk at the noise level on which the lane's step ends."""
    step, latents_CTHW = lane.step, chunk.latents_CTHW.to(velocity_CTHW)
    if step.rule == "euler":
        latents_CTHW = euler_step(latents_CTHW, velocity_CTHW, step.sigma_in, step.sigma_out)
    else:
        clean_CTHW = clean_estimate(latents_CTHW, velocity_CTHW, step.sigma_in)
        # Step 0 drew the initial noise, so the noise that follows step k is number k + 1.
        noise_CTHW = _noise(seed, chunk.index, lane.index + 1, chunk.start_frame, clean_CTHW)
        latents_CTHW = renoise_step(clean_CTHW, noise_CTHW, step.sigma_out)
    return replace(chunk, latents_CTHW=latents_CTHW, sigma=step.sigma_out)


def _noise(
    seed: int, index: int, draw: int, start_frame: int, like_CTHW: torch.Tensor
) -> torch.Tensor:
    """Noise number `draw` of a chunk, float32, in the shape and on the device of another."""
    channels, frames, height, width = like_CTHW.shape
    shape_CTHW = (channels, frames, height, width)
    return counter_noise(seed, index, draw, shape_CTHW, start_frame, device=like_CTHW.device)
