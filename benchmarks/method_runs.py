"""Runs a plan over held-out clips: what it gives, what it differs from another, what it costs.

Shape legend: B = batch (1), C = channels, T = latent frames or pictures, H, W = rows and columns.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from audio.chunk import AudioChunk
from pipeline.chain import LocalChain
from pipeline.generator import AvatarGenerator
from pipeline.model import Model
from pipeline.observe import ObservedCodec
from pipeline.plan import Plan
from pipeline.session_state import SessionState
from pipeline.stage import ChunkWork, SessionInputs, Stage
from training.clip import SAMPLE_RATE
from training.eval_codec import motion_codec
from training.eval_speech import PUSH_SAMPLES, Figures, figures_of, session_sound, spoken
from training.held_out import HeldOutClip
from video.face_reader import AlignedFrames, FaceReader, FaceReading

OutT = TypeVar("OutT")


@dataclass(slots=True)
class Costs:
    """What the denoising steps took: processor seconds, the network's passes, and for how much."""

    spent_s: float = 0.0
    evaluations: int = 0
    latents: int = 0

    def ms(self, latents: int = 3) -> float:
        """Processor milliseconds for so many latent frames."""
        return 1e3 * self.spent_s * latents / self.latents

    def passes(self, latents: int = 3) -> float:
        """Passes of the network for so many latent frames; a window's counts once."""
        return self.evaluations * latents / self.latents


class CountingStage:
    """Does what `stage` does, and counts its time."""

    def __init__(self, stage: Stage[Any], costs: Costs) -> None:
        """Stand in for `stage`."""
        self._stage, self._costs = stage, costs

    def __getattr__(self, name: str) -> Any:
        """Whatever else the stage can do."""
        return getattr(self._stage, name)

    def process(self, work: ChunkWork) -> Any:
        """Do the stage's share of a chunk."""
        count = getattr(self._stage, "num_evaluations", None)
        before = count(work.session) if count else 0
        began_s = time.process_time()
        made = self._stage.process(work)
        self._costs.spent_s += time.process_time() - began_s
        if count:
            self._costs.evaluations += count(work.session) - before
        return made

    def prepare(self, inputs: SessionInputs) -> None:
        """Make room for a session."""
        self._stage.prepare(inputs)

    def export_state(self, session: str) -> SessionState:
        """What the stage exports."""
        return self._stage.export_state(session)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipRun:
    """One clip as a plan made it: clean latents, pictures at the portrait's pose, and a reading."""

    latents_CTHW: torch.Tensor
    pictures_T3HW: torch.Tensor
    reading: FaceReading


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRun:
    """All clips as one plan made them."""

    plan: Plan
    clips: tuple[ClipRun, ...]
    costs: Costs
    sync: Figures


def run_plan(model: Model, plan: Plan, clips: Sequence[HeldOutClip], seed: int) -> PlanRun:
    """Generate every clip from its own sound; all plans hear and draw the same."""
    costs, made = Costs(), []
    for number, clip in enumerate(clips):
        made.append(_run_clip(model, plan, clip, seed + number, costs))
    moving = [spoken(r.reading, c) for r, c in zip(made, clips, strict=True) if c.moves]
    return PlanRun(plan=plan, clips=tuple(made), costs=costs, sync=figures_of(moving))


def _run_clip(model: Model, plan: Plan, clip: HeldOutClip, seed: int, costs: Costs) -> ClipRun:
    latents: list[torch.Tensor] = []
    session = _open(model, plan, clip, seed, latents, costs)
    sound_S = session_sound(clip.arrays["samples"])
    pieces = (
        AudioChunk(samples_T=sound_S[at : at + PUSH_SAMPLES], sample_rate=SAMPLE_RATE, pts=at)
        for at in range(0, len(sound_S), PUSH_SAMPLES)
    )
    for _ in session.run(pieces):
        pass
    latents_BCTHW = torch.cat(latents, dim=2)
    costs.latents += latents_BCTHW.shape[2]
    reader = FaceReader(motion_codec(model), clip.portrait, clip.points)
    frames: AlignedFrames = reader.frames(latents_BCTHW)
    return ClipRun(
        latents_CTHW=latents_BCTHW[0],
        pictures_T3HW=frames.pictures_N3HW,
        reading=reader.read_frames(frames),
    )


def _open(
    model: Model,
    plan: Plan,
    clip: HeldOutClip,
    seed: int,
    latents: list[torch.Tensor],
    costs: Costs,
) -> AvatarGenerator:
    """A session whose latents are kept and whose steps are timed; nothing is shown."""
    codec = ObservedCodec(model.codec, latents.append, wanted=lambda _: False)
    chain = LocalChain.from_plan(plan, model.denoiser(plan), codec)
    decoder = len(plan.stages)

    def counted(index: int, stage: Stage[OutT]) -> Stage[OutT]:
        return stage if index == decoder else CountingStage(stage, costs)

    chain.wrap(counted)
    return AvatarGenerator(
        model, plan, clip.portrait, sample_rate=SAMPLE_RATE, seed=seed, chain=chain
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Distance:
    """How far one plan's clips are from another's: relative in latents, in decibels in pictures."""

    latents: float
    psnr_db: float


def distance(run: PlanRun, reference: PlanRun) -> Distance:
    """Over all frames that both have."""
    errors, squares = [], []
    for mine, theirs in zip(run.clips, reference.clips, strict=True):
        num = min(mine.latents_CTHW.shape[1], theirs.latents_CTHW.shape[1])
        a, b = mine.latents_CTHW[:, :num], theirs.latents_CTHW[:, :num]
        errors.append(float((a - b).norm() / b.norm()))
        difference = mine.pictures_T3HW[: 4 * num] - theirs.pictures_T3HW[: 4 * num]
        squares.append(float(difference.square().mean()))
    mse = sum(squares) / len(squares)
    psnr_db = float("inf") if mse == 0.0 else float(10 * torch.log10(torch.tensor(4.0 / mse)))
    return Distance(latents=sum(errors) / len(errors), psnr_db=psnr_db)


def sharpness(run: PlanRun) -> float:
    """Mean strength of fine detail: how much neighbouring rows differ, in levels of 255."""
    values = [(c.pictures_T3HW.diff(dim=-2).abs().mean() * 127.5) for c in run.clips]
    return float(torch.stack(values).mean())


def pops(run: PlanRun, pictures_per_chunk: int) -> float:
    """Change of the picture at chunk borders against elsewhere."""
    at_borders, elsewhere = [], []
    for clip in run.clips:
        change_T = clip.pictures_T3HW.diff(dim=0).abs().mean(dim=(1, 2, 3))
        border_T = (torch.arange(len(change_T)) + 1) % pictures_per_chunk == 0
        at_borders.append(change_T[border_T].mean())
        elsewhere.append(change_T[~border_T].mean())
    return float(torch.stack(at_borders).mean() / torch.stack(elsewhere).mean())
