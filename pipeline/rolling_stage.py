"""A window that rolls along with the clip: each stride a step noisier than the one before it.

One pass of the network takes every stride one step further; the cleanest one leaves, noise comes
in at the other end. So a stride costs one pass, and what comes next is already being prepared.
Source: Streaming Diffusion Policy, the rolling buffer (also StreamDiT and Rolling Forcing).

Shape legend: B = batch (1), C = channels, T = frames, F = latent frames, H, W = rows and columns.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from pipeline.errors import PlanError
from pipeline.plan import Plan
from pipeline.route import Leg
from pipeline.sampler import Denoiser, StepWork, advanced
from pipeline.sink_rules import distance_at
from pipeline.sink_store import SinkStore
from pipeline.stage import ChunkWork, void_chunk
from pipeline.window_line import WindowLine, on
from pipeline.window_stage import WindowSession, WindowStage
from pipeline.window_view import WindowView
from video.noise import TIME_SCALE, velocity_from_prediction


class RollingStage(WindowStage):
    """All steps of a plan in one pass over a window of one stride for each of them.

    While the window fills at the clip's begin, and empties at its end, it is shorter.
    """

    def __init__(
        self, denoiser: Denoiser, plan: Plan, index: int, *, sinks: SinkStore | None = None
    ) -> None:
        """Own the plan's only stage; what it holds is exported under step 0.

        Raises:
            PlanError: its windows do not suit the network, or steps differ in more than noise.
        """
        super().__init__(denoiser, plan, index, sinks=sinks)
        if len({step.adapter for step in plan.steps}) > 1 or denoiser.plugins:
            raise PlanError(
                f"plan {plan.name}: windows: a rolling window takes all steps in one pass: leave "
                "out plug-ins, and give all steps one adapter"
            )
        self._steps = plan.steps[:1]

    @torch.inference_mode()
    def process(self, work: ChunkWork) -> ChunkWork:
        """Take a stride in and the window one step further; give the stride that is clean."""
        num_steps = len(self._plan.steps)
        if work.latent.step >= num_steps:
            return work
        session = self._sessions[work.session]
        (line,) = session.lines
        given = void_chunk(work.session, work.latent.index)
        if not work.is_void:
            line.held.append(on(self._denoiser.network.patch_embedding.weight.device, work))
        if line.held:
            self._pass(session, line)
            if line.held[0].latent.step == num_steps:
                given = line.drop_oldest(self._plan.frames_per_chunk)
        latent = replace(given.latent, index=work.latent.index, sigma=0.0, step=num_steps)
        return replace(given, latent=latent)

    def _pass(self, session: WindowSession, line: WindowLine) -> None:
        """Every stride held one step further."""
        if line.held[-1].reference_BCTHW is not None:
            self._show(line.lane, line.held[-1].reference_BCTHW)
        legs = [self._legs[work.latent.step] for work in line.held]
        velocity_CTHW = self._velocity(session, line, legs)
        session.evaluations += 1
        pieces = torch.split(velocity_CTHW, self._plan.frames_per_chunk, dim=1)
        for place, (leg, piece_CTHW) in enumerate(zip(legs, pieces, strict=True)):
            line.held[place] = self._advanced(session, line, line.held[place], leg, piece_CTHW)

    def _velocity(
        self, session: WindowSession, line: WindowLine, legs: Sequence[Leg]
    ) -> torch.Tensor:
        """The network's opinion on the window, each stride at its own noise level."""
        network, stride = self._denoiser.network, self._plan.frames_per_chunk
        window = line.window(line.start, line.end)
        weight, sigmas = network.patch_embedding.weight, [leg.step.sigma_in for leg in legs]
        levels_F = torch.tensor(sigmas, dtype=torch.float64).repeat_interleave(stride)
        x_CTHW, cond_CTHW = window.latent.latents_CTHW, window.cond_CTHW
        seed, chunk = session.inputs.seed, line.start // stride
        with self._denoiser.wearing(legs[0].step.adapter) as worn:
            (made_CTHW,) = self._view(line, window).ask(
                worn.network,
                x_CTHW[None].to(weight),
                (TIME_SCALE * levels_F).float().to(weight.device)[None],
                start_frame=line.start,
                sink_distance=distance_at(self._denoiser.sink_distance, seed, chunk, 0),
                cond_BCTHW=cond_CTHW[None].to(weight) if network.config.cond_dim else None,
            )
        kind = self._denoiser.prediction
        split = (torch.split(t, stride, dim=1) for t in (made_CTHW.float(), x_CTHW, cond_CTHW))
        return torch.cat(
            [
                velocity_from_prediction(kind, made, x, sigma, cond)
                for sigma, made, x, cond in zip(sigmas, *split, strict=True)
            ],
            dim=1,
        )

    def _view(self, line: WindowLine, window: ChunkWork) -> WindowView:
        """What the network is told of the whole window."""
        return WindowView(
            stride=self._plan.frames_per_chunk,
            audio_LCT=window.audio_LCT,
            before_LCT=line.heard_before(line.start),
            conditions=line.lane.sink.conditions,
            bidirectional=self._windows.bidirectional,
        )

    def _advanced(
        self,
        session: WindowSession,
        line: WindowLine,
        work: ChunkWork,
        leg: Leg,
        velocity_CTHW: torch.Tensor,
    ) -> ChunkWork:
        """One stride at the level of its next step."""
        number = work.latent.start_frame // self._plan.frames_per_chunk
        step = StepWork(
            session=work.session,
            chunk=replace(work.latent, index=number),
            legs=self._legs,
            leg=leg,
            lane=line.lane,
            audio_LCT=work.audio_LCT,
            heard=None,
            cond_CTHW=work.cond_CTHW,
            seed=session.inputs.seed,
        )
        return replace(work, latent=advanced(step, velocity_CTHW))
