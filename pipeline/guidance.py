"""Guidance on sound: a step goes further than silence would take it, by as much as the plan says.

With weight w a step's velocity is `silent + w * (heard - silent)`: the network is asked twice, once
with the chunk's speech and once with that of silence. The silent branch has a ring of its own,
since what it did before is what it looks back on. Weight 1 asks once and changes nothing, to the
bit. Source: classifier-free guidance (Ho and Salimans, 2022); design page "algorithms", section 1.

Shape legend: L = audio layers, C = channels, T = frames.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from audio.chunk import AudioChunk
from audio.encoder import SpeechEncoder
from video.audio_tokens import AudioHistory

if TYPE_CHECKING:
    from pipeline.plan import Plan, Step
    from pipeline.sampler import Denoiser, StepWork
    from video.audio_tokens import Heard

# Silence on both sides of the feature that is taken for it: more than any encoder looks around.
SILENCE_S = 4


def is_guided(step: "Step") -> bool:
    """Whether the network is asked twice."""
    return step.guidance != 1.0


def num_branches(step: "Step") -> int:
    """How often the network runs at a step."""
    return 2 if is_guided(step) else 1


def guided(silent_CTHW: torch.Tensor, heard_CTHW: torch.Tensor, weight: float) -> torch.Tensor:
    """From what silence makes of a chunk through what its speech does, and on."""
    return silent_CTHW + weight * (heard_CTHW - silent_CTHW)


def silence_for(plan: "Plan", make_encoder: Callable[[], SpeechEncoder]) -> torch.Tensor | None:
    """What an encoder hears where nobody speaks, `[L, C]`; None if no step of the plan asks."""
    if not any(is_guided(step) for step in plan.steps):
        return None
    encoder = make_encoder()
    rate = encoder.sample_rate
    samples_T = np.zeros(2 * SILENCE_S * rate, np.float32)
    values_LCT = encoder.push(AudioChunk(samples_T=samples_T, sample_rate=rate, pts=0)).values_LCT
    return values_LCT[..., min(int(SILENCE_S * encoder.rate), values_LCT.shape[-1] - 1)].clone()


def silent_audio(denoiser: "Denoiser", like_LCT: torch.Tensor) -> torch.Tensor:
    """Silence for as many frames as there are of speech; zeros if nobody knows better."""
    if denoiser.silence_LC is None:
        return torch.zeros_like(like_LCT)
    return denoiser.silence_LC.to(like_LCT)[..., None].expand_as(like_LCT)


def hear_silence(denoiser: "Denoiser", like_LCT: torch.Tensor) -> "tuple[Heard, ...] | None":
    """A chunk's silence as the layers use it; it has no history, for it was always silent."""
    network = denoiser.network
    if not network.config.audio_inject_layers:
        return None
    audio_BLCT = silent_audio(denoiser, like_LCT)[None].to(network.patch_embedding.weight)
    return network.encode_audio(audio_BLCT, start_frame=0, history=AudioHistory())


def silent_branch(denoiser: "Denoiser", work: "StepWork") -> "StepWork":
    """The same chunk at the same step as if nobody spoke: with the ring of its silent past."""
    if work.window is not None:
        audio_LCT, before_LCT = work.window.audio_LCT, work.window.before_LCT
        window = replace(
            work.window,
            audio_LCT=silent_audio(denoiser, audio_LCT),
            before_LCT=None if before_LCT is None else silent_audio(denoiser, before_LCT),
        )
        return replace(work, window=window)
    if work.lane.silent is None:
        raise ValueError(f"step {work.leg.index} has no silent lane: open it for guided steps")
    return replace(
        work,
        lane=replace(work.lane, cache=work.lane.silent),
        heard=hear_silence(denoiser, work.audio_LCT),
    )
