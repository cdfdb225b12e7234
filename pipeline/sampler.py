"""Takes chunks of latents through denoising steps, several in one pass of the network.

Shape legend: B = batch (chunks), C = latent channels, T = latent frames of the chunk, H, W = latent
grid, F = latent frames.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch

from pipeline.adapters import AdaptedNetwork
from pipeline.guidance import guided, is_guided, num_branches, silent_branch
from pipeline.plugins.contract import Memory, Plugin, StepContext
from pipeline.plugins.referee import (
    deciding_skipper,
    predicted,
    runner_of,
    told_sigma,
    transformed,
)
from pipeline.route import Leg
from pipeline.sink_rules import SinkDistance, distance_at
from pipeline.sink_store import HeldSink
from pipeline.window_view import WindowView, stride_noise
from video.audio_tokens import AudioHistory, Heard, join_heard
from video.block_cache import BlockRunner
from video.chunk import LatentChunk
from video.dit import SpeechToVideoDiT
from video.hinge import carried_over, resized
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

    `sink_distance` is the plan's; `prediction` says what the network's output means; `plugins` are
    the plan's, in its order. `adapters` are those of its steps. `silence_LC` is what speech is like
    where nobody speaks, for guided steps; None stands for zeros.
    """

    network: SpeechToVideoDiT
    prediction: PredictionKind
    sink_distance: SinkDistance
    plugins: tuple[Plugin, ...] = ()
    adapters: AdaptedNetwork | None = None
    silence_LC: torch.Tensor | None = None

    @contextmanager
    def wearing(self, adapter: str | None) -> Iterator["Denoiser"]:
        """The same with its network as that one adapter makes it, None the bare one."""
        if self.adapters is None or adapter is None:
            yield self
            return
        with self.adapters.wearing(adapter) as network:
            yield replace(self, network=network)


@dataclass(slots=True, kw_only=True)
class Lane:
    """One step of one session, and what only it sees: its ring of past chunks and its sink.

    `index` is the step's in the plan. `history` is the speech that the step heard last, kept for
    each step because in a pipeline every step is at another chunk. `memory` is the plug-ins'.
    `silent` is the ring of a guided step's other branch, in which nobody speaks.
    """

    index: int
    cache: KVCache
    sink: HeldSink
    history: AudioHistory
    memory: Memory = field(default_factory=dict)
    silent: KVCache | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepWork:
    """One chunk at one step: a row of a batched pass.

    `legs` is the chunk's way through the plan and `leg` where it is on it. `audio_LCT` is the
    chunk's speech, `heard` how the layers hear it, `cond_CTHW` the prior's latents at the step's
    resolution (zeros without a prior); `memory` what plug-ins remember of the chunk, which this
    step may change. With `window` the chunk is a window, seen at once: there is no ring then and
    `heard` is of no use.
    """

    session: str
    chunk: LatentChunk
    legs: Sequence[Leg]
    leg: Leg
    lane: Lane
    audio_LCT: torch.Tensor
    heard: tuple[Heard, ...] | None
    cond_CTHW: torch.Tensor
    seed: int
    memory: Memory = field(default_factory=dict)
    window: WindowView | None = None
    slack_s: float | None = None

    def context(self) -> StepContext:
        """What plug-ins may know of it."""
        return StepContext(
            session=self.session,
            chunk=self.chunk.index,
            seed=self.seed,
            legs=self.legs,
            leg=self.leg,
            latents_CTHW=self.chunk.latents_CTHW,
            cond_CTHW=self.cond_CTHW,
            ring_frames=self.lane.cache.index.num_filled,
            chunk_memory=self.memory,
            lane_memory=self.lane.memory,
            ring_is_full=self.lane.cache.index.is_full,
            slack_s=self.slack_s,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StepMade:
    """A chunk after a step, how often the network ran for it, and whether it should have."""

    chunk: LatentChunk
    evaluations: int
    is_degraded: bool = False


def pure_noise(seed: int, index: int, start_frame: int, like_CTHW: torch.Tensor) -> LatentChunk:
    """Chunk `index` at sigma 1 in the shape of `like_CTHW`; the same wherever it is made."""
    latents_CTHW = _noise(seed, index, 0, start_frame, like_CTHW)
    return LatentChunk(latents_CTHW=latents_CTHW, index=index, start_frame=start_frame, sigma=1.0)


def denoise(denoiser: Denoiser, works: Sequence[StepWork]) -> list[StepMade]:
    """Each chunk after the step it is at; chunks of one size go through the network together.

    Every step reads and writes its own cache alone, so what a chunk becomes does not depend on the
    others but for rounding (products are taken over the whole batch). Where a plug-in says so, a
    prediction takes the network's place. Latents stay float32 between steps whatever the network
    computes in. Source: Live Avatar, algorithm 4 (timestep forcing); StreamDiffusion, the stream
    batch.

    Raises:
        ValueError: a chunk's noise level is not the one its step starts from.
    """
    for work in works:
        if work.chunk.sigma != work.leg.step.sigma_in:
            raise ValueError(
                f"chunk {work.chunk.index} is at sigma {work.chunk.sigma}, step {work.leg.index} "
                f"starts at {work.leg.step.sigma_in}: run the steps in order"
            )
    contexts = [work.context() for work in works]
    skippers = [deciding_skipper(denoiser.plugins, ctx) for ctx in contexts]
    velocities: dict[int, torch.Tensor] = {}
    full = [row for row, skipper in enumerate(skippers) if skipper is None]
    runners = {row: runner_of(denoiser.plugins, contexts[row]) for row in full}
    for rows in _alike(works, runners):
        with denoiser.wearing(works[rows[0]].leg.step.adapter) as worn:
            ran = _guided_velocities(
                worn, [works[r] for r in rows], [contexts[r] for r in rows], runners[rows[0]]
            )
        velocities |= dict(zip(rows, ran, strict=True))
    for row, skipper in enumerate(skippers):
        if skipper is not None:
            velocities[row] = predicted(skipper, contexts[row])
            continue
        for plugin in denoiser.plugins:
            plugin.after_step(contexts[row], velocities[row])
    made = []
    for row, (work, ctx) in enumerate(zip(works, contexts, strict=True)):
        velocity_CTHW = transformed(denoiser.plugins, ctx, velocities[row])
        chunk, skipper = advanced(work, velocity_CTHW), skippers[row]
        is_degraded = skipper is not None and skipper.degrades
        evaluations = num_branches(work.leg.step) if skipper is None else 0
        made.append(StepMade(chunk=chunk, evaluations=evaluations, is_degraded=is_degraded))
    return made


def _alike(works: Sequence[StepWork], runners: Mapping[int, BlockRunner | None]) -> list[list[int]]:
    """Which of these works can share a pass: latents of one size, one adapter, guided or not.

    Those whose blocks are run in another way go alone.
    """
    groups: dict[tuple[torch.Size, str | None, bool, int | None], list[int]] = {}
    for row, runner in runners.items():
        work = works[row]
        alone = None if runner is None else row
        step = work.leg.step
        key = (work.chunk.latents_CTHW.shape, step.adapter, is_guided(step), alone)
        groups.setdefault(key, []).append(row)
    return list(groups.values())


def _guided_velocities(
    denoiser: Denoiser,
    works: Sequence[StepWork],
    contexts: Sequence[StepContext],
    runner: BlockRunner | None,
) -> list[torch.Tensor]:
    """The velocity of each chunk; of guided ones from two passes. All are guided, or none."""
    heard = _velocities(denoiser, works, contexts, runner)
    if not is_guided(works[0].leg.step):
        return heard
    silent = _velocities(denoiser, [silent_branch(denoiser, w) for w in works], contexts, None)
    weights = [work.leg.step.guidance for work in works]
    return [guided(*branches) for branches in zip(silent, heard, weights, strict=True)]


def _velocities(
    denoiser: Denoiser,
    works: Sequence[StepWork],
    contexts: Sequence[StepContext],
    runner: BlockRunner | None,
) -> list[torch.Tensor]:
    """The network's opinion on each chunk as a velocity, float32, from one pass."""
    network = denoiser.network
    weight = network.patch_embedding.weight
    xs = [work.chunk.latents_CTHW.to(weight.device) for work in works]
    conds = [work.cond_CTHW.to(weight.device) for work in works]
    told = [[told_sigma(denoiser.plugins, ctx)] for ctx in contexts]
    sigmas = torch.tensor(told, dtype=torch.float64)
    t_BF = (TIME_SCALE * sigmas).float().to(weight.device).expand(-1, xs[0].shape[1])
    prediction_BCTHW = _ask(
        denoiser,
        works,
        torch.stack(xs).to(weight.dtype),
        t_BF,
        torch.stack(conds).to(weight.dtype) if network.config.cond_dim else None,
        runner,
    )
    return [
        velocity_from_prediction(
            denoiser.prediction, prediction_CTHW.float(), x, work.leg.step.sigma_in, cond
        )
        for prediction_CTHW, x, work, cond in zip(prediction_BCTHW, xs, works, conds, strict=True)
    ]


def _ask(
    denoiser: Denoiser,
    works: Sequence[StepWork],
    x_BCTHW: torch.Tensor,
    t_BF: torch.Tensor,
    cond_BCTHW: torch.Tensor | None,
    runner: BlockRunner | None,
) -> torch.Tensor:
    """What the network says: of chunks as lanes of one pass, of a window as a clip of its own."""
    network = denoiser.network
    distances = [
        distance_at(denoiser.sink_distance, w.seed, w.chunk.index, w.leg.index) for w in works
    ]
    view = works[0].window
    if view is not None:
        return view.ask(
            network,
            x_BCTHW,
            t_BF,
            start_frame=works[0].chunk.start_frame,
            sink_distance=distances[0],
            cond_BCTHW=cond_BCTHW,
        )
    places = [
        LanePlace(start_frame=w.chunk.start_frame, cache=w.lane.cache, sink=w.lane.sink.sink)
        for w in works
    ]
    return network.stream_lanes(
        x_BCTHW,
        t_BF,
        _joined(works),
        places,
        sink_distance=distances,
        cond_BCTHW=cond_BCTHW,
        runner=runner,
    )


def _joined(works: Sequence[StepWork]) -> tuple[Heard, ...] | None:
    """The speech of all chunks as one batch, None for a network that hears nothing."""
    heard = [work.heard for work in works if work.heard is not None]
    return join_heard(heard) if heard else None


def advanced(work: StepWork, velocity_CTHW: torch.Tensor) -> LatentChunk:
    """The chunk at the level and resolution of the step that follows on its way."""
    step, latents_CTHW = work.leg.step, work.chunk.latents_CTHW.to(velocity_CTHW)
    ratio = work.leg.to_resolution / step.resolution
    if step.rule == "euler":
        latents_CTHW = euler_step(latents_CTHW, velocity_CTHW, step.sigma_in, step.sigma_out)
        if work.leg.is_hinge:
            noise_CTHW = _fresh_noise(work, resized(latents_CTHW, ratio))
            latents_CTHW = carried_over(latents_CTHW, step.sigma_out, ratio, noise_CTHW)
    else:
        clean_CTHW = resized(clean_estimate(latents_CTHW, velocity_CTHW, step.sigma_in), ratio)
        latents_CTHW = renoise_step(clean_CTHW, _fresh_noise(work, clean_CTHW), step.sigma_out)
    return replace(
        work.chunk,
        latents_CTHW=latents_CTHW,
        sigma=work.leg.to_sigma,
        step=work.leg.next_index,
    )


def _fresh_noise(work: StepWork, like_CTHW: torch.Tensor) -> torch.Tensor:
    """The noise that follows a step; step 0 drew the first, so that after step k is k + 1."""
    draw, start_frame = work.leg.index + 1, work.chunk.start_frame
    if work.window is not None:
        return stride_noise(work.seed, work.window.stride, draw, start_frame, like_CTHW)
    return _noise(work.seed, work.chunk.index, draw, start_frame, like_CTHW)


def _noise(
    seed: int, index: int, draw: int, start_frame: int, like_CTHW: torch.Tensor
) -> torch.Tensor:
    """Noise number `draw` of a chunk, float32, in the shape and on the device of another."""
    channels, frames, height, width = like_CTHW.shape
    shape_CTHW = (channels, frames, height, width)
    return counter_noise(seed, index, draw, shape_CTHW, start_frame, device=like_CTHW.device)
