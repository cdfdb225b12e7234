"""Takes chunks of latents through denoising steps, several in one pass of the network.

Shape legend: B = batch (chunks), C = latent channels, T = latent frames of the chunk, H, W = latent
grid, F = latent frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from pipeline.plan import Step
from pipeline.sink_store import HeldSink
from video.audio_tokens import AudioHistory, Heard, join_heard
from video.chunk import LatentChunk
from video.dit import SpeechToVideoDiT
from video.kv_cache import KVCache, LanePlace
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


@dataclass(slots=True, kw_only=True)
class Lane:
    """One step of one session, and what only it sees: its ring of past chunks and its sink.

    `index` is the step's in the plan. `history` is the speech that the step heard last, kept for
    each step because in a pipeline every step is at another chunk.
    """

    step: Step
    index: int
    cache: KVCache
    sink: HeldSink
    history: AudioHistory


@dataclass(frozen=True, slots=True, kw_only=True)
class StepWork:
    """One chunk at one step: a row of a batched pass.

    `heard` is the chunk's speech, `cond_CTHW` the prior's latents (zeros without a prior).
    """

    chunk: LatentChunk
    lane: Lane
    heard: tuple[Heard, ...] | None
    cond_CTHW: torch.Tensor
    seed: int


def pure_noise(seed: int, index: int, start_frame: int, like_CTHW: torch.Tensor) -> LatentChunk:
    """Chunk `index` at sigma 1 in the shape of `like_CTHW`; the same wherever it is made."""
    latents_CTHW = _noise(seed, index, 0, start_frame, like_CTHW)
    return LatentChunk(latents_CTHW=latents_CTHW, index=index, start_frame=start_frame, sigma=1.0)


def denoise(denoiser: Denoiser, works: Sequence[StepWork]) -> list[LatentChunk]:
    """Each chunk after the step it is at; chunks of one size go through the network together.

    Every step reads and writes its own cache alone, so what a chunk becomes does not depend on the
    others but for rounding (products are taken over the whole batch). Latents stay float32 between
    steps whatever the network computes in. Source: Live Avatar, algorithm 4 (timestep forcing);
    StreamDiffusion, the stream batch.

    Raises:
        ValueError: a chunk's noise level is not the one its step starts from.
    """
    for work in works:
        if work.chunk.sigma != work.lane.step.sigma_in:
            raise ValueError(
                f"chunk {work.chunk.index} is at sigma {work.chunk.sigma}, step {work.lane.index} "
                f"starts at {work.lane.step.sigma_in}: run the steps in order"
            )
    made: dict[int, LatentChunk] = {}
    for rows in _by_size(works):
        velocities = _velocities(denoiser, [works[row] for row in rows])
        for row, velocity_CTHW in zip(rows, velocities, strict=True):
            work = works[row]
            made[row] = _advance(work.chunk, velocity_CTHW, work.lane, work.seed)
    return [made[row] for row in range(len(works))]


def _by_size(works: Sequence[StepWork]) -> list[list[int]]:
    """Which works have latents of one size."""
    groups: dict[torch.Size, list[int]] = {}
    for row, work in enumerate(works):
        groups.setdefault(work.chunk.latents_CTHW.shape, []).append(row)
    return list(groups.values())


def _velocities(denoiser: Denoiser, works: Sequence[StepWork]) -> list[torch.Tensor]:
    """The network's opinion on each chunk as a velocity, float32, from one pass."""
    network = denoiser.network
    weight = network.patch_embedding.weight
    xs = [work.chunk.latents_CTHW.to(weight.device) for work in works]
    conds = [work.cond_CTHW.to(weight.device) for work in works]
    sigmas = torch.tensor([[work.lane.step.sigma_in] for work in works], dtype=torch.float64)
    t_BF = (TIME_SCALE * sigmas).float().to(weight.device).expand(-1, xs[0].shape[1])
    places = [
        LanePlace(start_frame=w.chunk.start_frame, cache=w.lane.cache, sink=w.lane.sink.sink)
        for w in works
    ]
    prediction_BCTHW = network.stream_lanes(
        torch.stack(xs).to(weight.dtype),
        t_BF,
        _joined(works),
        places,
        sink_distance=denoiser.sink_distance,
        cond_BCTHW=torch.stack(conds).to(weight.dtype) if network.config.cond_dim else None,
    )
    return [
        velocity_from_prediction(
            denoiser.prediction, prediction_CTHW.float(), x, work.lane.step.sigma_in, cond
        )
        for prediction_CTHW, x, work, cond in zip(prediction_BCTHW, xs, works, conds, strict=True)
    ]


def _joined(works: Sequence[StepWork]) -> tuple[Heard, ...] | None:
    """The speech of all chunks as one batch, None for a network that hears nothing."""
    heard = [work.heard for work in works if work.heard is not None]
    return join_heard(heard) if heard else None


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
