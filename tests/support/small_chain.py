"""A chain with a real network and a codec that costs nothing: its pictures are its latents.

Shape legend: B = batch (1), C = channels, T = frames, H, W = rows and columns.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cache

import numpy as np
import torch

from pipeline.chain import Chain, LocalChain, Schedule
from pipeline.cuts import cut_at
from pipeline.decode_stage import DecodeStage
from pipeline.denoise_stage import DenoiseStage
from pipeline.plan import Plan, StageSpec, Step
from pipeline.recipe import Recipe
from pipeline.sampler import Denoiser, pure_noise
from pipeline.stage import ChunkWork, SessionInputs
from pipeline.step_cost import BatchProfile
from video.chunk import VideoChunk
from video.dit import SpeechToVideoDiT
from video.dit_config import DiTConfig

FRAMES = 3
CHANNELS = 4
CONFIG = DiTConfig(
    dim=24, ffn_dim=32, num_heads=2, num_layers=2, in_dim=CHANNELS, out_dim=CHANNELS,
    cond_dim=CHANNELS, freq_dim=16, audio_dim=6, num_audio_layers=1, num_audio_token=2,
    audio_inject_layers=(0, 1), audio_context="carry",
)  # fmt: skip
PLAN = Plan(
    name="small",
    stages=(
        StageSpec(
            name="all",
            steps=(
                Step(sigma_in=1.0, sigma_out=0.8, rule="renoise"),
                Step(sigma_in=0.8, sigma_out=0.5, rule="renoise"),
                Step(sigma_in=0.5, sigma_out=0.2),
                Step(sigma_in=0.2, sigma_out=0.0),
            ),
        ),
    ),
)
CUTS: dict[int, list[int]] = {1: [], 2: [2], 3: [1, 2], 4: [1, 2, 3]}


def cut(num_stages: int) -> Plan:
    """The plan in so many stages; three are cut where two are not."""
    return cut_at(PLAN, CUTS[num_stages])


@cache
def denoiser() -> Denoiser:
    """A network of random weights, all of which show."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = SpeechToVideoDiT(CONFIG).eval().requires_grad_(False)
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return Denoiser(network=network, prediction="velocity", sink_distance=15)


class PlainState:
    """The latent shown last."""

    def __init__(self, last_CHW: torch.Tensor) -> None:
        self.last_CHW = last_CHW

    def export_state(self) -> dict[str, torch.Tensor]:
        return {"last": self.last_CHW.clone()}

    def import_state(self, state: Mapping[str, torch.Tensor]) -> None:
        self.last_CHW = state["last"].clone()


class PlainCodec:
    """Shows three channels of each latent, with an echo of the latent before."""

    latent_channels, frames_per_latent = CHANNELS, 4

    def latent_size(self, height_px: int, width_px: int) -> tuple[int, int]:
        return height_px, width_px

    def encode_reference(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        return torch.cat([image_BCHW, image_BCHW[:, :1]], dim=1)[:, :, None]

    def start(self, image_BCHW: torch.Tensor) -> PlainState:
        return PlainState(self.encode_reference(image_BCHW)[0, :, 0])

    def decode(self, latents_BCTHW: torch.Tensor, state: PlainState) -> torch.Tensor:
        pictures = []
        for latent_CHW in latents_BCTHW[0].unbind(1):
            pictures += [(0.3 * latent_CHW + 0.1 * state.last_CHW)[:3]] * 4
            state.last_CHW = latent_CHW
        return torch.stack(pictures, dim=1)[None]


def decode_stage() -> DecodeStage:
    return DecodeStage(PlainCodec())  # type: ignore[arg-type]  # its state is its own kind


def denoise_stage(plan: Plan, index: int, batch: BatchProfile | None = None) -> DenoiseStage:
    return DenoiseStage(denoiser(), plan, index, batch=batch)


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallRecipe:
    """A stage of the plan; after the last stage comes the decoder."""

    plan: Plan
    index: int
    batch: BatchProfile = field(default_factory=BatchProfile)

    @property
    def name(self) -> str:
        return f"small{self.index}"

    @property
    def steps_done(self) -> int:
        return 0 if self.index == len(self.plan.stages) else self.plan.first_step(self.index + 1)

    def build(self) -> DenoiseStage | DecodeStage:
        if self.index == len(self.plan.stages):
            return decode_stage()
        return denoise_stage(self.plan, self.index, self.batch)


def small_recipes(num_stages: int, batch: BatchProfile | None = None) -> list[Recipe]:
    plan = cut(num_stages)
    return [
        SmallRecipe(plan=plan, index=index, batch=batch or BatchProfile())
        for index in range(num_stages + 1)
    ]


def local_chain(num_stages: int, schedule: Schedule) -> LocalChain:
    codec = PlainCodec()
    return LocalChain.from_plan(cut(num_stages), denoiser(), codec, schedule=schedule)  # type: ignore[arg-type]  # see decode_stage


def portrait(seed: int, size: tuple[int, int] = (4, 6)) -> torch.Tensor:
    return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def small_inputs(name: str, seed: int, size: tuple[int, int] = (4, 6)) -> SessionInputs:
    image_BCHW = portrait(seed, size)
    return SessionInputs(
        session=name,
        seed=seed,
        fps=Fraction(25),
        image_BCHW=image_BCHW,
        reference_BCTHW=PlainCodec().encode_reference(image_BCHW),
    )


def small_works(inputs: SessionInputs, num_chunks: int) -> list[ChunkWork]:
    """Chunks of noise with random speech and prior latents."""
    generator = torch.Generator().manual_seed(inputs.seed)
    grid = inputs.reference_BCTHW.shape[-2:]
    made = []
    for index in range(num_chunks):
        cond = torch.randn(CHANNELS, FRAMES, *grid, generator=generator)
        made.append(
            ChunkWork(
                session=inputs.session,
                latent=pure_noise(inputs.seed, index, index * FRAMES, cond),
                audio_LCT=torch.randn(1, CONFIG.audio_dim, 4 * FRAMES, generator=generator),
                cond_CTHW=cond,
            )
        )
    return made


def with_reference(works: Sequence[ChunkWork], at: int, seed: int) -> list[ChunkWork]:
    """The works with another reference from chunk `at` on."""
    *_, height, width = works[at].cond_CTHW.shape
    reference = PlainCodec().encode_reference(portrait(seed, (height, width)))
    return [replace(w, reference_BCTHW=reference if i == at else None) for i, w in enumerate(works)]


def run(chain: Chain, inputs: SessionInputs, works: Sequence[ChunkWork]) -> list[VideoChunk]:
    """All pictures of a session."""
    chain.prepare(inputs)
    made = [video for work in works for video in chain.submit(work)]
    return made + chain.drain(inputs.session)


def levels_apart(made: Sequence[VideoChunk], expected: Sequence[VideoChunk]) -> int:
    """The largest difference of two runs in levels of 255; their times must agree."""
    assert [video.pts for video in made] == [video.pts for video in expected]
    pairs = zip(made, expected, strict=True)
    return max(
        int(np.abs(a.frames_THWC.astype(int) - b.frames_THWC.astype(int)).max()) for a, b in pairs
    )
