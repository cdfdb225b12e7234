"""Windows on the small chain: plans, strides of work, and the whole clip done at once.

Shape legend: B = batch (1), L = audio layers, C = channels, T = frames, H, W = rows and columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from pipeline.chain import Chain
from pipeline.cuts import cut_at
from pipeline.decode_stage import DecodeStage
from pipeline.denoising import Denoising, denoising_stage
from pipeline.plan import Plan, Step
from pipeline.sampler import Denoiser, pure_noise
from pipeline.stage import ChunkWork, SessionInputs, void_chunk
from pipeline.window_spec import WindowSpec
from tests.support.small_chain import CHANNELS, CONFIG, PLAN, decode_stage, denoiser, run
from video.chunk import VideoChunk
from video.hinge import resized
from video.noise import TIME_SCALE, clean_estimate, counter_noise, euler_step, renoise_step


def windowed_plan(
    windows: WindowSpec, cuts: Sequence[int] = (), steps: Sequence[Step] = ()
) -> Plan:
    """The small plan with windows, cut before these steps."""
    (stage,) = PLAN.stages
    whole = replace(
        PLAN,
        mode="render",
        stages=(replace(stage, steps=tuple(steps) or stage.steps),),
        windows=windows,
        frames_per_chunk=windows.stride(len(steps) or len(PLAN.steps)),
    )
    return cut_at(whole, list(cuts))


def strides_of_work(inputs: SessionInputs, plan: Plan, num_strides: int) -> list[ChunkWork]:
    """Noise with random speech and prior, then as many void chunks as let all come out."""
    generator = torch.Generator().manual_seed(inputs.seed)
    size, grid = plan.frames_per_chunk, inputs.reference_BCTHW.shape[-2:]
    resolution = plan.steps[0].resolution
    works = []
    for index in range(num_strides):
        cond = torch.randn(CHANNELS, size, *grid, generator=generator)
        works.append(
            ChunkWork(
                session=inputs.session,
                latent=pure_noise(inputs.seed, index, index * size, resized(cond, resolution)),
                audio_LCT=torch.randn(1, CONFIG.audio_dim, 4 * size, generator=generator),
                cond_CTHW=cond,
            )
        )
    assert plan.windows is not None
    indices = range(num_strides, num_strides + plan.windows.lag(len(plan.steps)))
    return works + [void_chunk(inputs.session, index) for index in indices]


@dataclass(frozen=True)
class WindowOfClip:
    """One step of a window of a whole clip, from the network and the formulas alone."""

    inputs: SessionInputs
    plan: Plan
    works: Sequence[ChunkWork]

    def noise(self) -> torch.Tensor:
        return torch.cat([w.latent.latents_CTHW for w in self._real], dim=1)

    @property
    def _real(self) -> list[ChunkWork]:
        return [work for work in self.works if not work.is_void]

    def velocity(self, step: int, start: int, x_CTHW: torch.Tensor) -> torch.Tensor:
        level = self.plan.steps[step].sigma_in
        t_BF = torch.full((1, x_CTHW.shape[1]), TIME_SCALE * level)
        return self.velocity_at(t_BF, start, x_CTHW)

    def velocity_at(self, t_BF: torch.Tensor, start: int, x_CTHW: torch.Tensor) -> torch.Tensor:
        count = x_CTHW.shape[1]
        audio_LCT = torch.cat([w.audio_LCT for w in self._real], dim=-1)
        cond_CTHW = torch.cat([w.cond_CTHW for w in self._real], dim=1)
        with torch.inference_mode():
            made_BCTHW = denoiser().network.forward_full(
                x_CTHW[None],
                t_BF,
                audio_LCT[None, ..., 4 * start : 4 * (start + count)],
                self.inputs.reference_BCTHW,
                cond=cond_CTHW[None, :, start : start + count],
                causal=True,
                audio_history=audio_LCT[None, ..., 4 * start - 5 : 4 * start] if start else None,
                sink_distance=15,
                start_frame=start,
            )
        return made_BCTHW[0]

    def __call__(self, step: int, start: int, x_CTHW: torch.Tensor) -> torch.Tensor:
        return self.after(step, start, x_CTHW, self.velocity(step, start, x_CTHW))

    def after(
        self, step: int, start: int, x_CTHW: torch.Tensor, v_CTHW: torch.Tensor
    ) -> torch.Tensor:
        """The update rule, with each frame's noise drawn alone."""
        spec, size = self.plan.steps[step], self.plan.frames_per_chunk
        if spec.rule == "euler":
            return euler_step(x_CTHW, v_CTHW, spec.sigma_in, spec.sigma_out)
        channels, count, *grid = x_CTHW.shape
        seed = self.inputs.seed
        noise = [
            counter_noise(seed, f // size, step + 1, (channels, 1, grid[0], grid[1]), f)
            for f in range(start, start + count)
        ]
        clean_CTHW = clean_estimate(x_CTHW, v_CTHW, spec.sigma_in)
        return renoise_step(clean_CTHW, torch.cat(noise, dim=1), spec.sigma_out)


def windowed_stages(plan: Plan, with_plugins: Denoiser | None = None) -> list[Denoising]:
    return [denoising_stage(with_plugins or denoiser(), plan, i) for i in range(len(plan.stages))]


def through(
    stages: Sequence[Denoising], inputs: SessionInputs, works: Sequence[ChunkWork]
) -> list[ChunkWork]:
    """What comes out of the last stage for every message."""
    for stage in stages:
        stage.prepare(inputs)
    made = []
    for work in works:
        for stage in stages:
            work = stage.process(work)
        made.append(work)
    return made


def clip_of(made: Sequence[ChunkWork]) -> torch.Tensor:
    """The latents of all that came out, which must follow each other."""
    there = [work.latent for work in made if not work.is_void]
    end = 0
    for latent in there:
        assert latent.start_frame == end
        end += latent.latents_CTHW.shape[1]
    return torch.cat([latent.latents_CTHW for latent in there], dim=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowedRecipe:
    """A stage of a windowed plan; after the last stage comes the decoder."""

    plan: Plan
    index: int

    @property
    def name(self) -> str:
        return f"windowed{self.index}"

    @property
    def steps_done(self) -> int:
        return 0 if self.index == len(self.plan.stages) else self.plan.first_step(self.index + 1)

    def build(self) -> Denoising | DecodeStage:
        if self.index == len(self.plan.stages):
            return decode_stage()
        return denoising_stage(denoiser(), self.plan, self.index)


def pictures(chain: Chain, inputs: SessionInputs, works: Sequence[ChunkWork]) -> list[VideoChunk]:
    """All pictures of a session, without the chunks that hold none."""
    return [video for video in run(chain, inputs, works) if video.num_frames]
