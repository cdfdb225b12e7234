"""At which noise level motion is settled: finished clips noised again, and finished another way.

A clip is taken back to a level sigma and finished with other noise, the speech and the prior's
latents as they were. What the new clip shares with the first was settled above sigma. `t_mid` is
the largest level from which motion still comes out the same; there AlignHuman's adapters change.

Source: AlignHuman's segments; the procedure is ours (docs/methods.md).

Shape legend: B = batch (1), L = audio layers, C = channels, T = frames, H, W = rows and columns.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from audio.align import num_frames
from audio.chunk import AudioChunk
from pipeline.decode_stage import DecodeStage
from pipeline.denoise_stage import DenoiseStage
from pipeline.errors import PlanError
from pipeline.model import Model
from pipeline.plan import Plan, StageSpec, Step
from pipeline.sampler import pure_noise
from pipeline.speech import SpeechWindows
from pipeline.stage import ChunkWork, SessionInputs
from video.chunk import LatentChunk
from video.head_pose import POSE_CHANNELS
from video.likeness import Frames, correlation, detail_likeness, motion_likeness
from video.motion_codec import MotionCodec
from video.noise import renoise_step

MOTION_KEPT = 0.9
"""A correlation from which on motion counts as the same."""

_OTHER_NOISE = 1 << 40


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelLikeness:
    """How alike clips are that were finished twice from `sigma`, as correlations.

    `flow` of the optical flow, `detail` of what is fine and changes. `motion` is what decides: the
    head's way over time where latents say it, else the flow, which small movements in soft pictures
    make noisy. `face` is all else in latents that are motion.
    """

    sigma: float
    motion: float
    flow: float
    detail: float
    face: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The curve over levels, rising, and the level at which motion is settled; None: nowhere."""

    levels: tuple[LevelLikeness, ...]
    t_mid: float | None
    num_clips: int

    def as_record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A finished clip: its chunks with what they were made of, and its pictures."""

    inputs: SessionInputs
    works: tuple[ChunkWork, ...]
    frames_THWC: Frames

    def latents(self) -> torch.Tensor:
        """All latents in a row, `[C, T, H, W]`."""
        return torch.cat([work.latent.latents_CTHW for work in self.works], dim=1)


def settled_level(levels: Sequence[LevelLikeness]) -> float | None:
    """The largest level at which motion still comes out the same."""
    kept = [level.sigma for level in levels if level.motion >= MOTION_KEPT]
    return max(kept, default=None)


def level_grid(num_levels: int) -> tuple[float, ...]:
    """So many levels, evenly spaced, the last pure noise."""
    return tuple(round((index + 1) / num_levels, 6) for index in range(num_levels))


def mean_likeness(measured: Sequence[LevelLikeness]) -> LevelLikeness:
    """The mean of several clips at one level."""
    rows = [asdict(each) for each in measured]
    means = {
        name: None if rows[0][name] is None else float(np.mean([row[name] for row in rows]))
        for name in rows[0]
    }
    return LevelLikeness(**means)  # type: ignore[arg-type]  # only face may be None


class Calibrator:
    """Makes clips with a model, and finishes them again from any level."""

    def __init__(self, model: Model, plan: Plan) -> None:
        """Take the plan's levels and steps; what else it may do is left out.

        Raises:
            PlanError: its steps have more than one resolution, or guidance.
        """
        for index, step in enumerate(plan.steps):
            if step.resolution != 1.0 or step.guidance != 1.0:
                raise PlanError(
                    f"plan {plan.name}: step {index} sets resolution or guidance: calibrate with a "
                    "plan of plain steps, levels do not depend on the plan"
                )
        self._model = model
        self._plan = replace(plan, plugins=(), windows=None, short=None, sink_refresh=None)

    @torch.inference_mode()
    def make(
        self, portrait_BCHW: torch.Tensor, sound: Iterable[AudioChunk], *, rate: int, seed: int
    ) -> Clip:
        """A finished clip of a portrait that says what it hears; `rate` is the sound's.

        Raises:
            ImageError: the codec cannot make pictures of that size.
            ModelError: the pictures are no numbers.
        """
        model = self._model
        inputs = model.session_inputs(portrait_BCHW, session="clip", seed=seed, fps=model.fps)
        works = []
        conditioner = model.conditioner(inputs)
        for index, audio_LCT in enumerate(self._windows(sound, rate)):
            cond_CTHW = conditioner.push(audio_LCT)
            start_frame = index * self._plan.frames_per_chunk
            latent = pure_noise(seed, index, start_frame, cond_CTHW)
            works.append(
                ChunkWork(session="clip", latent=latent, audio_LCT=audio_LCT, cond_CTHW=cond_CTHW)
            )
        return self._finished(inputs, works, finishing_plan(self._plan, 1.0), 0)

    @torch.inference_mode()
    def remake(self, clip: Clip, sigma: float) -> Clip:
        """The clip noised to a level and finished with other noise."""
        seed = (clip.inputs.seed + _OTHER_NOISE) % (1 << 63)
        inputs = replace(clip.inputs, seed=seed)
        plan = finishing_plan(self._plan, sigma)
        stage = len(plan.stages) - 1
        works = [
            replace(work, latent=_noised(work.latent, seed, sigma, stage)) for work in clip.works
        ]
        return self._finished(inputs, works, plan, stage)

    def compare(self, clip: Clip, other: Clip, sigma: float) -> LevelLikeness:
        """How alike two clips are."""
        frames = (clip.frames_THWC, other.frames_THWC)
        motion = flow = motion_likeness(*frames)
        face = None
        if isinstance(self._model.codec, MotionCodec):
            pairs = (clip.latents(), other.latents())
            motion = _track_likeness(*(latents[:POSE_CHANNELS] for latents in pairs))
            face = _track_likeness(*(latents[POSE_CHANNELS:] for latents in pairs))
        detail = detail_likeness(*frames)
        return LevelLikeness(sigma=sigma, motion=motion, flow=flow, detail=detail, face=face)

    def _windows(self, sound: Iterable[AudioChunk], rate: int) -> Iterable[torch.Tensor]:
        """The speech of each chunk, to the sound's end."""
        model, num_samples = self._model, 0
        windows = SpeechWindows(
            model.speech_encoder(),
            sample_rate=rate,
            fps=model.fps,
            window_frames=self._plan.frames_per_chunk * model.codec.frames_per_latent,
        )
        for chunk in sound:
            num_samples += chunk.num_samples
            yield from windows.push(chunk)
        yield from windows.flush(num_frames(num_samples, rate, model.fps))

    def _finished(
        self, inputs: SessionInputs, works: Sequence[ChunkWork], plan: Plan, stage: int
    ) -> Clip:
        """Chunks taken through a stage of a plan and decoded."""
        denoise = DenoiseStage(self._model.denoiser(plan), plan, stage)
        decode = DecodeStage(self._model.codec)
        denoise.prepare(inputs)
        decode.prepare(inputs)
        clean = tuple(denoise.process(work) for work in works)
        frames_THWC = np.concatenate([decode.process(work).frames_THWC for work in clean])
        return Clip(inputs=inputs, works=clean, frames_THWC=frames_THWC)


def finishing_plan(plan: Plan, sigma: float) -> Plan:
    """The plan whose last stage leads from a level to clean, by the levels of `plan` below it.

    A first stage, never run, leads there from pure noise.
    """
    below = [
        replace(
            step,
            sigma_in=min(step.sigma_in, sigma),
            forecast=False,
            # Segments give the adapter of the level where a step begins now.
            adapter=step.adapter if plan.segments is None else None,
        )
        for step in plan.steps
        if step.sigma_out < sigma
    ]
    stages = [StageSpec(name="finish", steps=tuple(below))]
    if sigma < 1.0:
        stages.insert(0, StageSpec(name="noise", steps=(Step(sigma_in=1.0, sigma_out=sigma),)))
    return replace(plan, stages=tuple(stages))


def _noised(latent: LatentChunk, seed: int, sigma: float, step: int) -> LatentChunk:
    """A clean chunk back at a level, before step `step`."""
    noise = pure_noise(seed, latent.index, latent.start_frame, latent.latents_CTHW)
    latents_CTHW = renoise_step(latent.latents_CTHW, noise.latents_CTHW, sigma)
    return replace(latent, latents_CTHW=latents_CTHW, sigma=sigma, step=step)


def _track_likeness(one_CTHW: torch.Tensor, other_CTHW: torch.Tensor) -> float:
    """Correlation of what each place and channel does over time."""
    one, other = (
        (latents - latents.mean(1, keepdim=True)).float().cpu().numpy()
        for latents in (one_CTHW, other_CTHW)
    )
    return correlation(one, other)
